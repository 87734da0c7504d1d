/* Between clone and exec: the interpreter of a plan.
 *
 * Owns what runs in the child. Only async-signal-safe calls (a test compares this unit's undefined symbols with an
 * allow-list): the address space may be the spawner's (CLONE_VM), locks of other threads may be held for ever. All
 * memory was prepared by the spawner; nothing here allocates. docs/child-process.md tells the rules.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

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

int pn_send_fd(int sock, const void *data, size_t size, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

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
	do
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

void pn_send_report(int sock, const struct pn_report *report, size_t size, int fd)
{
	(void)pn_send_fd(sock, report, size, fd);
}

__attribute__((noreturn)) static void die(struct pn_child *child, const struct pn_op *op)
{
	struct pn_report report = { .kind = PN_REPORT_ERROR, .error = child->error };

	report.error.step = op->code;
	report.error.index = child->index;
	pn_send_report(child->report, &report, offsetof(struct pn_report, error) + sizeof(report.error), -1);
	_exit(127);
}

/* ---- descriptors ---- */

static int close_between(unsigned int first, unsigned int last)
{
	return (int)syscall(SYS_close_range, first, last, 0U);
}

/* Closes all but `keep` (sorted); what it names twice, or is -1, does no harm. */
static int close_all_but(const int *keep, uint32_t nkeep)
{
	unsigned int first = 0;

	for (uint32_t i = 0; i < nkeep; i++) {
		if (keep[i] < (int)first)
			continue;
		if (keep[i] > (int)first && close_between(first, (unsigned int)keep[i] - 1) < 0)
			return -1;
		first = (unsigned int)keep[i] + 1;
	}
	return close_between(first, ~0U);
}

/* The first act: really close what is not the plan's. While execve, or anything else, resolves a path of the image,
 * /proc/self/fd must not lead anywhere. Where the table is still the spawner's, only its low end is copied. */
static int close_foreign(struct pn_child *child)
{
	static const struct pn_report unshared = { .kind = PN_REPORT_UNSHARED };

	if (child->shared_word && *child->shared_word == PN_CHILD_SHARES) {
		unsigned int above = (unsigned int)child->keep[child->nkeep - 1] + 1;

		if (syscall(SYS_close_range, above, ~0U, CLOSE_RANGE_UNSHARE) < 0)
			return pn_child_fail(child, errno, "unshare descriptors");
		__atomic_store_n(child->shared_word, PN_CHILD_PREPARES, __ATOMIC_RELEASE);
		syscall(SYS_futex, child->shared_word, FUTEX_WAKE, 1, NULL, NULL, 0);
		if (!child->shares_vm)
			pn_send_report(child->report, &unshared, offsetof(struct pn_report, error), -1);
	}
	if (close_all_but(child->keep, child->nkeep) < 0)
		return pn_child_fail(child, errno, "close descriptors");
	return 0;
}

/* From here on only stdio, the report and the descriptors of WAIT are open. */
static int seal(struct pn_child *child)
{
	const struct pn_plan *plan = child->plan;
	int keep[10] = { 0, 1, 2 };
	uint32_t nkeep = 3;

	if (child->sealed)
		return 0;
	nkeep = pn_keep(keep, nkeep, child->report);
	if (plan->go_fd >= 0)
		nkeep = pn_keep(keep, nkeep, plan->go_fd);
	if (plan->told_fd >= 0)
		nkeep = pn_keep(keep, nkeep, plan->told_fd);
	for (int i = 0; i < 3 && plan->late_stdio; i++)
		nkeep = pn_keep(keep, nkeep, plan->fds[i]);
	child->root_fd = child->mask_fd = child->null_fd = -1;
	if (close_all_but(keep, nkeep) < 0)
		return pn_child_fail(child, errno, "close descriptors");
	child->sealed = true;
	return 0;
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

/* args: uid, gid that must own the pipes, so that a program of that user can reopen /dev/stdout. */
static int give_stdio_away(const struct pn_op *op)
{
	struct stat st;

	for (int i = 0; i < 3 && (op->arg[0] || op->arg[1]); i++)
		if (fstat(i, &st) == 0 && S_ISFIFO(st.st_mode))
			(void)!fchown(i, (uid_t)op->arg[0], (gid_t)op->arg[1]);
	return 0;
}

/* The spawner's null device is an inode of the host: a program could change its owner. It gets the container's. */
static int replace_null(struct pn_child *child, int fd)
{
	struct stat st;
	int null;

	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return 0;
	null = pn_path_open_null(child, O_RDWR);
	if (null < 0 || dup2(null, fd) < 0)
		return pn_child_fail(child, null < 0 ? -null : errno, "/dev/null");
	close(null);
	return 0;
}

/* args: uid, gid of the program; 1 to take the null device from the root as it is now */
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
	for (int i = 0; i < 3; i++)
		if (fds[i] > 2)
			close(fds[i]);
	for (int i = 0; i < 3 && op->arg[2]; i++)
		if (replace_null(child, i) < 0)
			return -1;
	return give_stdio_away(op);
}

static int op_setsid(struct pn_child *child, const struct pn_op *op)
{
	if (setsid() < 0)
		return pn_child_fail(child, errno, NULL);
	if (op->arg[0] && ioctl(0, TIOCSCTTY, 0) < 0)
		return pn_child_fail(child, errno, "controlling terminal");
	return 0;
}

