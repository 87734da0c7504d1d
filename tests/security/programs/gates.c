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
	{ "clone user", SYS_clone, { 0x10000000 | 17, 0, 0, 0, 0 } },
	{ "clone3", SYS_clone3, { BAD, 88 } },
};

#if defined(__x86_64__)
/* The 32-bit door of the same kernel: other numbers, and a filter that must know them. */
static const struct {
	const char *name;
	long number;
	long arg[3];
} gates32[] = {
	{ "32-bit mount", 21, { BAD, BAD, BAD } },
	{ "32-bit umount2", 52, { BAD, 0, 0 } },
	{ "32-bit settimeofday", 79, { BAD, 0, 0 } },
	{ "32-bit swapon", 87, { BAD, 0, 0 } },
	{ "32-bit reboot", 88, { 0, 0, 0 } },
	{ "32-bit init_module", 128, { BAD, BAD, BAD } },
	{ "32-bit add_key", 286, { BAD, BAD, BAD } },
	{ "32-bit keyctl", 288, { 0, 0x7ffffff0, 0 } },
	{ "32-bit unshare", 310, { 0x10000000, 0, 0 } },
	{ "32-bit perf_event_open", 336, { BAD, 0, 0 } },
	{ "32-bit open_by_handle_at", 342, { BAD, BAD, 0 } },
	{ "32-bit setns", 346, { BAD, 0, 0 } },
	{ "32-bit bpf", 357, { 0, BAD, 72 } },
	{ "32-bit vsock", 359, { 40, SOCK_STREAM, 0 } },
	{ "32-bit userfaultfd", 374, { 0xff0000, 0, 0 } },
	{ "32-bit io_uring_setup", 425, { 1, BAD, 0 } },
	{ "32-bit move_mount", 429, { BAD, BAD, BAD } },
	{ "32-bit fsopen", 430, { BAD, 0, 0 } },
	{ "32-bit clone3", 435, { BAD, 88, 0 } },
};

static long call32(long number, const long *arg)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(arg[0]), "c"(arg[1]), "d"(arg[2]) : "memory");
	return (int)ret;
}
#endif

static void report(const char *name, pid_t pid)
{
	int status = 0;

	waitpid(pid, &status, 0);
	/* killed by a signal: the door does not exist (a 32-bit call on a kernel without them) */
	status = WIFEXITED(status) ? WEXITSTATUS(status) : ENOSYS;
	printf("%s\t%d\t%s\n", name, status, status ? strerror(status) : "DONE");
}

int cmd_gates(int argc, char **argv)
{
	pid_t pid;

	(void)argc;
	(void)argv;
	for (size_t i = 0; i < sizeof(gates) / sizeof(gates[0]); i++) {
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			const long *a = gates[i].arg;
			long ret = syscall(gates[i].number, a[0], a[1], a[2], a[3], a[4], a[5]);

			_exit(ret < 0 ? errno : 0);
		}
		report(gates[i].name, pid);
	}
#if defined(__x86_64__)
	for (size_t i = 0; i < sizeof(gates32) / sizeof(gates32[0]); i++) {
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			long ret = call32(gates32[i].number, gates32[i].arg);

			_exit(ret < 0 ? (int)-ret : 0);
		}
		report(gates32[i].name, pid);
	}
#endif
	return 0;
}
