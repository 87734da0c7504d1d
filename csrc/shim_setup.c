/* Start-up of the shim: sealed, listening, alone in an empty place, in the background. Runs once, before any task. */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define COPY_MODE 0500

static int copy_file(int from, int to, off_t size)
{
	while (size > 0) {
		ssize_t n = sendfile(to, from, NULL, (size_t)size);

		if (n <= 0)
			return -1;
		size -= n;
	}
	return 0;
}

static bool same_content(int a, int b, off_t size)
{
	static char of_a[65536], of_b[65536];

	for (off_t at = 0; at < size;) {
		ssize_t n = pread(a, of_a, sizeof(of_a), at);

		if (n <= 0 || pread(b, of_b, (size_t)n, at) != n || memcmp(of_a, of_b, (size_t)n) != 0)
			return false;
		at += n;
	}
	return true;
}

/* vm.memfd_noexec=1 wants to be told that the file will be executed; kernels before 6.3 do not know the word. */
static int open_memfd(void)
{
	int fd = memfd_create("pynetns-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("pynetns-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

/* vm.memfd_noexec=2 forbids it altogether: then a file without a name, which nobody has open for writing. */
static int open_unlinked(int self, off_t size, const char *exec_root)
{
	int writer = open(exec_root, O_TMPFILE | O_RDWR | O_CLOEXEC, COPY_MODE);
	char path[32];
	int reader;

	if (writer < 0 || copy_file(self, writer, size) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", writer);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	close(writer);
	if (reader >= 0 && !same_content(self, reader, size)) {
		errno = EIO;
		return -1;
	}
	return reader;
}

static bool is_sealed(int self, const struct stat *st, const char *exec_root)
{
	struct stat root;

	if (fcntl(self, F_GET_SEALS) == SEALS)
		return true;
	return st->st_nlink == 0 && (st->st_mode & 07777) == COPY_MODE && stat(exec_root, &root) == 0 &&
	       root.st_dev == st->st_dev;
}

/* Runs on from a copy that cannot be written to. Returns only when that is already the case, or on failure. */
int setup_seal_self(char **argv, const char *exec_root)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char *const nothing[] = { NULL };
	struct stat st;
	int copy;

	if (self < 0 || fstat(self, &st) < 0)
		return -1;
	if (is_sealed(self, &st, exec_root))
		return close(self);
	copy = open_memfd();
	if (copy < 0)
		copy = open_unlinked(self, st.st_size, exec_root);
	else if (copy_file(self, copy, st.st_size) < 0 || fcntl(copy, F_ADD_SEALS, SEALS) < 0)
		return -1;
	if (copy < 0)
		return -1;
	execveat(copy, "", argv, nothing, AT_EMPTY_PATH);
	return -1;
}

int setup_open_listener(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t before = umask(077);
	int ret = fd;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	unlink(name);
	if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1024) < 0))
		ret = -1;
	umask(before);
	return ret;
}

/* Nothing but an empty, read-only tmpfs: what a container's mount namespace is copied from. */
int setup_prune_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	if (mount("pynetns-shim", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k") < 0)
		return -1;
	if (chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return -1;
	return umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/");
}

/* The caller waits for the first process; when that is gone the socket listens. */
int setup_go_to_background(void)
{
	pid_t pid = fork();

	if (pid < 0)
		return -1;
	if (pid > 0)
		_exit(0);
	setsid();
	for (int i = 0; i < 3; i++)
		dup2(store->devnull, i);
	return 0;
}
