/* Between clone and exec, continued: looking up paths that an image or a user can influence.
 *
 * Owns every such look-up: the other child units hand in a path and get a descriptor (a test holds them to it). Each
 * one is an openat2 below the root without magic links, so that neither "..", nor a symlink, nor /proc/<pid>/fd leads
 * out. Missing components are made one by one, in a directory that is held open, never by a path. Same rules as
 * child.c: async-signal-safe calls only.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#define PATH_BYTES 4096
#define LINKS_MAX 40 /* as the kernel's own */
#define TRIES 128    /* EAGAIN: somebody renamed while the kernel looked at a ".." */

/* Opened once, for all look-ups until the root changes or the table is closed. */
static int root_of(struct pn_child *child)
{
	if (child->root_fd < 0)
		child->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return child->root_fd < 0 ? -errno : child->root_fd;
}

void pn_path_forget_root(struct pn_child *child)
{
	if (child->root_fd >= 0)
		close(child->root_fd);
	child->root_fd = -1;
}

static int open_below(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	int fd;

	for (int i = 0; i < TRIES; i++) {
		fd = sys_openat2(dir, path, flags | O_CLOEXEC, resolve);
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd < 0 ? -errno : fd;
}

int pn_path_open(struct pn_child *child, const char *path, uint64_t flags, uint64_t resolve)
{
	int root = root_of(child);

	return root < 0 ? root : open_below(root, path, flags, resolve);
}

/* ---- making what is missing ---- */

/* A walk from the root: `done` is where it is, by real names only; `rest` is what is left to go. */
struct walk {
	int root;
	int links;
	bool exact;
	char done[PATH_BYTES];
	char rest[PATH_BYTES];
};

/* Takes the first component off `rest`. */
static void take_component(struct walk *walk, char component[NAME_MAX + 2])
{
	const char *at = walk->rest;
	size_t size = 0;

	while (*at == '/')
		at++;
	while (at[size] && at[size] != '/' && size <= NAME_MAX) {
		component[size] = at[size];
		size++;
	}
	component[size] = '\0';
	at += size;
	while (*at == '/')
		at++;
	memmove(walk->rest, at, strlen(at) + 1);
}

static int append(char path[PATH_BYTES], const char *component)
{
	size_t have = strlen(path), more = strlen(component);

	if (have + 1 + more >= PATH_BYTES)
		return -ENAMETOOLONG;
	path[have] = '/';
	memcpy(path + have + 1, component, more + 1);
	return 0;
}

static void strip(char path[PATH_BYTES])
{
	size_t size = strlen(path);

	while (size > 0 && path[size - 1] != '/')
		size--;
	path[size > 0 ? size - 1 : 0] = '\0';
}

static int open_done(const struct walk *walk, uint64_t flags)
{
	return open_below(walk->root, *walk->done ? walk->done : "/", flags, PN_RESOLVE_EXACT);
}

/* A link goes on from where it points to; an absolute one from the root. */
static int follow_link(struct walk *walk, int fd)
{
	char target[PATH_BYTES];
	ssize_t size = readlinkat(fd, "", target, sizeof(target) - 1);
	size_t left = strlen(walk->rest);

	if (walk->exact || ++walk->links > LINKS_MAX)
		return -ELOOP;
	if (size < 0)
		return -errno;
	if ((size_t)size + 1 + left >= PATH_BYTES)
		return -ENAMETOOLONG;
	memmove(walk->rest + size + 1, walk->rest, left + 1);
	memcpy(walk->rest, target, (size_t)size);
	walk->rest[size] = '/';
	if (target[0] == '/')
		walk->done[0] = '\0';
	return 0;
}

/* procfs has links whose text is not where they lead: the kernel says which. */
static int refuse_magic_link(const struct walk *walk, const char *component)
{
	int fd, dir = open_done(walk, O_PATH | O_DIRECTORY);

	if (dir < 0)
		return dir;
	fd = open_below(dir, component, O_PATH, RESOLVE_NO_MAGICLINKS);
	close(dir);
	if (fd >= 0)
		close(fd);
	return fd == -ELOOP ? -ELOOP : 0;
}

static int enter_link(struct walk *walk, const char *component, int fd)
{
	int ret = refuse_magic_link(walk, component);

	return ret < 0 ? ret : follow_link(walk, fd);
}

static int make_component(const struct walk *walk, const char *component, int kind, mode_t mode)
{
	int ret = 0, fd, dir = open_done(walk, O_PATH | O_DIRECTORY);

	if (dir < 0)
		return dir;
	if (kind == S_IFREG) {
		fd = openat(dir, component, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd >= 0)
			close(fd);
		ret = fd < 0 ? -errno : 0;
	} else if (mkdirat(dir, component, mode) < 0) {
		ret = -errno;
	}
	close(dir);
	return ret == -EEXIST ? 0 : ret; /* somebody was faster: the next look says what it is */
}

/* Enters or makes one component. 1: again, with what has just been made. */
static int step(struct walk *walk, const char *component, int kind, mode_t mode)
{
	int ret, fd, dir = open_done(walk, O_PATH | O_DIRECTORY);
	struct stat st;

	if (dir < 0)
		return dir;
	fd = open_below(dir, component, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
	close(dir);
	if (fd == -ENOENT) {
		ret = make_component(walk, component, *walk->rest ? S_IFDIR : kind, mode);
		return ret < 0 ? ret : 1;
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		ret = -errno;
	else if (S_ISLNK(st.st_mode))
		ret = enter_link(walk, component, fd);
	else
		ret = S_ISDIR(st.st_mode) || !*walk->rest ? append(walk->done, component) : -ENOTDIR;
	close(fd);
	return ret;
}

static int walk_all(struct walk *walk, int kind, mode_t mode)
{
	char component[NAME_MAX + 2];

	while (*walk->rest) {
		int ret = 1;

		take_component(walk, component);
		if (!component[0] || strcmp(component, ".") == 0)
			continue;
		if (strcmp(component, "..") == 0) {
			strip(walk->done);
			continue;
		}
		for (int i = 0; ret == 1 && i < TRIES; i++)
			ret = step(walk, component, kind, mode);
		if (ret != 0)
			return ret < 0 ? ret : -EBUSY;
	}
	return 0;
}

/* walk->done is what came out: the real name of the descriptor, links gone. */
static int walk_from_root(struct walk *walk, int root, const char *path, int kind, mode_t mode)
{
	size_t size = strlen(path);
	int ret;

	if (size >= sizeof(walk->rest))
		return -ENAMETOOLONG;
	memcpy(walk->rest, path, size + 1);
	walk->root = root;
	ret = walk_all(walk, kind, mode);
	return ret < 0 ? ret : open_done(walk, O_PATH);
}

/* Splits path at its last component; the length of what is before it, or -errno. */
static int split(const char *path, const char **ret_name)
{
	const char *name = path + strlen(path);

	while (name > path && name[-1] != '/')
		name--;
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -ENOENT;
	*ret_name = name;
	return name - path >= PATH_BYTES ? -ENAMETOOLONG : (int)(name - path);
}

/* The directory that path's last component is to be in, if it is there. */
static int open_parent(struct pn_child *child, const char *path, uint64_t resolve, const char **ret_name)
{
	char parent[PATH_BYTES];
	int size = split(path, ret_name);

	if (size < 0)
		return size;
	memcpy(parent, path, (size_t)size);
	parent[size] = '\0';
	return pn_path_open(child, size ? parent : "/", O_PATH | O_DIRECTORY, resolve);
}

/* Only the last component is missing, as of the directories in a fresh /dev. -ENOENT: the walk has to find out. */
static int make_last(struct pn_child *child, const char *path, mode_t mode, bool exact)
{
	const char *name;
	int fd, dir = open_parent(child, path, exact ? PN_RESOLVE_EXACT : PN_RESOLVE_INSIDE, &name);

	if (dir < 0)
		return -ENOENT;
	if (mkdirat(dir, name, mode) == 0)
		fd = open_below(dir, name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	else
		fd = -ENOENT;
	close(dir);
	return fd;
}

int pn_path_make(struct pn_child *child, const char *path, int kind, mode_t mode, bool exact)
{
	/* nearly always it is there */
	int fd = pn_path_open(child, path, O_PATH, exact ? PN_RESOLVE_EXACT : PN_RESOLVE_INSIDE);
	struct walk walk;

	if (fd == -ENOENT && kind == S_IFDIR)
		fd = make_last(child, path, mode, exact);
	if (fd != -ENOENT)
		return fd;
	walk = (struct walk){ .exact = exact };
	return walk_from_root(&walk, child->root_fd, path, kind, mode);
}

/* ---- mount points ---- */

static uint64_t mount_id(int fd, uint64_t *ret_inode)
{
	struct statx st = { 0 };

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &st) < 0)
		return 0;
	*ret_inode = st.stx_ino;
	return st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
}

/* Inside the root's own mount, and not the root itself: then it is in none of the mounts made so far. */
static bool in_plain_place(int root, int fd)
{
	uint64_t root_inode, inode;
	uint64_t root_mount = mount_id(root, &root_inode);

	return root_mount && mount_id(fd, &inode) == root_mount && inode != root_inode;
}

static bool is_kernels(const char *path)
{
	static const char *const tops[] = { "/proc", "/sys", "/dev" };

	if (!*path)
		return true; /* the root itself */
	for (size_t i = 0; i < sizeof(tops) / sizeof(tops[0]); i++) {
		size_t size = strlen(tops[i]);

		if (memcmp(path, tops[i], size) == 0 && (path[size] == '/' || !path[size]))
			return true;
	}
	return false;
}

int pn_path_destination(struct pn_child *child, const char *path, int kind)
{
	struct walk walk = { 0 };
	int ret, fd = pn_path_make(child, path, kind, 0755, false);

	if (fd < 0 || in_plain_place(child->root_fd, fd))
		return fd;
	close(fd);
	ret = walk_from_root(&walk, child->root_fd, path, kind, 0755);
	if (ret >= 0 && is_kernels(walk.done) && !is_kernels(path)) {
		close(ret);
		return -EXDEV;
	}
	return ret;
}

/* ---- parents ---- */

int pn_path_parent(struct pn_child *child, const char *path, mode_t mode, const char **ret_name)
{
	char parent[PATH_BYTES];
	int size, fd = open_parent(child, path, PN_RESOLVE_INSIDE, ret_name);

	if (fd != -ENOENT)
		return fd;
	size = split(path, ret_name);
	if (size < 0)
		return size;
	memcpy(parent, path, (size_t)size);
	parent[size] = '\0';
	return pn_path_make(child, size ? parent : "/", S_IFDIR, mode, false);
}

/* ---- files that must be what they are called ---- */

int pn_path_open_proc(struct pn_child *child, int proc, const char *path)
{
	struct statfs fs;
	int fd, top = proc;

	if (proc < 0) {
		top = pn_path_open(child, "/proc", O_PATH | O_DIRECTORY, PN_RESOLVE_EXACT);
		if (top < 0)
			return top;
	}
	if (fstatfs(top, &fs) < 0)
		fd = -errno;
	else if (fs.f_type != PROC_SUPER_MAGIC)
		fd = -EXDEV;
	else
		fd = open_below(top, path, O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
	if (proc < 0)
		close(top);
	return fd;
}

static bool is_null(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

/* On a file system that nobody else can reach. */
static int make_null(uint64_t flags)
{
	int mount = pn_mount_tmpfs(0), fd = -1;

	if (mount < 0)
		return mount;
	if (mknodat(mount, "null", S_IFCHR | 0666, makedev(1, 3)) == 0)
		fd = open_below(mount, "null", flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	else
		fd = -errno;
	close(mount);
	return fd;
}

int pn_path_find_null(struct pn_child *child)
{
	int fd = pn_path_open(child, "/dev/null", O_PATH | O_NOFOLLOW, PN_RESOLVE_EXACT);

	if (fd < 0 || is_null(fd))
		return fd;
	close(fd);
	return -EXDEV;
}

int pn_path_open_null(struct pn_child *child, uint64_t flags)
{
	/* looked at before it is opened: opening some devices has effects */
	int fd = pn_path_find_null(child);

	if (fd >= 0) {
		close(fd);
		fd = pn_path_open(child, "/dev/null", flags | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, PN_RESOLVE_EXACT);
	}
	if (fd >= 0 && is_null(fd))
		return fd;
	if (fd >= 0)
		close(fd);
	return make_null(flags);
}
