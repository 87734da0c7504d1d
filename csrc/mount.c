/* Detached mounts: copied and attached, tmpfs, and paths resolved below a root. Overlays are overlay.c's.
 *
 * Nothing made here is visible in any mount namespace until somebody attaches it; it goes away with its last
 * descriptor. Knows nothing of images or containers.
 */
#include "pynetns.h"
#include "syscalls.h"

#include <errno.h>
#include <sys/mount.h>

#define ATIME_BITS 0x70 /* MOUNT_ATTR__ATIME: one setting of three bits, replaced as a whole */
#define RESOLVE_TRIES 16

PN_EXPORT int pn_tree_clone(int dirfd, const char *path, int recursive, uint64_t attr_set, uint32_t propagation,
			    int *ret_fd, struct pn_error *reterr)
{
	unsigned int how = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
	_cleanup_close_ int fd = sys_open_tree(dirfd, path, how | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	struct pn_mount_attr attr = {
		.attr_set = attr_set,
		.attr_clr = attr_set & ATIME_BITS ? ATIME_BITS : 0,
		.propagation = propagation,
	};

	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_OPEN_TREE, path);
	if ((attr_set || propagation) && sys_mount_setattr(fd, "", how, &attr) < 0)
		return pn_fail(reterr, errno, PN_STEP_MOUNT_ATTR, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

PN_EXPORT int pn_mount_attach(int fd, const char *path, struct pn_error *reterr)
{
	if (sys_move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return pn_fail(reterr, errno, PN_STEP_MOUNT, path);
	return 0;
}

/* Below a shared mount a new one is shared as well: private only afterwards, so that nothing mounted inside it
 * propagates anywhere. */
PN_EXPORT int pn_tmpfs_mount(const char *path, const char *options, struct pn_error *reterr)
{
	int ret;

	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
		return pn_fail(reterr, errno, PN_STEP_MOUNT, path);
	if (mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0) {
		ret = pn_fail(reterr, errno, PN_STEP_MOUNT, path);
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
		return ret;
	}
	return 0;
}

PN_EXPORT int pn_umount(const char *path, struct pn_error *reterr)
{
	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT && errno != ENOTDIR)
		return pn_fail(reterr, errno, PN_STEP_UMOUNT, path);
	return 0;
}

/* EAGAIN: something was renamed or mounted meanwhile, so that the kernel could not be sure of a "..".
 * openat2(2). */
PN_EXPORT int pn_open_in_root(int root, const char *path, uint64_t flags, int *ret_fd, struct pn_error *reterr)
{
	int fd = -1;

	for (int i = 0; i < RESOLVE_TRIES; i++) {
		fd = sys_openat2(root, path, flags | O_CLOEXEC, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_RESOLVE, path);
	*ret_fd = fd;
	return 0;
}
