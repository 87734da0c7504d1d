/* The floor's child, from clone to exec: what Docker's default container has, in the order of docs/child-process.md. */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NOTHING (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define DOCKER_CAPS 0xa80425fbULL /* of chown … setfcap, mknod, audit_write: Docker's fourteen */

static struct sock_fprog seccomp_filter;
static int null_fd = -1;

static const struct {
	const char *type, *source, *path, *data;
	unsigned long flags;
	enum mark done;
} MOUNTS[] = {
	{ "proc", "proc", "/proc", NULL, NOTHING, MARK_PROC },
	{ "tmpfs", "tmpfs", "/dev", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME, MARK_DEV },
	{ "devpts", "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC,
	  MARK_DEVPTS },
	{ "sysfs", "sysfs", "/sys", NULL, NOTHING | MS_RDONLY, MARK_SYSFS },
	{ NULL, NULL, "/sys/fs/cgroup", NULL, 0, MARK_CGROUPFS },
	{ "mqueue", "mqueue", "/dev/mqueue", NULL, NOTHING, MARK_MQUEUE },
	{ "tmpfs", "shm", "/dev/shm", "mode=1777,size=67108864", NOTHING, MARK_SHM },
};
static const struct {
	const char *path;
	int major, minor;
} NODES[] = { { "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
	      { "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 } };
static const char *const LINKS[][2] = {
	{ "/proc/self/fd", "/dev/fd" },       { "/proc/self/fd/0", "/dev/stdin" }, { "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" }, { "/proc/kcore", "/dev/core" },      { "pts/ptmx", "/dev/ptmx" },
};
static const char *const READONLY[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
static const char *const MASKED[] = { "/proc/asound",      "/proc/acpi",          "/proc/kcore",
				      "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
				      "/proc/timer_stats", "/proc/sched_debug",   "/proc/scsi",
				      "/sys/firmware" };

#define EACH(i, table) (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)

/* Reads the compiled filter and opens what every child needs. */
void child_open(void)
{
	struct stat st;
	int fd;

	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (!settings.seccomp)
		return;
	fd = open(settings.seccomp, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(settings.seccomp);
	seccomp_filter.len = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
	seccomp_filter.filter = malloc((size_t)st.st_size);
	if (!seccomp_filter.filter || read(fd, seccomp_filter.filter, (size_t)st.st_size) != st.st_size)
		die("read filter");
	close(fd);
}

static noreturn void fail(const char *step)
{
	report->errnum = errno;
	snprintf(report->step, sizeof(report->step), "%s", step);
	_exit(127);
}

static void attach(int fd, const char *path)
{
	if (syscall(SYS_move_mount, fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		fail(path);
}

static void enter_root(const struct start *start)
{
	/* the table was shared until here: so only its lower part is copied */
	if (syscall(SYS_close_range, FIRST_HIGH_FD, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		fail("own descriptors");
	umask(0);
	if (setns(start->netns, CLONE_NEWNET) < 0)
		fail("join network namespace");
	if (sethostname("floor", 5) < 0)
		fail("host name");
	attach(start->rootfs, "/");
	if (fchdir(start->rootfs) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		fail("pivot");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		fail("drop old root");
}

static void make_devices(void)
{
	for
		EACH(i, NODES)
	if (mknod(NODES[i].path, S_IFCHR | 0666, makedev(NODES[i].major, NODES[i].minor)) < 0)
		fail(NODES[i].path);
	for
		EACH(i, LINKS)
	if (symlink(LINKS[i][0], LINKS[i][1]) < 0)
		fail(LINKS[i][1]);
	if (mkdir("/dev/pts", 0755) < 0 || mkdir("/dev/mqueue", 0755) < 0 || mkdir("/dev/shm", 0755) < 0)
		fail("/dev");
}

static void make_mounts(const struct start *start)
{
	for
		EACH(i, MOUNTS)
		{
			if (!MOUNTS[i].type)
				attach(start->cgroup_view, MOUNTS[i].path);
			else if (mount(MOUNTS[i].source, MOUNTS[i].path, MOUNTS[i].type, MOUNTS[i].flags,
				       MOUNTS[i].data) < 0)
				fail(MOUNTS[i].path);
			if (MOUNTS[i].done == MARK_DEV)
				make_devices();
			mark(MOUNTS[i].done);
		}
	attach(start->binds[0], "/etc/resolv.conf");
	attach(start->binds[1], "/etc/hostname");
	attach(start->binds[2], "/etc/hosts");
	attach(start->binds[3], settings.mark_destination);
	mark(MARK_ATTACH);
}

static void write_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		fail(path);
	close(fd);
}

static void set_sysctls(void)
{
	write_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	write_sysctl("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	mark(MARK_SYSCTL);
}

static void protect_paths(void)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };

	for
		EACH(i, READONLY)
		{
			int fd =
				(int)syscall(SYS_open_tree, AT_FDCWD, READONLY[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

			if (fd < 0 && errno == ENOENT)
				continue;
			if (fd < 0 || syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
				fail(READONLY[i]);
			attach(fd, READONLY[i]);
		}
	mark(MARK_READONLY);
}

/* One tmpfs for all masked directories: a super block costs more than a copy of a mount. */
static void mask_paths(void)
{
	const char *first = NULL;
	struct stat st;

	for
		EACH(i, MASKED)
		{
			if (stat(MASKED[i], &st) < 0)
				continue;
			if (!S_ISDIR(st.st_mode)) {
				if (mount("/dev/null", MASKED[i], NULL, MS_BIND, NULL) < 0)
					fail(MASKED[i]);
			} else if (first) {
				if (mount(first, MASKED[i], NULL, MS_BIND, NULL) < 0)
					fail(MASKED[i]);
			} else {
				if (mount("tmpfs", MASKED[i], "tmpfs", NOTHING | MS_RDONLY, "size=0k") < 0)
					fail(MASKED[i]);
				first = MASKED[i];
			}
		}
	mark(MARK_MASK);
}

static void take_identity(const struct start *start)
{
	int fd;

	if (setsid() < 0 || dup2(null_fd, 0) < 0 || dup2(start->out[1], 1) < 0 || dup2(start->err[1], 2) < 0)
		fail("stdio");
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		fail("oom_score_adj");
	if (unshare(CLONE_NEWCGROUP) < 0)
		fail("cgroup namespace");
	umask(022);
	mark(MARK_IDENTITY);
}

static void drop_privileges(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { DOCKER_CAPS, DOCKER_CAPS, 0 }, { 0, 0, 0 } };

	/* before the filter, which every later call has to pass */
	for (unsigned long cap = 0; cap < 64; cap++)
		if (!(DOCKER_CAPS >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0UL, 0UL, 0UL) < 0)
			break; /* EINVAL: the kernel knows no more */
	mark(MARK_BOUNDING);
	if (seccomp_filter.len && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &seccomp_filter) < 0)
		fail("seccomp");
	mark(MARK_SECCOMP);
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_capset, &header, data) < 0)
		fail("capabilities");
	mark(MARK_CAPS);
}

noreturn void child_run(const struct start *start)
{
	static char *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				       "HOSTNAME=floor", NULL };
	char *arguments[4] = { (char *)settings.program };
	int argc = 1;

	mark(MARK_CLONE);
	if (settings.stay)
		arguments[argc++] = "-w";
	arguments[argc++] = (char *)settings.fifo;
	arguments[argc] = NULL;
	enter_root(start);
	mark(MARK_ROOT);
	make_mounts(start);
	set_sysctls();
	protect_paths();
	mask_paths();
	take_identity(start);
	drop_privileges();
	if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		fail("close_range");
	execve(settings.program, arguments, environment);
	fail(settings.program);
}
