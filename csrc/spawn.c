/* From a checked plan to a running child: the parent's side of clone.
 *
 * Two ways: copying (the shim: it is tiny, and goes on serving while the child prepares itself) and sharing memory
 * until exec (a library in a large process: page tables of a GiB cost 30-45 ms to copy).
 */
#include "spawn.h"
#include "syscalls.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CHILD_STACK (256 * 1024)
#define GUARD (64 * 1024) /* below the stack: a page of every size there is */

static sigset_t block_signals(void)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	return before;
}

/* The descriptors that the child keeps, in order: the plan's table, its report, and 0 to 2 where the plan leaves them.
 * The directory of the cgroup that it is born in is not among them: it would lead to all the others. */
static void choose_descriptors(struct pn_child *child)
{
	const struct pn_plan *plan = child->plan;

	for (int fd = 0; fd < 3; fd++)
		child->nkeep = pn_keep(child->keep, child->nkeep, fd);
	child->nkeep = pn_keep(child->keep, child->nkeep, child->report);
	for (uint32_t i = 0; i < plan->nfds; i++)
		if (plan->fds[i] != plan->cgroup_fd || plan->fork_joins)
			child->nkeep = pn_keep(child->keep, child->nkeep, plan->fds[i]);
}

static struct pn_child new_child(const struct pn_plan *plan, int report, struct pn_trace *trace)
{
	struct pn_child child = { .plan = plan, .report = report, .trace = trace };

	child.root_fd = child.mask_fd = child.null_fd = -1;
	choose_descriptors(&child);
	return child;
}

int pn_spawn_copying(const struct pn_plan *plan, int report_child, struct pn_trace *trace, uint32_t *shared_word,
		     int *ret_pidfd, int *ret_pid, struct pn_error *reterr)
{
	struct pn_child child = new_child(plan, report_child, trace);
	struct pn_clone_args args = {
		.flags = plan->clone_flags | CLONE_PIDFD | CLONE_PARENT_SETTID |
			 (plan->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0) |
			 (shared_word && *shared_word == PN_CHILD_SHARES ? CLONE_FILES : 0),
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.parent_tid = (uint64_t)(uintptr_t)ret_pid,
		.exit_signal = SIGCHLD,
		.cgroup = plan->cgroup_fd >= 0 ? (uint64_t)plan->cgroup_fd : 0,
	};
	sigset_t before = block_signals();
	long pid;
	int errnum;

	child.shared_word = shared_word;
	pid = sys_clone3(&args);
	errnum = errno;
	if (pid == 0)
		pn_child_run(&child);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return pn_fail(reterr, errnum, PN_STEP_CLONE, "new process");
	return 0;
}

static int report_fd(struct msghdr *msg)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

int pn_report_recv(int sock, int flags, struct pn_report *report, int *ret_fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = report, .iov_len = sizeof(*report) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t size;

	do {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		size = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	} while (size < 0 && errno == EINTR);
	*ret_fd = size > 0 ? report_fd(&msg) : -1;
	return size < 0 ? -errno : (int)size;
}

/* ---- in-process ---- */

static int start_child(void *data)
{
	pn_child_run(data);
}

static int check_in_process(const struct pn_plan *plan, struct pn_error *reterr)
{
	if (plan->has_tty)
		return pn_fail(reterr, EINVAL, PN_STEP_PLAN, "a terminal needs the shim");
	if (plan->cgroup_fd >= 0)
		return pn_fail(reterr, EINVAL, PN_STEP_PLAN, "in-process spawn joins cgroups by PN_OP_CGROUP");
	for (uint32_t i = 3; i < plan->nfds; i++)
		if (plan->fds[i] < 3)
			return pn_fail(reterr, EINVAL, PN_STEP_PLAN, "descriptor below 3 in the table");
	return 0;
}

