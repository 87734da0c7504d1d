/* Network namespaces: made without the caller leaving its own, pinned by a bind mount, opened, entered. */
#include "netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_STACK (32 * 1024)
#define LOOPBACK_INDEX 1 /* the first device of every network namespace */
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

	if (fd < 0) /* a kernel without IPv6 has nothing to turn off */
		return errno == ENOENT ? 0 : pn_fail(reterr, errno, PN_STEP_SYSCTL, IPV6_OFF);
	return write(fd, "1", 1) == 1 ? 0 : pn_fail(reterr, errno, PN_STEP_SYSCTL, IPV6_OFF);
}

/* The child: system calls only, while the caller's thread is suspended. */
static int inside_netns(void *data)
{
	struct netns_request *request = data;

	request->fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (request->fd < 0)
		return pn_fail(&request->error, errno, PN_STEP_OPEN, "/proc/self/ns/net");
	if (pn_nl_open(&request->nl, &request->error) == 0 && request->flags & PN_NETNS_IPV6_OFF)
		disable_ipv6(&request->error);
	return 0;
}

/* No exit signal: the caller's SIGCHLD handling, and its wait for any child, never see this one. */
static int run_in_new_netns(struct netns_request *request, struct pn_error *reterr)
{
	char stack[CHILD_STACK] __attribute__((aligned(16)));
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone(inside_netns, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWNET, request);
	if (pid < 0)
		pn_fail(reterr, errno, PN_STEP_CLONE, "network namespace");
	else
		while (waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
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

PN_EXPORT int pn_ns_pin(int fd, const char *path, struct pn_error *reterr)
{
	char source[40];
	int saved;
	int file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);

	if (file < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN, path);
	close(file);
	/* thread-self: /proc/self/fd is empty once the main thread has ended */
	snprintf(source, sizeof(source), "/proc/thread-self/fd/%d", fd);
	if (mount(source, path, NULL, MS_BIND, NULL) == 0)
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
