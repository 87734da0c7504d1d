/* Attached clients: their pipes, what each still has to get, and how it gets there without a byte lost or doubled. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

void sink_free(struct pn_sink *sink)
{
	struct pn_sink **at = &sink->stream->sinks;
	uint32_t *cell = &sink->stream->kept->sinks;

	while (*at != sink)
		at = &(*at)->next;
	*at = sink->next;
	while (*cell != sink->cell)
		cell = &store->cells[*cell].next;
	KEEP(*cell, store->cells[sink->cell].next);
	shim_close(&sink->watch, &store->cells[sink->cell].fd);
	store_free_cell(sink->cell);
	free(sink);
}

void stream_drop_sinks(struct pn_stream *stream)
{
	while (stream->sinks)
		sink_free(stream->sinks);
}

static void throw_away(int pipe, size_t bytes)
{
	char scratch[4096];

	while (bytes > 0) {
		ssize_t n = read(pipe, scratch, bytes < sizeof(scratch) ? bytes : sizeof(scratch));

		if (n <= 0)
			return;
		bytes -= (size_t)n;
	}
}

/* What fits into the client's pipe, as far as one can tell: the rest would be copied in vain. */
static size_t fits(int fd, size_t size)
{
	int capacity = fcntl(fd, F_GETPIPE_SZ), used = 0;

	if (capacity <= 0 || ioctl(fd, FIONREAD, &used) < 0)
		return size;
	if (capacity - used < 4096)
		return size < 4096 ? size : 4096;
	return size < (size_t)(capacity - used) ? size : (size_t)(capacity - used);
}

/* One step towards a client; bytes delivered, or -errno. */
static ssize_t give(struct pn_sink *sink, const uint8_t *bytes, size_t size)
{
	struct kept_cell *cell = &store->cells[sink->cell];
	struct kept_transfer *t = &store->giving;
	ssize_t filled, moved;

	t->bytes = 0;
	t->from = cell->pos;
	KEEP(t->busy, sink->cell);
	filled = write(store->give[1], bytes, size);
	if (filled <= 0) {
		KEEP(t->busy, 0);
		return filled < 0 ? -errno : -EAGAIN;
	}
	KEEP(t->bytes, (uint32_t)filled);
	moved = splice(store->give[0], NULL, sink->watch.fd, NULL, (size_t)filled, SPLICE_F_NONBLOCK);
	if (moved < 0)
		moved = -errno;
	else
		KEEP(cell->pos, t->from + (uint64_t)moved);
	KEEP(t->busy, 0);
	throw_away(store->give[0], (size_t)filled - (moved > 0 ? (size_t)moved : 0));
	return moved;
}

static const uint8_t *bytes_at(const struct pn_stream *stream, uint64_t pos, size_t *ret_size)
{
	for (uint32_t c = stream->kept->head; c; c = store->chunks[c].next) {
		const struct kept_chunk *chunk = &store->chunks[c];

		if (pos >= chunk->start && pos < chunk->start + chunk->size) {
			*ret_size = (size_t)(chunk->start + chunk->size - pos);
			return store->data[c] + (pos - chunk->start);
		}
	}
	*ret_size = 0;
	return NULL;
}

bool sink_push(struct pn_sink *sink)
{
	struct kept_cell *cell = &store->cells[sink->cell];
	struct pn_stream *stream = sink->stream;

	while (cell->pos < stream->in) {
		size_t size;
		const uint8_t *bytes = bytes_at(stream, cell->pos, &size);
		ssize_t n;

		if (!bytes) { /* cannot be; a client must not stand still for ever */
			KEEP(cell->pos, stream->in);
			break;
		}
		n = give(sink, bytes, fits(sink->watch.fd, size));
		if (n == -EAGAIN || n == -EINTR || n == 0) {
			if (!sink->watch.armed)
				shim_watch(&sink->watch, EPOLLOUT);
			return true;
		}
		if (n < 0) {
			sink_free(sink);
			return false;
		}
	}
	shim_unwatch(&sink->watch);
	if (stream_taken(stream)) {
		sink_free(sink);
		return false;
	}
	return true;
}

static void sink_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_sink *sink = watch->owner;
	struct pn_stream *stream = sink->stream;
	struct pn_task *task = stream->task;

	(void)events;
	shim_unwatch(watch);
	sink_push(sink);
	stream_release(stream);
	task_progress(task);
}

struct pn_sink *sink_new(struct pn_stream *stream, uint32_t cell)
{
	struct pn_sink *sink = calloc(1, sizeof(*sink));

	if (!sink)
		return NULL;
	sink->watch =
		(struct pn_watch){ .fd = store->cells[cell].fd, .bulk = true, .ready = sink_ready, .owner = sink };
	sink->stream = stream;
	sink->cell = cell;
	sink->next = stream->sinks;
	stream->sinks = sink;
	return sink;
}

/* A client asks again when it does not know whether the shim that was killed had attached it. */
static bool is_attached(const struct pn_stream *stream, int fd)
{
	struct stat ours, theirs;

	if (fstat(fd, &theirs) < 0)
		return false;
	for (const struct pn_sink *s = stream->sinks; s; s = s->next)
		if (fstat(s->watch.fd, &ours) == 0 && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
			return true;
	return false;
}

void stream_attach(struct pn_stream *stream, int fd)
{
	uint32_t cell = stream_taken(stream) || is_attached(stream, fd) ? 0 : store_new_cell();

	if (!cell || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
		if (cell)
			store_free_cell(cell);
		close(fd);
		return;
	}
	store->cells[cell].fd = store_fd_up(fd);
	store->cells[cell].pos = stream->in;
	store->cells[cell].next = stream->kept->sinks;
	KEEP(stream->kept->sinks, cell);
	if (!sink_new(stream, cell)) {
		KEEP(stream->kept->sinks, store->cells[cell].next);
		shim_close_kept(&store->cells[cell].fd);
		store_free_cell(cell);
	}
}
