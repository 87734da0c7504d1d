/* Network namespaces: made without the caller leaving its own, pinned by a bind mount, opened, entered. */
#include "netlink.h"
#include "syscalls.h"
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_STACK (32 * 1024) /* some 8 KiB are used */
#define GUARD (64 * 1024)       /* a multiple of every page size */
#define LOOPBACK_INDEX 1        /* the first device of every network namespace */
#define NET_SYSCTLS "/proc/sys/net/core"
#define IPV6_OFF "/proc/sys/net/ipv6/conf/all/disable_ipv6"

/* Shared with the child, which lives in the caller's memory and descriptor table. */
struct netns_request {
	uint32_t flags;
	int fd;
	int nl;
	struct pn_error error;
};

static int disable_ipv6(struct pn_error *reterr)
{
	_cleanup_close_ int fd = open(IPV6_OFF, O_WRONLY | O_CLOEXEC);

	/* A kernel without IPv6 has nothing to turn off; without /proc it would stay on unnoticed. */
	if (fd < 0 && errno == ENOENT && access(NET_SYSCTLS, F_OK) == 0)
		return 0;
	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_SYSCTL, IPV6_OFF);
	return write(fd, "1", 1) == 1 ? 0 : pn_fail(reterr, errno, PN_STEP_SYSCTL, IPV6_OFF);
}

