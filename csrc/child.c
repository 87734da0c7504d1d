/* Between clone and exec: the interpreter of a plan.
 *
 * Owns what runs in the child. Only async-signal-safe calls (a test compares this unit's undefined symbols with an
 * allow-list): the address space may be the spawner's (CLONE_VM), locks of other threads may be held for ever. All
 * memory was prepared by the spawner; nothing here allocates. docs/child-process.md tells the rules.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define PROC_SUPER_MAGIC 0x9fa0

int pn_child_fail(struct pn_child *child, int errnum, const char *detail)
{
	struct pn_error *error = &child->error;
	size_t i = 0;

	error->errnum = errnum;
	for (; detail && detail[i] && i < sizeof(error->detail) - 1; i++)
		error->detail[i] = detail[i];
	error->detail[i] = '\0';
	return -1;
}

/* ---- reports ---- */

void pn_send_report(int sock, const struct pn_report *report, size_t size, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)report, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	while (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

__attribute__((noreturn)) static void die(struct pn_child *child, const struct pn_op *op)
{
	struct pn_report report = { .kind = PN_REPORT_ERROR, .error = child->error };

	report.error.step = op->code;
	report.error.index = child->index;
	pn_send_report(child->report, &report, offsetof(struct pn_report, error) + sizeof(report.error), -1);
	_exit(127);
}

/* ---- process operations ---- */

static int op_nothing(struct pn_child *child, const struct pn_op *op)
{
	(void)child;
	(void)op;
	return 0; /* PN_OP_CLONE was the spawner's */
}

static int op_pdeathsig(struct pn_child *child, const struct pn_op *op)
{
	if (prctl(PR_SET_PDEATHSIG, (unsigned long)op->arg[0], 0, 0, 0) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

/* arg: uid, gid that must own the pipes, so that a program of that user can reopen /dev/stdout. */
static int give_stdio_away(const struct pn_op *op)
{
	struct stat st;

	for (int i = 0; i < 3 && (op->arg[0] || op->arg[1]); i++)
		if (fstat(i, &st) == 0 && S_ISFIFO(st.st_mode))
			(void)!fchown(i, (uid_t)op->arg[0], (gid_t)op->arg[1]);
	return 0;
}

static int op_stdio(struct pn_child *child, const struct pn_op *op)
{
	int fds[3];

	for (int i = 0; i < 3; i++) {
		fds[i] = child->plan->fds[i];
		/* out of the way of the other two targets first */
		if (fds[i] < 3 && fds[i] != i)
			fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0)
			return pn_child_fail(child, errno, "stdio");
	}
	for (int i = 0; i < 3; i++) {
		int ret = fds[i] == i ? fcntl(i, F_SETFD, 0) : dup2(fds[i], i);

		if (ret < 0)
			return pn_child_fail(child, errno, "stdio");
	}
	return give_stdio_away(op);
}

static int op_setsid(struct pn_child *child, const struct pn_op *op)
{
	(void)op;
	if (setsid() < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

static int op_setns(struct pn_child *child, const struct pn_op *op)
{
	if (setns(child->plan->fds[op->arg[0]], (int)op->arg[1]) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

static int op_unshare(struct pn_child *child, const struct pn_op *op)
{
	if (unshare((int)op->arg[0]) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

/* A fresh copy of the interpreter goes on from the next operation in the child. */
static int continue_in_child(void *data)
{
	pn_child_run(data);
}

static long fork_copying(uint64_t flags, int cgroup, int *ret_pidfd)
{
	struct pn_clone_args args = {
		.flags = flags | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
	};

	return sys_clone3(&args);
}

/* setns of a pid namespace takes effect in children only. The spawner becomes the parent (CLONE_PARENT). */
static int op_fork(struct pn_child *child, const struct pn_op *op)
{
	struct pn_report report = { .kind = PN_REPORT_PID };
	uint64_t flags = CLONE_PARENT | CLONE_PIDFD;
	int pidfd = -1;
	long pid;

	if (child->shares_vm) {
		char stack[32768] __attribute__((aligned(16)));
		struct pn_child next = *child;

		next.offset += pn_op_span(op);
		next.index++;
		pid = clone(continue_in_child, stack + sizeof(stack), (int)flags | CLONE_VM | CLONE_VFORK, &next,
			    &pidfd);
	} else {
		int cgroup = op->arg[0] >= 0 ? child->plan->fds[op->arg[0]] : -1;

		pid = fork_copying(flags, cgroup, &pidfd);
	}
	if (pid < 0)
		return pn_child_fail(child, errno, NULL);
	if (pid == 0)
		return 0;
	report.value = (int32_t)pid;
	pn_send_report(child->report, &report, offsetof(struct pn_report, error), pidfd);
	_exit(0);
}

static int op_cgroup(struct pn_child *child, const struct pn_op *op)
{
	if (write(child->plan->fds[op->arg[0]], "0", 1) != 1)
		return pn_child_fail(child, errno, "cgroup.procs");
	return 0;
}

static int op_hostname(struct pn_child *child, const struct pn_op *op)
{
	if (sethostname(pn_op_payload(op), strlen(pn_op_payload(op))) < 0)
		return pn_child_fail(child, errno, pn_op_payload(op));
	return 0;
}

static int op_domainname(struct pn_child *child, const struct pn_op *op)
{
	if (setdomainname(pn_op_payload(op), strlen(pn_op_payload(op))) < 0)
		return pn_child_fail(child, errno, pn_op_payload(op));
	return 0;
}

/* A hostile image may have put a file of its own where /proc should be: write only to a real procfs. */
static int write_proc(struct pn_child *child, const char *path, const char *value)
{
	struct statfs fs;
	size_t size = strlen(value);
	int fd = sys_openat2(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, RESOLVE_NO_SYMLINKS);

	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return pn_child_fail(child, errno, path);
	if (fs.f_type != PROC_SUPER_MAGIC)
		return pn_child_fail(child, EXDEV, path);
	if (write(fd, value, size) != (ssize_t)size)
		return pn_child_fail(child, errno, path);
	close(fd);
	return 0;
}

static int op_sysctl(struct pn_child *child, const struct pn_op *op)
{
	const char *path = pn_op_payload(op);

	return write_proc(child, path, pn_next_string(path));
}

static int op_oom_score(struct pn_child *child, const struct pn_op *op)
{
	/* /proc/self is a symlink: pid 1 of its own namespace is this process wherever the plan uses it */
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	size_t size = strlen(pn_op_payload(op));

	if (fd < 0 || write(fd, pn_op_payload(op), size) != (ssize_t)size)
		return pn_child_fail(child, errno, pn_op_payload(op));
	close(fd);
	return 0;
}

static int op_umask(struct pn_child *child, const struct pn_op *op)
{
	(void)child;
	umask((mode_t)op->arg[0]);
	return 0;
}

static int op_chroot(struct pn_child *child, const struct pn_op *op)
{
	if (chroot(pn_op_payload(op)) < 0 || chdir("/") < 0)
		return pn_child_fail(child, errno, pn_op_payload(op));
	return 0;
}

/* The kernel answers "(unreachable)…" for a directory outside the root, e.g. through a leaked descriptor. */
static int op_cwd(struct pn_child *child, const struct pn_op *op)
{
	char path[4096];

	if (chdir(pn_op_payload(op)) < 0)
		return pn_child_fail(child, errno, pn_op_payload(op));
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0 || path[0] != '/')
		return pn_child_fail(child, EXDEV, pn_op_payload(op));
	return 0;
}

/* Everything is prepared; what the starter does meanwhile (the container's network) must be done before exec. */
static int op_wait(struct pn_child *child, const struct pn_op *op)
{
	char go;
	ssize_t n;

	do
		n = read(child->plan->fds[op->arg[0]], &go, 1);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return pn_child_fail(child, errno, "start");
	return n == 1 ? 0 : pn_child_fail(child, ECANCELED, "start");
}

/* ---- exec ---- */

static void report_trace(struct pn_child *child)
{
	struct pn_report report = { .kind = PN_REPORT_TRACE };

	if (!child->trace)
		return;
	memcpy(&report.trace, child->trace, sizeof(report.trace));
	pn_send_report(child->report, &report, sizeof(report), -1);
}

/* Tries the candidates in PATH order, as execvp: a missing one is passed over, a forbidden one remembered. */
static int op_exec(struct pn_child *child, const struct pn_op *op)
{
	const struct pn_plan *plan = child->plan;
	sigset_t none;
	int errnum = ENOENT;

	(void)op;
	report_trace(child);
	if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return pn_child_fail(child, errno, "close_range");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (child->shared_word)
		__atomic_store_n(child->shared_word, PN_CHILD_EXECUTES, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < plan->ncandidates; i++) {
		execve(plan->candidates[i], plan->argv, plan->envp);
		if (errno == EACCES || (errno != ENOENT && errno != ENOTDIR))
			errnum = errno;
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			break;
		if (errno == ENOTDIR && plan->ncandidates == 1)
			errnum = errno;
	}
	if (child->shared_word)
		__atomic_store_n(child->shared_word, PN_CHILD_PREPARES, __ATOMIC_RELEASE);
	return pn_child_fail(child, errnum, plan->argv[0]);
}

/* ---- the interpreter ---- */

static const pn_child_op operations[] = {
	[PN_OP_CLONE] = op_nothing,
	[PN_OP_PDEATHSIG] = op_pdeathsig,
	[PN_OP_STDIO] = op_stdio,
	[PN_OP_SETSID] = op_setsid,
	[PN_OP_TTY] = pn_op_tty,
	[PN_OP_SETNS] = op_setns,
	[PN_OP_UNSHARE] = op_unshare,
	[PN_OP_FORK] = op_fork,
	[PN_OP_CGROUP] = op_cgroup,
	[PN_OP_HOSTNAME] = op_hostname,
	[PN_OP_DOMAINNAME] = op_domainname,
	[PN_OP_PRIVATE] = pn_op_private,
	[PN_OP_ROOT] = pn_op_root,
	[PN_OP_CHROOT] = op_chroot,
	[PN_OP_MOUNT] = pn_op_mount,
	[PN_OP_ATTACH] = pn_op_attach,
	[PN_OP_MKDIR] = pn_op_mkdir,
	[PN_OP_MKNOD] = pn_op_mknod,
	[PN_OP_SYMLINK] = pn_op_symlink,
	[PN_OP_MASK] = pn_op_mask,
	[PN_OP_READONLY] = pn_op_readonly,
	[PN_OP_ROOT_ATTR] = pn_op_root_attr,
	[PN_OP_SYSCTL] = op_sysctl,
	[PN_OP_OOM_SCORE] = op_oom_score,
	[PN_OP_RLIMIT] = pn_op_rlimit,
	[PN_OP_UMASK] = op_umask,
	[PN_OP_NO_NEW_PRIVS] = pn_op_no_new_privs,
	[PN_OP_SECCOMP] = pn_op_seccomp,
	[PN_OP_BOUNDING] = pn_op_bounding,
	[PN_OP_GROUPS] = pn_op_groups,
	[PN_OP_USER] = pn_op_user,
	[PN_OP_CAPSET] = pn_op_capset,
	[PN_OP_CWD] = op_cwd,
	[PN_OP_WAIT] = op_wait,
	[PN_OP_EXEC] = op_exec,
};

/* The kernel's own sigaction: the library's refuses the two signals it keeps for itself. All zero is SIG_DFL. */
static void reset_signals(void)
{
	uint64_t action[8] = { 0 };

	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, action, NULL, 8);
}

static void mark_time(struct pn_child *child)
{
	struct timespec now;

	if (!child->trace || child->trace->count >= PN_TRACE_MAX)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	child->trace->end[child->trace->count++] = now.tv_sec * 1000000000LL + now.tv_nsec;
}

void pn_child_run(struct pn_child *child)
{
	if (child->offset == 0) {
		reset_signals();
		umask(0); /* device nodes and mount points get exactly the modes of the plan */
	}
	while (child->offset < child->plan->size) {
		const struct pn_op *op = pn_op_at(child->plan, child->offset);

		if (operations[op->code](child, op) < 0)
			die(child, op);
		mark_time(child);
		child->offset += pn_op_span(op);
		child->index++;
	}
	_exit(127); /* a checked plan ends in exec */
}
