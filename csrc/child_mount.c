/* Between clone and exec, continued: the mount operations of a plan.
 *
 * After PN_OP_ROOT every path is looked up inside the container's own root by child_path.c, so a hostile image can
 * mislead no look-up to the outside, and everything is then done to the descriptor that came out. What must be exactly
 * where it is said (/proc, /sys, /dev) refuses symlinks on the way; what need not be may not end up in one of them.
 * Same rules as child.c: async-signal-safe calls only.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

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

	pn_path_forget_root(child);
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

/* ---- destinations ---- */

/* An O_PATH descriptor of a mount point inside the root; made when missing and asked for. */
static int open_destination(struct pn_child *child, const char *path, int kind, int64_t mode)
{
	bool exact = mode & PN_DEST_NO_SYMLINK;
	int fd;

	if (!(mode & PN_DEST_CREATE))
		fd = pn_path_open(child, path, O_PATH, PN_RESOLVE_EXACT);
	else
		fd = exact ? pn_path_make(child, path, kind, 0755, true) : pn_path_destination(child, path, kind);
	return fd < 0 ? pn_child_fail(child, -fd, path) : fd;
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

/* ---- directories, nodes, links ---- */

int pn_op_mkdir(struct pn_child *child, const struct pn_op *op)
{
	int fd = pn_path_make(child, pn_op_payload(op), S_IFDIR, (mode_t)op->arg[0], false);

	if (fd < 0)
		return pn_child_fail(child, -fd, pn_op_payload(op));
	close(fd);
	return 0;
}

/* An existing node is fine when it is the one that was wanted. */
static int check_node(int fd, const struct pn_op *op)
{
	mode_t mode = (mode_t)op->arg[0];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & S_IFMT) != (mode & S_IFMT) || (!S_ISFIFO(mode) && st.st_rdev != (dev_t)op->arg[1]))
		return -EEXIST;
	return 0;
}

static int make_node(int dir, const char *name, const struct pn_op *op)
{
	int fd, ret = 0, made = mknodat(dir, name, (mode_t)op->arg[0], (dev_t)op->arg[1]);

	if (made < 0 && errno != EEXIST)
		return -errno;
	if (made == 0 && !op->arg[2] && !op->arg[3])
		return 0;
	fd = sys_openat2(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, RESOLVE_BENEATH);
	if (fd < 0)
		return -errno;
	ret = check_node(fd, op);
	if (ret == 0 && (op->arg[2] || op->arg[3]) &&
	    fchownat(fd, "", (uid_t)op->arg[2], (gid_t)op->arg[3], AT_EMPTY_PATH) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

/* args: mode with type, device number, uid, gid */
int pn_op_mknod(struct pn_child *child, const struct pn_op *op)
{
	const char *name, *path = pn_op_payload(op);
	int dir = pn_path_parent(child, path, 0755, &name);
	int ret;

	if (dir < 0)
		return pn_child_fail(child, -dir, path);
	ret = make_node(dir, name, op);
	close(dir);
	return ret < 0 ? pn_child_fail(child, -ret, path) : 0;
}

int pn_op_symlink(struct pn_child *child, const struct pn_op *op)
{
	const char *target = pn_op_payload(op);
	const char *name, *path = pn_next_string(target);
	int dir = pn_path_parent(child, path, 0755, &name);
	int ret;

	if (dir < 0)
		return pn_child_fail(child, -dir, path);
	ret = symlinkat(target, dir, name) < 0 && errno != EEXIST ? pn_child_fail(child, errno, path) : 0;
	close(dir);
	return ret;
}

/* ---- masked and read-only paths ---- */

int pn_mount_tmpfs(uint64_t attributes)
{
	int mount_fd = -1, fs = (int)syscall(SYS_fsopen, "tmpfs", PN_FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, PN_FSCONFIG_SET_STRING, "source", "tmpfs", 0) == 0 &&
	    syscall(SYS_fsconfig, fs, PN_FSCONFIG_CREATE, NULL, NULL, 0) == 0)
		mount_fd = (int)syscall(SYS_fsmount, fs, PN_FSMOUNT_CLOEXEC, (unsigned int)attributes);
	if (mount_fd < 0)
		mount_fd = -errno;
	close(fs);
	return mount_fd;
}

static int attach_copy(int source, int target)
{
	int ret, fd = sys_open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

	if (fd < 0)
		return -errno;
	ret = sys_move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* The first masked directory gets a tmpfs, the others copies of that mount: a super block costs 20 us. (A mount can be
 * copied once it is attached; before Linux 6.15 only then.) */
static int cover_directory(struct pn_child *child, int target)
{
	const uint64_t closed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	int fd;

	if (child->mask_fd >= 0)
		return attach_copy(child->mask_fd, target);
	fd = pn_mount_tmpfs(closed);
	if (fd < 0)
		return fd;
	if (sys_move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	child->mask_fd = fd;
	return 0;
}

static int cover_file(struct pn_child *child, int target)
{
	if (child->null_fd < 0)
		child->null_fd = pn_path_find_null(child);
	return child->null_fd < 0 ? child->null_fd : attach_copy(child->null_fd, target);
}

static int cover(struct pn_child *child, int target)
{
	struct stat st;

	if (fstat(target, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? cover_directory(child, target) : cover_file(child, target);
}

static int make_readonly(struct pn_child *child, int target)
{
	struct pn_mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	int ret, fd = sys_open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);

	(void)child;
	if (fd < 0)
		return -errno;
	ret = sys_mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr);
	if (ret == 0)
		ret = sys_move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	ret = ret < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* What is not there needs no protection. */
static int protect(struct pn_child *child, const char *path, int (*act)(struct pn_child *child, int target))
{
	int ret, fd = pn_path_open(child, path, O_PATH, PN_RESOLVE_INSIDE);

	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return pn_child_fail(child, -fd, path);
	ret = act(child, fd);
	close(fd);
	return ret < 0 ? pn_child_fail(child, -ret, path) : 0;
}

int pn_op_mask(struct pn_child *child, const struct pn_op *op)
{
	return protect(child, pn_op_payload(op), cover);
}

int pn_op_readonly(struct pn_child *child, const struct pn_op *op)
{
	return protect(child, pn_op_payload(op), make_readonly);
}

/* args: MOUNT_ATTR_* bits to set on the root mount, propagation type or 0 */
int pn_op_root_attr(struct pn_child *child, const struct pn_op *op)
{
	struct pn_mount_attr attr = { .attr_set = (uint64_t)op->arg[0], .propagation = (uint64_t)op->arg[1] };

	if (sys_mount_setattr(AT_FDCWD, "/", 0, &attr) < 0)
		return pn_child_fail(child, errno, "/");
	return 0;
}
