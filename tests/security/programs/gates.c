/* Is a system call let through? Each is made with arguments that the kernel refuses *after* the gate: EPERM (the
 * filter, or the missing capability) is the gate; EFAULT, EINVAL, EBADF and the like mean that it was open. */
#include "attack.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BAD ((long)-1) /* a pointer that faults, a descriptor that is none, flags that do not exist */

static const struct {
	const char *name;
	long number;
	long arg[6];
} gates[] = {
	{ "acct", SYS_acct, { BAD } },
	{ "add_key", SYS_add_key, { BAD, BAD, BAD, 1, BAD } },
	{ "bpf", SYS_bpf, { 0, BAD, 72 } },
	{ "clock_settime", SYS_clock_settime, { 0, BAD } },
	{ "delete_module", SYS_delete_module, { BAD, 0 } },
	{ "fanotify_init", SYS_fanotify_init, { BAD, BAD } },
	{ "finit_module", SYS_finit_module, { BAD, BAD, 0 } },
	{ "fsopen", SYS_fsopen, { BAD, 0 } },
	{ "init_module", SYS_init_module, { BAD, BAD, BAD } },
	{ "io_uring_setup", SYS_io_uring_setup, { 1, BAD } },
	{ "io_uring_enter", SYS_io_uring_enter, { BAD, 0, 0, 0, 0, 0 } },
	{ "io_uring_register", SYS_io_uring_register, { BAD, 0, 0, 0 } },
#ifdef SYS_iopl
	{ "iopl", SYS_iopl, { 99 } },
#endif
#ifdef SYS_ioperm
	{ "ioperm", SYS_ioperm, { BAD, BAD, 1 } },
#endif
	{ "kexec_load", SYS_kexec_load, { 0, 0, 0, 0xffff } },
	{ "keyctl", SYS_keyctl, { 0, 0x7ffffff0, 0 } },
	{ "mount", SYS_mount, { BAD, BAD, BAD, 0, 0 } },
	{ "mount_setattr", SYS_mount_setattr, { BAD, BAD, 0, BAD, 32 } },
	{ "move_mount", SYS_move_mount, { BAD, BAD, BAD, BAD, 0xffff } },
	{ "open_by_handle_at", SYS_open_by_handle_at, { BAD, BAD, 0 } },
	{ "open_tree", SYS_open_tree, { BAD, BAD, 1 } },
	{ "perf_event_open", SYS_perf_event_open, { BAD, 0, 0, BAD, 0 } },
	{ "pivot_root", SYS_pivot_root, { BAD, BAD } },
	{ "quotactl", SYS_quotactl, { 0x800002 << 8, BAD, 0, BAD } },
	{ "reboot", SYS_reboot, { 0, 0, 0, 0 } },
	{ "request_key", SYS_request_key, { BAD, BAD, 0, BAD } },
	{ "setdomainname", SYS_setdomainname, { BAD, 1 } },
	{ "sethostname", SYS_sethostname, { BAD, 1 } },
	{ "setns", SYS_setns, { BAD, 0 } },
	{ "settimeofday", SYS_settimeofday, { BAD, 0 } },
	{ "swapon", SYS_swapon, { BAD, 0 } },
	{ "swapoff", SYS_swapoff, { BAD } },
	{ "syslog", SYS_syslog, { 10, 0, 0 } },
	{ "umount2", SYS_umount2, { BAD, 0 } },
	{ "unshare mount", SYS_unshare, { 0x00020000 } },
	{ "unshare user", SYS_unshare, { 0x10000000 } },
	{ "unshare net", SYS_unshare, { 0x40000000 } },
	{ "unshare cgroup", SYS_unshare, { 0x02000000 } },
	{ "userfaultfd", SYS_userfaultfd, { 0xff0000 } },
	{ "vsock", SYS_socket, { 40, SOCK_STREAM, 0 } },
	{ "clone3 user", SYS_clone3, { BAD, 88 } },
};

int cmd_gates(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	for (size_t i = 0; i < sizeof(gates) / sizeof(gates[0]); i++) {
		int status = 0;
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			const long *a = gates[i].arg;
			long ret = syscall(gates[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);

			_exit(ret < 0 ? errno : 0);
		}
		waitpid(pid, &status, 0);
		status = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
		printf("%s\t%d\t%s\n", gates[i].name, status, status ? strerror(status) : "DONE");
	}
	return 0;
}
