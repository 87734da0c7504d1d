/* Copying a task's output to its log and to attached clients, and a client's input to the task.
 *
 * A client that does not read holds the program back, as in Docker (the pipe fills), until the program has ended:
 * from then on what is left is kept for it and nobody else waits. Memory is used only while something is pending.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char chunk[65536];

static void set_nonblocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* ---- sinks ---- */

static void sink_free(struct pn_sink *sink)
{
	if (sink->stream) {
		struct pn_sink **at = &sink->stream->sinks;

		while (*at != sink)
			at = &(*at)->next;
		*at = sink->next;
	}
	shim_drop(&sink->watch);
	free(sink->pending);
	free(sink);
	shim_busy--;
}

static bool any_pending(const struct pn_stream *stream)
{
	for (const struct pn_sink *s = stream->sinks; s; s = s->next)
		if (s->size)
			return true;
	return false;
}

static void sink_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_sink *sink = watch->owner;
	struct pn_stream *stream = sink->stream;
	ssize_t n = write(watch->fd, sink->pending, sink->size);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		sink_free(sink);
	} else if ((size_t)n < sink->size) {
		memmove(sink->pending, sink->pending + n, sink->size - (size_t)n);
		sink->size -= (size_t)n;
		return;
	} else {
		free(sink->pending);
		sink->pending = NULL;
		sink->size = 0;
		shim_unwatch(watch);
		if (!stream)
			sink_free(sink);
	}
	if (stream && stream->watch.fd >= 0 && !any_pending(stream))
		shim_watch(&stream->watch, EPOLLIN);
}

/* Remembers what the client did not take; a client for which there is no memory is let go. */
static bool sink_keep(struct pn_sink *sink, const char *bytes, size_t size)
{
	char *grown = realloc(sink->pending, sink->size + size);

	if (!grown)
		return false;
	memcpy(grown + sink->size, bytes, size);
	sink->pending = grown;
	sink->size += size;
	shim_watch(&sink->watch, EPOLLOUT);
	return true;
}

static void sink_write(struct pn_sink *sink, const char *bytes, size_t size)
{
	ssize_t n = sink->size ? 0 : write(sink->watch.fd, bytes, size);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		sink_free(sink);
		return;
	}
	if (n < 0)
		n = 0;
	if ((size_t)n < size && !sink_keep(sink, bytes + n, size - (size_t)n))
		sink_free(sink);
}

void stream_attach(struct pn_stream *stream, int fd)
{
	struct pn_sink *sink = calloc(1, sizeof(*sink));

	if (!sink || stream->watch.fd < 0) {
		free(sink);
		close(fd);
		return;
	}
	set_nonblocking(fd);
	sink->watch = (struct pn_watch){ .fd = fd, .ready = sink_ready, .owner = sink };
	sink->stream = stream;
	sink->next = stream->sinks;
	stream->sinks = sink;
	shim_busy++;
}

/* ---- streams ---- */

static void stream_deliver(struct pn_stream *stream, const char *bytes, size_t size)
{
	log_chunk(stream, bytes, size);
	for (struct pn_sink *s = stream->sinks, *next; s; s = next) {
		next = s->next;
		sink_write(s, bytes, size);
	}
}

static void stream_close(struct pn_stream *stream)
{
	log_end(stream);
	shim_drop(&stream->watch);
	while (stream->sinks) {
		struct pn_sink *sink = stream->sinks;

		stream->sinks = sink->next;
		sink->stream = NULL;
		if (!sink->size)
			sink_free(sink);
	}
}

static void stream_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_stream *stream = watch->owner;
	ssize_t n = read(watch->fd, chunk, sizeof(chunk));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* a pty whose other end is closed answers EIO */
		stream_close(stream);
		return;
	}
	stream_deliver(stream, chunk, (size_t)n);
	if (any_pending(stream))
		shim_unwatch(watch);
}

void stream_open(struct pn_stream *stream, struct pn_task *task, const char *name, int fd)
{
	stream->task = task;
	stream->name = name;
	stream->watch = (struct pn_watch){ .fd = fd, .ready = stream_ready, .owner = stream };
	if (fd >= 0) {
		set_nonblocking(fd);
		shim_watch(&stream->watch, EPOLLIN);
	}
}

void stream_finish(struct pn_stream *stream)
{
	ssize_t n;

	while (stream->watch.fd >= 0) {
		n = read(stream->watch.fd, chunk, sizeof(chunk));
		if (n <= 0)
			break;
		stream_deliver(stream, chunk, (size_t)n);
	}
	stream_close(stream);
}

/* ---- input ---- */

void feed_close(struct pn_task *task)
{
	shim_drop(&task->feed.source);
	shim_unwatch(&task->feed.target);
	task->feed.target.fd = -1;
	free(task->feed.pending);
	task->feed.pending = NULL;
	task->feed.size = 0;
	pn_close(&task->input);
}

static void feed_ended(struct pn_task *task)
{
	shim_drop(&task->feed.source);
	if ((task->flags & PN_SPAWN_STDIN_ONCE) && !(task->flags & PN_SPAWN_TTY) && !task->feed.size)
		feed_close(task);
}

static void target_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;
	struct pn_feed *feed = &task->feed;
	ssize_t n = write(watch->fd, feed->pending, feed->size);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		feed_close(task);
		return;
	}
	memmove(feed->pending, feed->pending + n, feed->size - (size_t)n);
	feed->size -= (size_t)n;
	if (feed->size)
		return;
	shim_unwatch(watch);
	if (feed->source.fd >= 0)
		shim_watch(&feed->source, EPOLLIN);
	else
		feed_ended(task);
}

static void source_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;
	struct pn_feed *feed = &task->feed;
	ssize_t n = read(watch->fd, chunk, 4096), w;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		feed_ended(task);
		return;
	}
	w = write(task->input, chunk, (size_t)n);
	if (w < 0 && errno != EAGAIN && errno != EINTR) {
		feed_close(task);
		return;
	}
	if (w == n)
		return;
	if (w < 0)
		w = 0;
	feed->pending = malloc((size_t)(n - w));
	if (!feed->pending) {
		feed_close(task);
		return;
	}
	memcpy(feed->pending, chunk + w, (size_t)(n - w));
	feed->size = (size_t)(n - w);
	shim_unwatch(watch);
	shim_watch(&feed->target, EPOLLOUT);
}

void feed_attach(struct pn_task *task, int fd)
{
	if (task->input < 0 || task->feed.source.fd >= 0) {
		close(fd); /* the program's stdin is closed, or another client has it */
		return;
	}
	set_nonblocking(fd);
	set_nonblocking(task->input);
	task->feed.source = (struct pn_watch){ .fd = fd, .ready = source_ready, .owner = task };
	task->feed.target = (struct pn_watch){ .fd = task->input, .ready = target_ready, .owner = task };
	shim_watch(&task->feed.source, EPOLLIN);
}
