/* Preloaded into a process: writes down what it syncs and renames, in order, to $SYNCS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *what, const char *path)
{
	char line[PATH_MAX + 32];
	const char *log = getenv("SYNCS");
	int size = snprintf(line, sizeof(line), "%s %s\n", what, path);
	int fd = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd >= 0) {
		if (write(fd, line, (size_t)size) != size)
			abort();
		close(fd);
	}
}

static void note_fd(const char *what, int fd)
{
	char link[64], path[PATH_MAX];
	ssize_t size;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	size = readlink(link, path, sizeof(path) - 1);
	path[size < 0 ? 0 : size] = '\0';
	note(what, path);
}

#define SYNC(name)                                                                                                     \
	int name(int fd)                                                                                               \
	{                                                                                                              \
		int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name);                                              \
		int answer = real(fd);                                                                                 \
		note_fd("sync", fd);                                                                                   \
		return answer;                                                                                         \
	}

SYNC(fsync)
SYNC(fdatasync)
SYNC(syncfs)

int rename(const char *from, const char *to)
{
	int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
	int answer = real(from, to);

	note("rename", to);
	return answer;
}
