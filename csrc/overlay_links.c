/* An overlay of any number of layers on kernels without "lowerdir+" (before Linux 6.7).
 *
 * fsconfig(2) takes values below 256 bytes there, mount(2) a page of options. So mount(2) it is, with one short
 * relative name per layer: symbolic links in a tmpfs that exists only for this. mount(2) makes a visible mount; it is
 * made in a mount namespace of a thread's own, where every mount is private first, so that nothing appears anywhere
 * else. What is handed out is a detached copy; the namespace, the tmpfs and the visible mount end with the thread. */
#include "overlay.h"
#include "syscalls.h"
#include "thread.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define OPTIONS_MAX 4095 /* a page of the smallest size, with its NUL */
#define NAME_MAX_LINK 4
#define POINT "m"

struct job {
	const struct pn_overlay *overlay;
	int fd;
	struct pn_error *reterr;
	char cwd[PATH_MAX];
};

/* Layer i as two digits of base 32: 500 of them are 1,500 bytes. Capitals, so that none is "m", "u" or "w". */
static const char *link_name(uint32_t i, char name[NAME_MAX_LINK])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

	name[0] = digits[i / 32];
	name[1] = digits[i % 32];
	name[2] = '\0';
	return name;
}

/* A relative path is the caller's, of the directory that the caller was in. */
static int add_link(const struct job *job, const char *path, const char *name, struct pn_error *reterr)
{
	char absolute[PATH_MAX];

	if (*path != '/') {
		if (!*job->cwd)
			return pn_fail(reterr, ENOENT, PN_STEP_OVERLAY, path);
		if ((size_t)snprintf(absolute, sizeof(absolute), "%s/%s", job->cwd, path) >= sizeof(absolute))
			return pn_fail(reterr, ENAMETOOLONG, PN_STEP_OVERLAY, path);
		path = absolute;
	}
	return symlink(path, name) == 0 ? 0 : pn_fail(reterr, errno, PN_STEP_OVERLAY, path);
}

/* The links, in the working directory, and the options that name them. */
static int write_options(const struct job *job, char *options, struct pn_error *reterr)
{
	const struct pn_overlay *overlay = job->overlay;
	size_t used = (size_t)sprintf(options, "lowerdir=");
	int ret = 0;

	for (uint32_t i = 0; i < overlay->nlowers && ret == 0; i++) {
		char name[NAME_MAX_LINK];

		ret = add_link(job, overlay->lowers[i], link_name(i, name), reterr);
		used += (size_t)snprintf(options + used, OPTIONS_MAX - used, "%s%s", i ? ":" : "", name);
	}
	if (ret < 0 || !*overlay->upper)
		return ret;
	ret = add_link(job, overlay->upper, "u", reterr);
	if (ret == 0)
		ret = add_link(job, overlay->work, "w", reterr);
	snprintf(options + used, OPTIONS_MAX - used, ",upperdir=u,workdir=w,index=off");
	return ret;
}

/* An empty tmpfs over "/" of this namespace, as the working directory. What is under it stays reachable: a process's
 * root is the mount it had. */
static int enter_scratch(struct pn_error *reterr)
{
	_cleanup_close_ int fs = -1;
	_cleanup_close_ int fd = -1;

	if (unshare(CLONE_NEWNS) < 0)
		return pn_fail(reterr, errno, PN_STEP_UNSHARE, "mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY,
			       "/ must be a mount point for more layers than an option string holds (chroot?)");
	fs = (int)syscall(SYS_fsopen, "tmpfs", PN_FSOPEN_CLOEXEC);
	if (fs < 0 || syscall(SYS_fsconfig, fs, PN_FSCONFIG_CREATE, NULL, NULL, 0) < 0)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY, "tmpfs");
	fd = (int)syscall(SYS_fsmount, fs, PN_FSMOUNT_CLOEXEC, 0);
	if (fd < 0 || sys_move_mount(fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(fd) < 0)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY, "tmpfs");
	return 0;
}

static int mount_and_copy(struct job *job, struct pn_error *reterr)
{
	struct pn_mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	char options[OPTIONS_MAX];
	_cleanup_close_ int fd = -1;
	int ret = write_options(job, options, reterr);

	if (ret < 0)
		return ret;
	if (mkdir(POINT, 0700) < 0 || mount("overlay", POINT, "overlay", 0, options) < 0)
		return pn_fail(reterr, errno, PN_STEP_OVERLAY, NULL);
	fd = sys_open_tree(AT_FDCWD, POINT, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN_TREE, "overlay");
	if (job->overlay->flags & PN_OVERLAY_READONLY && sys_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0)
		return pn_fail(reterr, errno, PN_STEP_MOUNT_ATTR, "overlay");
	job->fd = TAKE_FD(fd);
	return 0;
}

static void *overlay_thread(void *data)
{
	struct job *job = data;

	if (enter_scratch(job->reterr) == 0)
		mount_and_copy(job, job->reterr);
	return NULL;
}

int pn_overlay_by_links(const struct pn_overlay *overlay, int *ret_fd, struct pn_error *reterr)
{
	struct job job = { .overlay = overlay, .fd = -1, .reterr = reterr };
	int ret;

	if (!getcwd(job.cwd, sizeof(job.cwd)))
		job.cwd[0] = '\0';
	ret = pn_thread_run(overlay_thread, &job, reterr);
	if (ret < 0)
		return ret;
	if (job.fd < 0)
		return -reterr->errnum;
	*ret_fd = job.fd;
	return 0;
}