static int op_setns(struct pn_child *child, const struct pn_op *op)
{
	pn_path_forget_root(child);
	if (setns(child->plan->fds[op->arg[0]], (int)op->arg[1]) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

static int op_unshare(struct pn_child *child, const struct pn_op *op)
{
	pn_path_forget_root(child);
	if (unshare((int)op->arg[0]) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

/* A fresh copy of the interpreter goes on from the next operation in the child. */
static int continue_in_child(void *data)
{
	pn_child_run(data);
}

/* clone3 only where it is needed: filters answer it with ENOSYS. */
static long fork_copying(uint64_t flags, int cgroup, int *ret_pidfd)
{
	struct pn_clone_args args = {
		.flags = flags | CLONE_INTO_CGROUP,
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.cgroup = (uint64_t)cgroup,
	};

	if (cgroup >= 0)
		return sys_clone3(&args);
	return syscall(SYS_clone, flags, NULL, ret_pidfd, NULL, NULL);
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

/* A hostile image may have put something else where /proc should be: only a real procfs is written to. */
static int write_proc(struct pn_child *child, int proc, const char *path, const char *value, const char *what)
{
	size_t size = strlen(value);
	int fd = pn_path_open_proc(child, proc, path);

	if (fd < 0)
		return pn_child_fail(child, -fd, what);
	if (write(fd, value, size) != (ssize_t)size) {
		pn_child_fail(child, errno, what);
		close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

static int op_sysctl(struct pn_child *child, const struct pn_op *op)
{
	static const char top[] = "/proc/";
	const char *path = pn_op_payload(op);

	if (memcmp(path, top, sizeof(top) - 1) != 0)
		return pn_child_fail(child, EINVAL, path);
	return write_proc(child, -1, path + sizeof(top) - 1, pn_next_string(path), path);
}

static int op_oom_score(struct pn_child *child, const struct pn_op *op)
{
	int proc = op->arg[0] >= 0 ? child->plan->fds[op->arg[0]] : -1;

	return write_proc(child, proc, "self/oom_score_adj", pn_op_payload(op), pn_op_payload(op));
}

static int op_umask(struct pn_child *child, const struct pn_op *op)
{
	(void)child;
	umask((mode_t)op->arg[0]);
	return 0;
}

static int op_chroot(struct pn_child *child, const struct pn_op *op)
{
	pn_path_forget_root(child);
	if (chroot(pn_op_payload(op)) < 0 || chdir("/") < 0)
		return pn_child_fail(child, errno, pn_op_payload(op));
	return 0;
}

/* The kernel answers "(unreachable)…" for a directory outside the root, e.g. through a leaked descriptor. */
static int op_cwd(struct pn_child *child, const struct pn_op *op)
{
	char path[4096];
	int fd, ret;

	if (seal(child) < 0)
		return -1;
	fd = pn_path_open(child, pn_op_payload(op), O_PATH | O_DIRECTORY, PN_RESOLVE_INSIDE);
	if (fd < 0)
		return pn_child_fail(child, -fd, pn_op_payload(op));
	pn_path_forget_root(child);
	ret = fchdir(fd) < 0 ? pn_child_fail(child, errno, pn_op_payload(op)) : 0;
	close(fd);
	if (ret < 0)
		return ret;
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0 || path[0] != '/')
		return pn_child_fail(child, EXDEV, pn_op_payload(op));
	return 0;
}

/* Everything is prepared; what the starter does meanwhile (the container's network) must be done before exec. Who made
 * the plan for somebody else to start is told, by the one call that a filter has to allow anyway. */
static int op_wait(struct pn_child *child, const struct pn_op *op)
{
	static const struct pn_report prepared = { .kind = PN_REPORT_PREPARED };
	char go;
	ssize_t n;

	if (op->arg[1] >= 0) {
		pn_send_report(child->plan->fds[op->arg[1]], &prepared, offsetof(struct pn_report, error), -1);
		close(child->plan->fds[op->arg[1]]);
	}
	do
		n = read(child->plan->fds[op->arg[0]], &go, 1);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return pn_child_fail(child, errno, "start");
	close(child->plan->fds[op->arg[0]]);
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
	child->trace = NULL; /* once */
}

/* What has to be done before execve, while any call may still be made. arg: 1, the trace ends here as well. */
static int op_ready(struct pn_child *child, const struct pn_op *op)
{
	sigset_t none;

	if (seal(child) < 0)
		return -1;
	if (op->arg[0])
		report_trace(child);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	child->ready = true;
	return 0;
}

/* Tries the candidates in PATH order, as execvp: a missing one is passed over, a forbidden one remembered. */
static int op_exec(struct pn_child *child, const struct pn_op *op)
{
	static const struct pn_op last = { .code = PN_OP_READY };
	const struct pn_plan *plan = child->plan;
	int errnum = ENOENT;

	(void)op;
	if (!child->ready && op_ready(child, &last) < 0)
		return -1;
	report_trace(child);
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
		__atomic_store_n(child->shared_word, PN_CHILD_REFUSED | (uint32_t)errnum, __ATOMIC_RELEASE);
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
	[PN_OP_KEYRING] = pn_op_keyring,
	[PN_OP_CWD] = op_cwd,
	[PN_OP_WAIT] = op_wait,
	[PN_OP_READY] = op_ready,
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
		if (close_foreign(child) < 0)
			die(child, pn_op_at(child->plan, 0));
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
