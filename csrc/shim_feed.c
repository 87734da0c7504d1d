/* An attached client's input on its way to the program: spliced from pipe to pipe, so that no byte of it is ever here
 * alone. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SLICE 4096

static void set_nonblocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void feed_close(struct pn_task *task)
{
	shim_close(&task->source, &task->kept->source);
	shim_unwatch(&task->target);
	task->target.fd = -1;
	shim_close_kept(&task->kept->input);
}

static void source_ended(struct pn_task *task)
{
	shim_close(&task->source, &task->kept->source);
	if ((task->kept->flags & PN_SPAWN_STDIN_ONCE) && !(task->kept->flags & PN_SPAWN_TTY))
		feed_close(task);
}

/* A client whose input is no pipe, at a terminal: the kernel splices only to or from one. */
static ssize_t copy(int source, int target)
{
	char bytes[SLICE];
	ssize_t n = read(source, bytes, sizeof(bytes)), done = 0;

	while (n > 0 && done < n) {
		ssize_t w = write(target, bytes + done, (size_t)(n - done));

		if (w <= 0)
			break; /* a terminal that takes no more input drops it */
		done += w;
	}
	return n;
}

static void source_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;
	int waiting = 0;
	ssize_t n = splice(watch->fd, NULL, task->kept->input, NULL, SLICE, SPLICE_F_NONBLOCK);

	(void)events;
	if (n < 0 && errno == EINVAL)
		n = copy(watch->fd, task->kept->input);
	if (n > 0 || (n < 0 && errno == EINTR))
		return;
	if (n < 0 && errno == EAGAIN) {
		if (ioctl(watch->fd, FIONREAD, &waiting) == 0 && waiting > 0) { /* the program does not read */
			shim_unwatch(watch);
			shim_watch(&task->target, EPOLLOUT);
		}
		return;
	}
	if (n < 0)
		feed_close(task); /* nobody will read it */
	else
		source_ended(task);
}

static void target_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;

	shim_unwatch(watch);
	if (events & EPOLLERR)
		feed_close(task);
	else if (task->source.fd >= 0)
		shim_watch(&task->source, EPOLLIN);
}

/* Begins as soon as there is both a client's input and a place for it. */
void feed_begin(struct pn_task *task)
{
	struct kept_task *kept = task->kept;

	if (kept->source < 0 || kept->input < 0 || task->source.armed)
		return;
	set_nonblocking(kept->source);
	set_nonblocking(kept->input);
	task->source = (struct pn_watch){ .fd = kept->source, .bulk = true, .ready = source_ready, .owner = task };
	task->target = (struct pn_watch){ .fd = kept->input, .bulk = true, .ready = target_ready, .owner = task };
	shim_watch(&task->source, EPOLLIN);
}

void feed_attach(struct pn_task *task, int fd)
{
	if (task->kept->input < 0 || task->kept->source >= 0) {
		close(fd); /* the program's stdin is closed, or another client has it */
		return;
	}
	KEEP(task->kept->source, store_fd_up(fd));
	feed_begin(task);
}
