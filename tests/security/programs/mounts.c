/* What a container's /proc, /sys and /dev must be, and attacks by mounting and by racing renames. */
#include "attack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

static int faults;

static void fault(const char *what, const char *path)
{
	printf("FAULT %s %s\n", path, what);
	faults++;
}

static int entries(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int count = 0;

	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return count;
}

static void check_mask(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	if (S_ISDIR(st.st_mode)) {
		if (entries(path))
			fault("is not masked", path);
	} else if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		fault("is not masked by the null device", path);
	}
}

static void check_readonly(const char *path)
{
	struct statvfs fs;

	if (statvfs(path, &fs) == 0 && !(fs.f_flag & ST_RDONLY))
		fault("is writable", path);
}

static void check_type(const char *path, long magic)
{
	struct statfs fs;

	if (statfs(path, &fs) < 0 || fs.f_type != magic)
		fault("is not what its name says", path);
}

static void check_devices(void)
{
	static const struct {
		const char *path;
		int major, minor;
	} devices[] = { { "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
			{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 } };
	struct stat st;

	for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
		if (lstat(devices[i].path, &st) < 0 || !S_ISCHR(st.st_mode) ||
		    st.st_rdev != makedev(devices[i].major, devices[i].minor))
			fault("is another device", devices[i].path);
}

/* Is `point` one of the arguments, or below "/sys/fs/cgroup", or one of /dev's own? */
static int expected(const char *point, char **paths)
{
	static const char *const own[] = { "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/sys/fs/cgroup" };

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strcmp(point, own[i]) == 0)
			return 1;
	/* the thermal counters of each processor are masked where there are any */
	if (strncmp(point, "/sys/fs/cgroup/", 15) == 0 || strncmp(point, "/sys/devices/system/cpu/", 24) == 0)
		return 1;
	for (; *paths; paths++)
		if (strcmp(point, *paths + 1) == 0)
			return 1;
	return 0;
}

static void check_mounts(char **paths)
{
	static const char *const tops[] = { "/proc", "/sys", "/dev" };
	FILE *file = fopen("/proc/self/mountinfo", "r");
	char line[4096], point[4096];
	int seen[3] = { 0 };

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1)
			continue;
		for (int i = 0; i < 3; i++) {
			size_t size = strlen(tops[i]);

			if (strcmp(point, tops[i]) == 0)
				seen[i]++;
			else if (strncmp(point, tops[i], size) == 0 && point[size] == '/' && !expected(point, paths))
				fault("has an unexpected mount", point);
		}
	}
	for (int i = 0; i < 3; i++)
		if (seen[i] != 1)
			fault("is not mounted once", tops[i]);
	if (file)
		fclose(file);
}

/* integrity [m|r]PATH...: m masked, r read-only; every deviation from what is promised, or INTACT. */
int cmd_integrity(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (*argv[i] == 'm')
			check_mask(argv[i] + 1);
		else
			check_readonly(argv[i] + 1);
	}
	check_type("/proc", 0x9fa0);
	check_type("/sys", 0x62656572);
	check_type("/dev", 0x01021994);
	check_readonly("/sys");
	check_devices();
	check_mounts(argv);
	puts(faults ? "NOT INTACT" : "INTACT");
	return 0;
}

/* swap A B: exchange two names as fast as the kernel can. */
int cmd_swap(int argc, char **argv)
{
	unsigned long count = 0;

	if (argc != 2)
		return 64;
	stop_on_term();
	puts("swapping");
	fflush(stdout);
	while (!stopped)
		count += syscall(SYS_renameat2, AT_FDCWD, argv[0], AT_FDCWD, argv[1], 2 /* RENAME_EXCHANGE */) == 0;
	printf("swapped %lu\n", count);
	return 0;
}

static void tell(const char *what, long ret)
{
	printf("%s %s\n", ret < 0 ? strerror(errno) : "DONE", what);
}

/* mounts: everything that a container's root could try to lay the kernel's files open with. */
int cmd_mounts(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	mkdir("/mountpoint", 0755);
	tell("mount tmpfs", mount("tmpfs", "/mountpoint", "tmpfs", 0, NULL));
	tell("mount proc", mount("proc", "/mountpoint", "proc", 0, NULL));
	tell("mount sysfs", mount("sysfs", "/mountpoint", "sysfs", 0, NULL));
	tell("mount cgroup", mount("cgroup", "/mountpoint", "cgroup", 0, "pids"));
	tell("bind over /proc", mount("/mountpoint", "/proc", NULL, MS_BIND, NULL));
	tell("bind a read-only path", mount("/proc/sys", "/mountpoint", NULL, MS_BIND, NULL));
	tell("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
	tell("remount /sys", mount(NULL, "/sys", NULL, MS_REMOUNT, NULL));
	tell("remount /", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
	tell("umount /proc/kcore", umount2("/proc/kcore", MNT_DETACH));
	tell("umount /proc/sys", umount2("/proc/sys", MNT_DETACH));
	tell("umount /proc/keys", umount2("/proc/keys", 0));
	tell("umount /sys/firmware", umount2("/sys/firmware", MNT_DETACH));
	tell("make / shared", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL));
	tell("pivot_root", syscall(SYS_pivot_root, "/mountpoint", "/mountpoint"));
	tell("open_tree clone", syscall(SYS_open_tree, AT_FDCWD, "/proc", 1));
	tell("fsopen proc", syscall(SYS_fsopen, "proc", 0));
	tell("new mount namespace", unshare(CLONE_NEWNS));
	tell("new user namespace", unshare(CLONE_NEWUSER));
	tell("mount tmpfs afterwards", mount("tmpfs", "/mountpoint", "tmpfs", 0, NULL));
	return 0;
}

static void try_agent(const char *directory)
{
	static const char *const names[] = { "release_agent", "notify_on_release", "cgroup.procs", "devices.allow" };
	char path[512], value[512];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		ssize_t size;
		int fd;

		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		size = read(fd, value, sizeof(value) - 1);
		/* what is written is what it holds already: the privilege shows, the machine stays as it is */
		if (strcmp(names[i], "release_agent") == 0 && pwrite(fd, value, size > 0 ? (size_t)size : 1, 0) < 0)
			printf("%s write %s\n", strerror(errno), path);
		else
			printf("WRITABLE %s\n", path);
		close(fd);
	}
}

static void try_directories(const char *top)
{
	DIR *dir = opendir(top);
	struct dirent *entry;
	char path[512];

	try_agent(top);
	while (dir && (entry = readdir(dir))) {
		if (*entry->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", top, entry->d_name);
		try_agent(path);
	}
	if (dir)
		closedir(dir);
}

/* release-agent [user]: reach a cgroup v1 release agent, by what is visible and by mounting, "user": as root of a new
 * user and cgroup namespace (CVE-2022-0492). */
int cmd_release_agent(int argc, char **argv)
{
	static const char *const controllers[] = { "rdma", "misc", "memory", "pids", "devices", "cpu", "freezer" };

	if (argc && strcmp(argv[0], "user") == 0)
		tell("new user and cgroup namespace", unshare(CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWNS));
	mkdir("/agent", 0755);
	for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++) {
		if (mount("cgroup", "/agent", "cgroup", 0, controllers[i]) < 0)
			continue;
		printf("mounted %s\n", controllers[i]);
		try_agent("/agent");
		umount2("/agent", MNT_DETACH);
	}
	try_directories("/sys/fs/cgroup");
	puts("tried");
	return 0;
}
