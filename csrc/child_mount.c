/* Between clone and exec, continued: the mount operations of a plan.
 *
 * After PN_OP_ROOT every path is looked up inside the container's own root, so a hostile image can mislead no look-up
 * to the outside. What must be exactly where it is said (/proc, /sys, /dev) refuses symlinks on the way.
 * Same rules as child.c: async-signal-safe calls only.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define PATH_BYTES 4096

int pn_op_private(struct pn_child *child, const struct pn_op *op)
{
	(void)op;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return pn_child_fail(child, errno, "/");
	return 0;
}

/* The detached root goes on top of "/", becomes the root, and the old one falls off below it. */
int pn_op_root(struct pn_child *child, const struct pn_op *op)
{
	int fd = child->plan->fds[op->arg[0]];

	if (sys_move_mount(fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return pn_child_fail(child, errno, "attach root");
	if (fchdir(fd) < 0)
		return pn_child_fail(child, errno, "enter root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return pn_child_fail(child, errno, "pivot");
	/* the old root is now stacked on "."; without this it would stay reachable */
	if (umount2(".", MNT_DETACH) < 0)
		return pn_child_fail(child, errno, "drop old root");
	if (chdir("/") < 0)
		return pn_child_fail(child, errno, "/");
	return 0;
}

/* mkdir -p of everything before the last component (or all of it). Existing directories are fine. */
static int make_dirs(const char *path, int whole, mode_t mode)
{
	char prefix[PATH_BYTES];
	size_t size = strlen(path);

	if (size >= sizeof(prefix))
		return -ENAMETOOLONG;
	memcpy(prefix, path, size + 1);
	for (size_t i = 1; i <= size; i++) {
		if (prefix[i] != '/' && !(prefix[i] == '\0' && whole))
			continue;
		prefix[i] = '\0';
		if (mkdirat(AT_FDCWD, prefix, mode) < 0 && errno != EEXIST)
			return -errno;
		if (i < size)
			prefix[i] = '/';
	}
	return 0;
}

static int make_file(const char *path)
{
	int fd, ret = make_dirs(path, 0, 0755);

	if (ret < 0)
		return ret;
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* An O_PATH descriptor of a mount point inside the root; made when missing and asked for. */
static int open_destination(struct pn_child *child, const char *path, int kind, int64_t mode)
{
	uint64_t resolve = RESOLVE_NO_MAGICLINKS | (mode & PN_DEST_NO_SYMLINK ? RESOLVE_NO_SYMLINKS : 0);
	int fd = sys_openat2(AT_FDCWD, path, O_PATH | O_CLOEXEC, resolve);
	int ret;

	if (fd < 0 && errno == ENOENT && (mode & PN_DEST_CREATE)) {
		ret = kind == S_IFREG ? make_file(path) : make_dirs(path, 1, 0755);
		if (ret < 0)
			return pn_child_fail(child, -ret, path);
		fd = sys_openat2(AT_FDCWD, path, O_PATH | O_CLOEXEC, resolve);
	}
	if (fd < 0)
		return pn_child_fail(child, errno, path);
	return fd;
}

int pn_op_mount(struct pn_child *child, const struct pn_op *op)
{
	const char *type = pn_op_payload(op);
	const char *source = pn_next_string(type);
	const char *destination = pn_next_string(source);
	const char *data = pn_next_string(destination);
	int fd = open_destination(child, destination, S_IFDIR, op->arg[1]);

	if (fd < 0)
		return -1;
	if (fchdir(fd) < 0)
		return pn_child_fail(child, errno, destination);
	close(fd);
	if (mount(source, ".", type, (unsigned long)op->arg[0], *data ? data : NULL) < 0)
		return pn_child_fail(child, errno, destination);
	if (chdir("/") < 0)
		return pn_child_fail(child, errno, "/");
	return 0;
}

/* args: fd index, S_IFDIR or S_IFREG, dest mode */
int pn_op_attach(struct pn_child *child, const struct pn_op *op)
{
	const char *destination = pn_op_payload(op);
	int mount_fd = child->plan->fds[op->arg[0]];
	int fd = open_destination(child, destination, (int)op->arg[1], op->arg[2]);
	int ret;

	if (fd < 0)
		return -1;
	ret = sys_move_mount(mount_fd, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	if (ret < 0)
		pn_child_fail(child, errno, destination);
	close(fd);
	return ret;
}

int pn_op_mkdir(struct pn_child *child, const struct pn_op *op)
{
	int ret = make_dirs(pn_op_payload(op), 1, (mode_t)op->arg[0]);

	if (ret < 0)
		return pn_child_fail(child, -ret, pn_op_payload(op));
	return 0;
}

int pn_op_mknod(struct pn_child *child, const struct pn_op *op)
{
	const char *path = pn_op_payload(op);
	int ret = make_dirs(path, 0, 0755);

	if (ret < 0)
		return pn_child_fail(child, -ret, path);
	if (mknodat(AT_FDCWD, path, (mode_t)op->arg[0], (dev_t)op->arg[1]) < 0)
		return pn_child_fail(child, errno, path);
	if ((op->arg[2] || op->arg[3]) &&
	    fchownat(AT_FDCWD, path, (uid_t)op->arg[2], (gid_t)op->arg[3], AT_SYMLINK_NOFOLLOW) < 0)
		return pn_child_fail(child, errno, path);
	return 0;
}

int pn_op_symlink(struct pn_child *child, const struct pn_op *op)
{
	const char *target = pn_op_payload(op);
	const char *path = pn_next_string(target);

	if (symlinkat(target, AT_FDCWD, path) < 0 && errno != EEXIST)
		return pn_child_fail(child, errno, path);
	return 0;
}

/* ---- masked and read-only paths ---- */

static int mask_file(struct pn_child *child, const char *path)
{
	if (mount("/dev/null", path, NULL, MS_BIND, NULL) < 0)
		return pn_child_fail(child, errno, path);
	return 0;
}

/* The first masked directory gets a tmpfs; the others are copies of that mount (a super block costs 20 us). */
static int mask_directory(struct pn_child *child, const char *path)
{
	int ret, fd;

	if (child->mask_fd < 0) {
		if (mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k") < 0)
			return pn_child_fail(child, errno, path);
		child->mask_fd = open(path, O_PATH | O_CLOEXEC | O_DIRECTORY);
		return child->mask_fd < 0 ? pn_child_fail(child, errno, path) : 0;
	}
	fd = sys_open_tree(child->mask_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (fd < 0)
		return pn_child_fail(child, errno, path);
	ret = sys_move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
	if (ret < 0)
		pn_child_fail(child, errno, path);
	close(fd);
	return ret;
}

int pn_op_mask(struct pn_child *child, const struct pn_op *op)
{
	const char *path = pn_op_payload(op);
	struct stat st;

	if (fstatat(AT_FDCWD, path, &st, 0) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : pn_child_fail(child, errno, path);
	return S_ISDIR(st.st_mode) ? mask_directory(child, path) : mask_file(child, path);
}

int pn_op_readonly(struct pn_child *child, const struct pn_op *op)
{
	const char *path = pn_op_payload(op);
	struct pn_mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	int ret, fd = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : pn_child_fail(child, errno, path);
	ret = sys_mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr);
	if (ret == 0)
		ret = sys_move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
	if (ret < 0)
		pn_child_fail(child, errno, path);
	close(fd);
	return ret;
}

/* args: MOUNT_ATTR_* bits to set on the root mount, propagation type or 0 */
int pn_op_root_attr(struct pn_child *child, const struct pn_op *op)
{
	struct pn_mount_attr attr = { .attr_set = (uint64_t)op->arg[0], .propagation = (uint64_t)op->arg[1] };

	if (sys_mount_setattr(AT_FDCWD, "/", 0, &attr) < 0)
		return pn_child_fail(child, errno, "/");
	return 0;
}
