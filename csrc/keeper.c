/* The keeper: parent of the shim, there for the moment in which the shim is killed.
 *
 * It shares the shim's descriptor table (CLONE_FILES) and the store, so that nothing closes and nothing is forgotten
 * when the shim dies: pipes stay open, programs see no SIGPIPE, what was taken and not delivered is there. As subreaper
 * it becomes the parent of the orphaned containers, notes how they end, and makes a new shim. If the keeper is killed
 * instead, the shim takes its place (it is the parent of its containers already) and a copy of it goes on as the shim.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A copy of this process that shares its descriptors. */
static pid_t copy_sharing_files(void)
{
	struct pn_clone_args args = { .flags = CLONE_FILES, .exit_signal = SIGCHLD };

	return (pid_t)sys_clone3(&args);
}

/* Noted before it is reaped: whoever dies in between, the other finds it again. False: there is no room. */
static bool note_exit(const siginfo_t *info)
{
	uint32_t at = store->exits_in;
	struct timespec now;

	if (at - KEPT(store->exits_out) >= STORE_EXITS)
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	store->exits[at % STORE_EXITS] = (struct kept_exit){
		.pid = info->si_pid,
		.code = info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status,
		.finished = now.tv_sec * 1000000000LL + now.tv_nsec,
	};
	KEEP(store->exits_in, at + 1);
	return true;
}

static void reap(pid_t pid)
{
	while (waitid(P_PID, (id_t)pid, &(siginfo_t){ 0 }, WEXITED | __WALL) < 0 && errno == EINTR)
		;
}

static bool has_died(pid_t pid, siginfo_t *ret_info)
{
	*ret_info = (siginfo_t){ 0 };
	return waitid(P_PID, (id_t)pid, ret_info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && ret_info->si_pid == pid;
}

static pid_t start_shim(void)
{
	pid_t pid;

	while ((pid = copy_sharing_files()) < 0) /* no memory, no pids: containers live on meanwhile */
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	if (pid == 0)
		_exit(shim_run());
	return pid;
}

/* A shim that dies at once, again and again, must not keep a CPU busy. */
static void pause_if_dying(void)
{
	static struct timespec last;
	static unsigned int quick;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	quick = now.tv_sec - last.tv_sec <= 1 ? quick + 1 : 0;
	last = now;
	if (quick > 100)
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
}

static int keep(pid_t shim)
{
	prctl(PR_SET_NAME, "pynetns-keeper");
	for (;;) {
		siginfo_t info = { 0 };

		if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | __WALL) < 0) {
			if (errno == ECHILD)
				return 1;
			continue;
		}
		if (info.si_pid != shim && note_exit(&info)) {
			reap(info.si_pid);
			shim_kick();
			continue;
		}
		if (info.si_pid != shim && !has_died(shim, &info)) { /* it is slower than the dying */
			shim_kick();
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			continue;
		}
		reap(shim);
		if (info.si_code == CLD_EXITED && info.si_status == 0)
			return 0;
		pause_if_dying();
		shim = start_shim();
	}
}

int keeper_run(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL);
	store->keeper = getpid();
	return keep(start_shim());
}

int keeper_replace(void)
{
	pid_t shim;

	prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL);
	KEEP(store->keeper, getpid());
	shim = copy_sharing_files();
	if (shim == 0)
		return 0;
	if (shim < 0)
		return -1;
	_exit(keep(shim));
}

int keeper_open(void)
{
	int fd = store_fd_up((int)syscall(SYS_pidfd_open, store->keeper, 0));

	if (fd >= 0 && getppid() != store->keeper)
		pn_close(&fd);
	return fd;
}
