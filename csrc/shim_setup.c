/* Start-up of the shim: sealed, listening, alone in an empty place, in the background. Runs once, before any task. */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Runs on from a sealed copy in memory. Returns only when that is already the case, or on failure. */
int setup_seal_self(char **argv)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	int copy;

	if (self < 0 || fstat(self, &st) < 0)
		return -1;
	if (fcntl(self, F_GET_SEALS) == seals)
		return close(self);
	copy = memfd_create("pynetns-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (copy < 0)
		return -1;
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(copy, self, NULL, (size_t)left);

		if (n <= 0)
			return -1;
		left -= n;
	}
	if (fcntl(copy, F_ADD_SEALS, seals) < 0)
		return -1;
	execveat(copy, "", argv, environ, AT_EMPTY_PATH);
	return -1;
}

/* Best effort: in a hierarchy that refuses it stays where its starter is, as before; `pynetns doctor` tells. */
void setup_enter_cgroups(int count)
{
	for (int fd = 3; fd < 3 + count; fd++) {
		(void)!write(fd, "0", 1);
		close(fd);
	}
}

int setup_open_listener(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "shim.sock" };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	unlink(address.sun_path);
	umask(077);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1024) < 0)
		return -1;
	return fd;
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

void setup_raise_limits(void)
{
	struct rlimit files;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* best effort: below zero needs CAP_SYS_RESOURCE */
	if (fd >= 0) {
		(void)!write(fd, "-999", 4);
		close(fd);
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
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
		dup2(shim_devnull, i);
	return 0;
}