/* A stack whose overrun faults instead of running into the caller's memory; NULL without memory. */
static char *map_stack(void)
{
	char *low = mmap(NULL, GUARD + CHILD_STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (low == MAP_FAILED)
		return NULL;
	if (mprotect(low + GUARD, CHILD_STACK, PROT_READ | PROT_WRITE) == 0)
		return low;
	munmap(low, GUARD + CHILD_STACK);
	return NULL;
}

static long clone_sharing(struct pn_child *child, int *ret_pidfd, struct pn_error *reterr)
{
	int flags = (int)child->plan->clone_flags | CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
	char *stack = map_stack();
	sigset_t before;
	long pid;

	if (!stack)
		return pn_fail(reterr, errno, PN_STEP_MEMORY, "child stack");
	before = block_signals();
	pid = clone(start_child, stack + GUARD + CHILD_STACK, flags, child, ret_pidfd);
	if (pid < 0)
		pn_fail(reterr, errno, PN_STEP_CLONE, "new process");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(stack, GUARD + CHILD_STACK);
	return pid;
}

/* After PN_OP_FORK the first child has ended by itself; the program is the second. */
static void adopt_grandchild(const struct pn_report *report, int fd, int *pidfd, int *pid)
{
	waitid(P_PIDFD, (id_t)*pidfd, &(siginfo_t){ 0 }, WEXITED | __WALL);
	pn_close(pidfd);
	*pidfd = fd;
	*pid = report->value;
}

static int collect_reports(int sock, int *pidfd, int *pid, struct pn_trace *trace, struct pn_error *reterr)
{
	struct pn_report report;
	int ret, fd, failed = 0;

	while ((ret = pn_report_recv(sock, 0, &report, &fd)) > 0) {
		if (report.kind == PN_REPORT_PID) {
			adopt_grandchild(&report, TAKE_FD(fd), pidfd, pid);
		} else if (report.kind == PN_REPORT_ERROR) {
			*reterr = report.error;
			failed = -report.error.errnum;
		} else if (report.kind == PN_REPORT_TRACE && trace) {
			memcpy(trace->end, report.trace.end, sizeof(trace->end));
			trace->count = report.trace.count;
		}
		pn_close(&fd);
	}
	if (ret < 0)
		return pn_fail(reterr, -ret, PN_STEP_WAIT, "child's report");
	return failed;
}

static int spawn_loaded(const struct pn_plan *plan, int *ret_pidfd, int *ret_pid, struct pn_trace *trace,
			struct pn_error *reterr)
{
	_cleanup_close_ int ours = -1;
	_cleanup_close_ int theirs = -1;
	_cleanup_close_ int pidfd = -1;
	struct pn_trace marks = { 0 };
	struct pn_child child;
	uint32_t unshared = 0;
	int sock[2], ret, pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		return pn_fail(reterr, errno, PN_STEP_SOCKET, "report socket");
	ours = sock[0];
	theirs = sock[1];
	child = new_child(plan, theirs, trace ? &marks : NULL);
	child.shares_vm = true;
	child.shared_word = &unshared;
	pid = (int)clone_sharing(&child, &pidfd, reterr);
	if (pid < 0)
		return pid;
	pn_close(&theirs);
	ret = collect_reports(ours, &pidfd, &pid, trace, reterr);
	if (ret < 0) {
		waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){ 0 }, WEXITED | __WALL);
		return ret;
	}
	*ret_pid = pid;
	*ret_pidfd = TAKE_FD(pidfd);
	return 0;
}

PN_EXPORT int pn_spawn(const uint8_t *plan, uint32_t size, const int *fds, uint32_t nfds, int *ret_pidfd, int *ret_pid,
		       struct pn_trace *trace, struct pn_error *reterr)
{
	struct pn_plan loaded;
	int ret = pn_plan_load(&loaded, plan, size, fds, nfds, reterr);

	if (ret < 0)
		return ret;
	ret = check_in_process(&loaded, reterr);
	if (ret == 0)
		ret = spawn_loaded(&loaded, ret_pidfd, ret_pid, trace, reterr);
	pn_plan_free(&loaded);
	return ret;
}