/* The namespace of a socket in it, which needs no /proc that shows this thread (Linux 4.9, CAP_NET_ADMIN). */
static int own_netns(int nl)
{
	int fd = ioctl(nl, SIOCGSKNS);

	return fd >= 0 ? fd : open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

/* In the new namespace: system calls only, the child that runs this may share the memory of a suspended thread. */
static int inside_netns(void *data)
{
	struct netns_request *request = data;

	if (pn_nl_open(&request->nl, &request->error) < 0)
		return -1;
	request->fd = own_netns(request->nl);
	if (request->fd < 0)
		return pn_fail(&request->error, errno, PN_STEP_OPEN, "/proc/thread-self/ns/net");
	if (request->flags & PN_NETNS_IPV6_OFF)
		disable_ipv6(&request->error);
	return 0;
}

/* A stack whose overflow is a fault of the child's, not damage to the caller's memory. */
static char *guarded_stack(void)
{
	char *base = mmap(NULL, GUARD + CHILD_STACK, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return NULL;
	mprotect(base, GUARD, PROT_NONE);
	return base + GUARD;
}

/* No exit signal: the caller's SIGCHLD handling, and its wait for any child, never see this one. */
static int run_in_new_netns(struct netns_request *request, struct pn_error *reterr)
{
	char *stack = guarded_stack();
	sigset_t all, before;
	pid_t pid;

	if (!stack)
		return pn_fail(reterr, errno, PN_STEP_MEMORY, "stack");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone(inside_netns, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWNET, request);
	if (pid < 0)
		pn_fail(reterr, errno, PN_STEP_CLONE, "network namespace");
	else
		while (waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	munmap(stack - GUARD, GUARD + CHILD_STACK);
	if (pid < 0)
		return -reterr->errnum;
	if (request->error.errnum) {
		*reterr = request->error;
		return -reterr->errnum;
	}
	return 0;
}

static int loopback_up(int nl, struct pn_error *reterr)
{
	const struct ifinfomsg link = { .ifi_index = LOOPBACK_INDEX, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct pn_nl_batch batch;

	pn_nl_init(&batch, "lo");
	pn_nl_begin(&batch, PN_STEP_LINK, RTM_NEWLINK, 0, &link, sizeof(link));
	return pn_nl_transact(nl, &batch, reterr);
}

PN_EXPORT int pn_netns_create(uint32_t flags, int *ret_fd, int *ret_nl, struct pn_error *reterr)
{
	struct netns_request request = { .flags = flags, .fd = -1, .nl = -1 };
	int ret = run_in_new_netns(&request, reterr);
	_cleanup_close_ int fd = request.fd;
	_cleanup_close_ int nl = request.nl;

	if (ret == 0 && flags & PN_NETNS_LO_UP)
		ret = loopback_up(nl, reterr);
	if (ret < 0)
		return ret;
	*ret_fd = TAKE_FD(fd);
	if (ret_nl)
		*ret_nl = TAKE_FD(nl);
	return 0;
}

/* ---- in the background ---- */

struct pn_netns_job {
	struct pn_netns_job *next;
	pthread_t thread;
	bool done; /* whatever descriptors it gets are there */
	bool lost; /* in a forked child, where its thread is not */
	struct netns_request request;
	int64_t times[2];
};

/* All that are not finished. A fork waits until their descriptors are there, for the child to close: it would keep a
 * namespace, with its address, for as long as it lives. pthread_atfork(3) */
static pthread_mutex_t jobs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_done = PTHREAD_COND_INITIALIZER;
static struct pn_netns_job *jobs;

static bool all_done(void)
{
	for (struct pn_netns_job *job = jobs; job; job = job->next)
		if (!job->done)
			return false;
	return true;
}

/* From the beginning after each wait: a job may be finished and freed meanwhile. */
static void before_fork(void)
{
	pthread_mutex_lock(&jobs_lock);
	while (!all_done())
		pthread_cond_wait(&job_done, &jobs_lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&jobs_lock);
}

static void after_fork_in_child(void)
{
	for (struct pn_netns_job *job = jobs; job; job = job->next) {
		pn_close(&job->request.fd);
		pn_close(&job->request.nl);
		job->lost = true;
	}
	pthread_mutex_unlock(&jobs_lock);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static int64_t monotonic_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* A thread with the sole purpose of entering a new namespace: it ends there, nobody ever uses it again. */
static void *netns_thread(void *data)
{
	struct pn_netns_job *job = data;
	struct netns_request *request = &job->request;

	job->times[0] = monotonic_now();
	if (unshare(CLONE_NEWNET) < 0) {
		pn_fail(&request->error, errno, PN_STEP_UNSHARE, "network namespace");
	} else {
		inside_netns(request);
		if (!request->error.errnum && request->flags & PN_NETNS_LO_UP)
			loopback_up(request->nl, &request->error);
	}
	job->times[1] = monotonic_now();
	pthread_mutex_lock(&jobs_lock);
	job->done = true;
	pthread_cond_broadcast(&job_done);
	pthread_mutex_unlock(&jobs_lock);
	return NULL;
}

PN_EXPORT int pn_netns_begin(uint32_t flags, struct pn_netns_job **ret_job, struct pn_error *reterr)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct pn_netns_job *job = calloc(1, sizeof(*job));
	int errnum;

	pthread_once(&once, watch_forks);
	if (!job)
		return pn_fail(reterr, ENOMEM, PN_STEP_MEMORY, "network namespace");
	job->request = (struct netns_request){ .flags = flags, .fd = -1, .nl = -1 };
	pthread_mutex_lock(&jobs_lock);
	errnum = pn_thread_start(&job->thread, netns_thread, job, true);
	if (!errnum) {
		job->next = jobs;
		jobs = job;
	}
	pthread_mutex_unlock(&jobs_lock);
	if (errnum) {
		free(job);
		return pn_fail(reterr, errnum, PN_STEP_CLONE, "thread");
	}
	*ret_job = job;
	return 0;
}

PN_EXPORT int pn_netns_finish(struct pn_netns_job *job, int *ret_fd, int *ret_nl, int64_t *ret_times,
			      struct pn_error *reterr)
{
	struct pn_error error;

	if (job->lost)
		pn_fail(&job->request.error, ECANCELED, PN_STEP_UNSHARE, "forked");
	else
		pthread_join(job->thread, NULL);
	error = job->request.error;
	if (ret_times)
		memcpy(ret_times, job->times, sizeof(job->times));
	pthread_mutex_lock(&jobs_lock); /* a fork finds them here or there */
	for (struct pn_netns_job **at = &jobs; *at; at = &(*at)->next)
		if (*at == job) {
			*at = job->next;
			break;
		}
	if (error.errnum) {
		pn_close(&job->request.fd);
		pn_close(&job->request.nl);
		*reterr = error;
	}
	*ret_fd = job->request.fd;
	*ret_nl = job->request.nl;
	pthread_mutex_unlock(&jobs_lock);
	free(job);
	return -error.errnum;
}

/* ---- files ---- */

PN_EXPORT int pn_ns_pin(int fd, const char *path, struct pn_error *reterr)
{
	_cleanup_close_ int tree = -1;
	int saved;
	int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);

	if (file < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN, path);
	close(file);
	tree = sys_open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree >= 0 && sys_move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) == 0)
		return 0;
	saved = errno;
	unlink(path);
	return pn_fail(reterr, saved, PN_STEP_MOUNT, path);
}

PN_EXPORT int pn_ns_unpin(const char *path, struct pn_error *reterr)
{
	/* EINVAL: a file that nothing is mounted on, left by a pin that never was finished */
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != ENOENT && errno != EINVAL)
		return pn_fail(reterr, errno, PN_STEP_UMOUNT, path);
	if (unlink(path) < 0 && errno != ENOENT)
		return pn_fail(reterr, errno, PN_STEP_UMOUNT, path);
	return 0;
}

PN_EXPORT int pn_ns_open(const char *path, uint32_t nstype, int *ret_fd, struct pn_error *reterr)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct statfs fs;
	int type;

	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN, path);
	if (fstatfs(fd, &fs) < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN, path);
	if (fs.f_type != NSFS_MAGIC)
		return pn_fail(reterr, EINVAL, PN_STEP_OPEN, path);
	type = ioctl(fd, NS_GET_NSTYPE);
	if (type < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN, path);
	if (nstype && (uint32_t)type != nstype)
		return pn_fail(reterr, EINVAL, PN_STEP_OPEN, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

PN_EXPORT int pn_ns_enter(int fd, uint32_t nstype, struct pn_error *reterr)
{
	return setns(fd, (int)nstype) == 0 ? 0 : pn_fail(reterr, errno, PN_STEP_SETNS, NULL);
}
