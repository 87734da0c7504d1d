/* The floor's mounts made by the starter: all detached, so that nothing piles up in a namespace that is copied. */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);
#define MS_PRIVATE_ALL (1 << 14 | 1 << 18) /* MS_REC | MS_PRIVATE; sys/mount.h and linux/mount.h exclude each other */
#define DETACH 2

static const char *const NAME_FILES[] = { "resolv.conf", "hostname", "hosts" };
static int host_namespace = -1, small_namespace = -1;
static char base[256];

static void make_file(const char *directory, const char *name, const char *text)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

static int overlay(const char *lower, const char *upper, const char *work)
{
	int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
	int fd;

	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir", lower, 0) < 0)
		die("overlay lowerdir");
	if (upper && (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "upperdir", upper, 0) < 0 ||
		      syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "workdir", work, 0) < 0))
		die("overlay upperdir");
	if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		die("overlay create");
	fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
	if (fd < 0)
		die("overlay mount");
	close(context);
	return fd;
}

/* A host image: this machine's own files, as one read-only overlay that the containers' overlays lie on. */
static void make_base(void)
{
	char lower[600], empty[280];
	int fd;

	snprintf(base, sizeof(base), "%s/base", settings.runtime);
	snprintf(empty, sizeof(empty), "%s/empty", settings.runtime);
	mkdir(base, 0755);
	mkdir(empty, 0755);
	snprintf(lower, sizeof(lower), "%s:%s", empty, settings.lower);
	fd = overlay(lower, NULL, NULL);
	if (syscall(SYS_move_mount, fd, "", AT_FDCWD, base, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		die("nested base");
	close(fd);
	settings.lower = base;
}

/* A namespace with one mount, an empty tmpfs: its copy for each container costs next to nothing. */
static void make_small_namespace(void)
{
	host_namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (host_namespace < 0 || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE_ALL, NULL) < 0)
		die("small mount namespace");
	if (mount("tmpfs", settings.runtime, "tmpfs", 1, "size=0k") < 0 || chdir(settings.runtime) < 0)
		die("small root");
	small_namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", DETACH) < 0)
		die("pivot to the small root");
	leave_small_namespace();
}

void enter_small_namespace(void)
{
	if (setns(small_namespace, CLONE_NEWNS) < 0)
		die("enter small namespace");
}

void leave_small_namespace(void)
{
	if (setns(host_namespace, CLONE_NEWNS) < 0)
		die("back to the host's namespace");
}

void mounts_open(void)
{
	make_file(settings.dir, "resolv.conf", "nameserver 192.0.2.1\n");
	make_file(settings.dir, "hostname", "floor\n");
	make_file(settings.dir, "hosts", "127.0.0.1 localhost\n");
	if (settings.nested)
		make_base();
	make_small_namespace();
}

void mounts_close(void)
{
	char path[300];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", settings.dir, NAME_FILES[i]);
		unlink(path);
	}
	if (!settings.nested)
		return;
	umount2(base, DETACH);
	rmdir(base);
	snprintf(path, sizeof(path), "%s/empty", settings.runtime);
	rmdir(path);
}

/* ---- one container ---- */

void create_directories(unsigned int index)
{
	static const char *const parts[] = { "", "/diff", "/work" };
	char path[300];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%u%s", settings.dir, index, parts[i]);
		if (mkdir(path, 0755) < 0)
			die(path);
	}
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *position)
{
	(void)st;
	(void)kind;
	(void)position;
	return remove(path);
}

void remove_directories(unsigned int index)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%u", settings.dir, index);
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void make_overlay(struct start *start)
{
	char upper[300], work[300];

	snprintf(upper, sizeof(upper), "%s/%u/diff", settings.dir, start->index);
	snprintf(work, sizeof(work), "%s/%u/work", settings.dir, start->index);
	start->rootfs = overlay(settings.lower, upper, work);
}

static int clone_tree(int directory, const char *path, uint64_t attributes)
{
	struct mount_attr attr = { .attr_set = attributes };
	unsigned int empty = *path ? 0 : AT_EMPTY_PATH;
	int fd = (int)syscall(SYS_open_tree, directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty);

	if (fd < 0)
		die(path);
	if (attributes && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		die("mount attributes");
	return fd;
}

void make_binds(struct start *start)
{
	uint64_t view = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	char path[300];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", settings.dir, NAME_FILES[i]);
		start->binds[i] = clone_tree(AT_FDCWD, path, 0);
	}
	start->binds[3] = clone_tree(AT_FDCWD, settings.mark, 0);
	start->cgroup_view = clone_tree(start->cgroup, "", view);
}
