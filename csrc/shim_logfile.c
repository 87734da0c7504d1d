/* The file of a task's log: opened below its directory, rotated, appended to. The writer's alone; whatever takes long
 * here holds up nothing but logs. */
#include "shim_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void file_name(const struct kept_log *kept, uint32_t number, char name[160])
{
	if (number == 0)
		snprintf(name, 160, "%s", kept->options.name);
	else
		snprintf(name, 160, "%s.%u", kept->options.name, number);
}

/* name.(n-1) -> name.n, from the oldest down to the current one. A step that a killed predecessor had done finds
 * nothing to rename. */
static void rotate_from(struct kept_log *kept, uint32_t step)
{
	char from[160], to[160];

	for (; step > 0; step--) {
		KEEP(kept->rotating, step);
		file_name(kept, step - 1, from);
		file_name(kept, step, to);
		renameat(kept->directory, from, kept->directory, to);
	}
	KEEP(kept->rotating, 0);
}

static int open_file(const struct kept_log *kept)
{
	const int flags = O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
	char parent[sizeof(kept->options.name)];
	int fd = openat(kept->directory, kept->options.name, flags, 0640);
	char *slash;

	if (fd >= 0 || errno != ENOENT)
		return fd;
	memcpy(parent, kept->options.name, sizeof(parent));
	slash = strrchr(parent, '/');
	if (!slash)
		return -1;
	*slash = '\0';
	mkdirat(kept->directory, parent, 0700);
	return openat(kept->directory, kept->options.name, flags, 0640);
}

/* The file's size tells: nobody else writes to it. */
void logfile_finish_write(struct pn_log *log)
{
	struct kept_task *task = log->task->kept;
	struct kept_log *kept = &task->log;
	struct stat st;

	if (!kept->length || fstat(log->fd, &st) < 0)
		return;
	if ((uint64_t)st.st_size == kept->start + kept->length) {
		for (int i = 0; i < 2; i++)
			if (task->stream[i].logged < kept->next[i])
				KEEP(task->stream[i].logged, kept->next[i]);
	} else if ((uint64_t)st.st_size > kept->start) {
		(void)!ftruncate(log->fd, (off_t)kept->start);
	}
	KEEP(kept->length, 0);
}

int64_t logfile_ready(struct pn_log *log)
{
	struct kept_log *kept = &log->task->kept->log;
	struct stat st;

	if (log->fd < 0) {
		rotate_from(kept, kept->rotating);
		log->fd = store_fd_up(open_file(kept));
	}
	if (log->fd < 0 || fstat(log->fd, &st) < 0)
		return -1;
	return st.st_size;
}

void logfile_rotate(struct pn_log *log)
{
	struct kept_log *kept = &log->task->kept->log;

	if (kept->options.max_file < 2) {
		(void)!ftruncate(log->fd, 0);
		return;
	}
	pn_close(&log->fd);
	rotate_from(kept, kept->options.max_file - 1);
	log->fd = store_fd_up(open_file(kept));
}

/* All or nothing: a full disk must not leave half an entry in the middle of the file. What could not be written is
 * lost, as with Docker: a program is not to stand still until somebody has made room. */
void logfile_write(int fd, const char *bytes, size_t size, int64_t start)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(fd, bytes + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (done)
				(void)!ftruncate(fd, start);
			return;
		}
		done += (size_t)n;
	}
}
