/* How a task ended: where its exit code comes from, and where it is kept.
 *
 * The code is noted in the store before the process is reaped, and the record's page exists since the spawn, so that
 * neither a killed shim nor a full exec root loses it.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CODE_UNKNOWN 255
#define KILL_ROUNDS 32

/* Linux 6.15: how a process ended, told to whoever holds its pidfd, parent or not. */
struct pidfd_exit_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};
#define PIDFD_EXIT_MASK (1ULL << 3)
#define PIDFD_GET_EXIT _IOWR(0xff, 11, struct pidfd_exit_info)

static void note(struct kept_task *kept, int code, int64_t finished)
{
	kept->code = code;
	kept->finished = finished;
	KEEP(kept->exited, 1);
}

static int code_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A child of ours: looked at first, reaped when the code is noted. */
static int collect_own(struct kept_task *kept)
{
	siginfo_t info = { 0 };

	if (waitid(P_PIDFD, (id_t)kept->pidfd, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
		return -errno;
	if (info.si_pid == 0)
		return 0;
	note(kept, info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status, shim_now(CLOCK_REALTIME));
	waitid(P_PIDFD, (id_t)kept->pidfd, &info, WEXITED | WNOHANG | __WALL);
	return 1;
}

/* Another shim's child, now the keeper's or (both were killed) the machine's first process's. */
static int collect_foreign(struct kept_task *kept)
{
	struct pidfd_exit_info info = { .mask = PIDFD_EXIT_MASK };

	if (syscall(SYS_pidfd_send_signal, kept->pidfd, 0, NULL, 0) == 0 || errno != ESRCH)
		return 0;  /* lives, or is not reaped yet */
	task_take_exits(); /* what the keeper reaped it has noted before */
	if (KEPT(kept->exited))
		return 1;
	if (ioctl(kept->pidfd, PIDFD_GET_EXIT, &info) == 0 && (info.mask & PIDFD_EXIT_MASK))
		note(kept, code_of(info.exit_code), shim_now(CLOCK_REALTIME));
	else
		note(kept, CODE_UNKNOWN, shim_now(CLOCK_REALTIME));
	return 1;
}

int exit_collect(struct pn_task *task)
{
	struct kept_task *kept = task->kept;
	int ret;

	if (KEPT(kept->exited))
		return 1;
	ret = collect_own(kept);
	return ret == -ECHILD ? collect_foreign(kept) : ret > 0;
}

/* ---- the record ---- */

/* Its page and its name are there before the program runs. */
void exit_reserve(struct kept_task *kept)
{
	static const char blank[64] = "\n";
	int fd = openat(kept->record, "exit.tmp", O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);

	if (fd >= 0 && write(fd, blank, sizeof(blank)) != (ssize_t)sizeof(blank)) {
		close(fd);
		unlinkat(kept->record, "exit.tmp", 0);
		errno = ENOSPC;
		return;
	}
	kept->record_file = store_fd_up(fd);
}

/* A reader sees no record or a whole one. Writing it twice (its first writer was killed) changes nothing. */
bool exit_write_record(struct kept_task *kept)
{
	char text[64];
	int size;

	if (kept->record < 0)
		return false;
	size = snprintf(text, sizeof(text), "%d %lld\n", kept->code, (long long)kept->finished);
	if (pwrite(kept->record_file, text, (size_t)size, 0) != size || ftruncate(kept->record_file, size) < 0)
		return false;
	return renameat(kept->record, "exit.tmp", kept->record, "exit") == 0 ||
	       faccessat(kept->record, "exit", F_OK, 0) == 0;
}

/* ---- survivors ---- */

/* Before Linux 5.14, and for a v1 directory. What forks faster than this kills is left after some rounds. */
static void kill_one_by_one(int cgroup)
{
	for (int round = 0; round < KILL_ROUNDS; round++) {
		int fd = openat(cgroup, "cgroup.procs", O_RDONLY | O_CLOEXEC);
		FILE *procs = fd >= 0 ? fdopen(fd, "r") : NULL;
		bool any = false;
		int pid;

		if (!procs)
			return;
		while (fscanf(procs, "%d", &pid) == 1)
			if (pid > 1)
				any |= kill(pid, SIGKILL) == 0;
		fclose(procs);
		if (!any)
			return;
	}
}

void exit_kill_cgroup(int cgroup)
{
	int fd = openat(cgroup, "cgroup.kill", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		kill_one_by_one(cgroup);
	if (fd >= 0)
		close(fd);
}
