/* A task's output: from the program's pipe into chunks of the store, from there to attached clients (and, by the writer
 * of shim_log.c, to the log).
 *
 * One slice of at most a chunk per turn of the loop. A client that does not read holds the program back, as in Docker,
 * until the program has ended: from then on what is left is kept for it and nobody else waits. Output of which no copy
 * is needed goes straight from pipe to pipe.
 *
 * Bytes are never in this process alone. Both ways lead through a pipe that only we touch (store->take, store->give),
 * so that a successor can tell by what is left in there how far a step had come.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define WINDOW (2 * CHUNK_SIZE)     /* bytes that may wait for a client */
#define LOG_WINDOW (8 * CHUNK_SIZE) /* and for the log: its writer takes turns with others for the CPU */
#define BUSY_PIPE (4 * CHUNK_SIZE)  /* capacity of the pipe of a program that has filled it */
#define MOST_CHUNKS 12              /* beyond that bytes share a time of arrival */

#define MOST_LEFT (1 << 20) /* bytes that a terminal's survivors may still add */

enum { OPEN, ENDING, TAKEN }; /* kept->ending */

static int bytes_waiting(int fd)
{
	int bytes = 0;

	return ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : 0;
}

static bool is_terminal(const struct pn_stream *stream)
{
	return stream->task->kept->flags & PN_SPAWN_TTY;
}

bool stream_taken(const struct pn_stream *stream)
{
	return stream->kept->ending == TAKEN;
}

/* ---- how much may wait ---- */

/* Position up to which every client has the bytes. */
static uint64_t slowest_client(const struct pn_stream *stream)
{
	uint64_t pos = stream->in;

	for (const struct pn_sink *s = stream->sinks; s; s = s->next)
		if (store->cells[s->cell].pos < pos)
			pos = store->cells[s->cell].pos;
	return pos;
}

static uint64_t slowest(const struct pn_stream *stream)
{
	const struct pn_log *log = &stream->task->log;
	uint64_t pos = slowest_client(stream);

	if (log->active && !log->finished && KEPT(stream->kept->logged) < pos)
		pos = KEPT(stream->kept->logged);
	return pos;
}

/* Bytes that only a non-blocking log misses hold nobody up. */
static bool has_room(const struct pn_stream *stream)
{
	const struct pn_log *log = &stream->task->log;
	bool waits = log->active && !log->finished && stream->task->kept->log.options.mode == PN_LOG_BLOCKING;

	return stream->kept->ending == ENDING || (stream->in - slowest_client(stream) < WINDOW &&
						  (!waits || stream->in - KEPT(stream->kept->logged) < LOG_WINDOW));
}

static void watch_source(struct pn_stream *stream)
{
	/* a pty whose other end nobody has open says so for ever: it is told about changes only */
	if (stream->watch.fd >= 0)
		shim_watch(&stream->watch, is_terminal(stream) ? EPOLLIN | EPOLLET : EPOLLIN);
}

void stream_release(struct pn_stream *stream)
{
	uint64_t pos = slowest(stream);

	log_lock(); /* the writer walks the list */
	while (stream->kept->head) {
		uint32_t index = stream->kept->head;
		struct kept_chunk *chunk = &store->chunks[index];

		if (chunk->start + chunk->size > pos || (chunk->next == 0 && pos < stream->in))
			break;
		KEEP(stream->kept->base, chunk->start + chunk->size);
		KEEP(stream->kept->head, chunk->next);
		if (!chunk->next)
			stream->tail = 0;
		stream->nchunks--;
		store_free_chunk(index);
	}
	log_unlock();
	if (stream->watch.fd >= 0 && !stream->watch.armed && has_room(stream))
		watch_source(stream);
}

/* ---- from the program ---- */

static void stream_closed(struct pn_stream *stream)
{
	shim_close(&stream->watch, &stream->kept->fd);
	KEEP(stream->kept->ending, TAKEN);
	log_wake(stream->task);
	if (stream_taken(&stream->task->stream[0]) && stream_taken(&stream->task->stream[1]))
		log_end(stream->task);
	for (struct pn_sink *s = stream->sinks, *next; s; s = next) {
		next = s->next;
		sink_push(s);
	}
	stream_release(stream);
	task_progress(stream->task);
}

/* A chunk with room for more bytes and their time; 0 when there is no memory. */
static uint32_t open_chunk(struct pn_stream *stream)
{
	struct kept_chunk *tail = stream->tail ? &store->chunks[stream->tail] : NULL;
	uint32_t index;

	if (tail && tail->size < CHUNK_SIZE && (tail->nmarks < STORE_MARKS || stream->nchunks >= MOST_CHUNKS))
		return stream->tail;
	index = store_new_chunk(stream->in);
	if (!index)
		return 0;
	log_lock();
	if (tail)
		KEEP(tail->next, index);
	else
		KEEP(stream->kept->head, index);
	log_unlock();
	stream->tail = index;
	stream->nchunks++;
	return index;
}

static void add_bytes(struct pn_stream *stream, uint32_t index, uint32_t size)
{
	struct kept_chunk *chunk = &store->chunks[index];
	uint32_t at = chunk->nmarks < STORE_MARKS ? chunk->nmarks : STORE_MARKS - 1;

	if (at == chunk->nmarks)
		chunk->time[at] = shim_now(CLOCK_REALTIME);
	chunk->mark[at] = chunk->size + size;
	chunk->nmarks = at + 1;
	stream->in += size;
	KEEP(chunk->size, chunk->size + size);
}

/* One slice into a chunk: bytes taken, 0 at the end, -errno. */
static ssize_t take(struct pn_stream *stream, size_t most)
{
	struct kept_transfer *t = &store->taking;
	uint32_t index = open_chunk(stream);
	struct kept_chunk *chunk = &store->chunks[index];
	size_t room = CHUNK_SIZE - chunk->size;
	ssize_t n, got = 0;

	if (!index)
		return -ENOMEM;
	t->bytes = 0;
	t->from = chunk->size;
	KEEP(t->busy, index);
	n = splice(stream->watch.fd, NULL, store->take[1], NULL, room < most ? room : most, SPLICE_F_NONBLOCK);
	if (n > 0) {
		KEEP(t->bytes, (uint32_t)n);
		while (got < n) {
			ssize_t r = read(store->take[0], store->data[index] + t->from + got, (size_t)(n - got));

			if (r <= 0)
				abort(); /* the memory is ours: the keeper's next shim tries again */
			got += r;
		}
		add_bytes(stream, index, (uint32_t)n);
	} else if (n < 0) {
		n = -errno;
	}
	KEEP(t->busy, 0);
	return n;
}

/* Where no copy is needed: from the program's pipe into its only reader's, or to nowhere. -ENOTSUP: not here. */
static ssize_t pass_on(struct pn_stream *stream, size_t most)
{
	struct pn_sink *sink = stream->sinks;
	ssize_t n;

	if (stream->task->log.active || is_terminal(stream) || (sink && (sink->next || sink->indirect)) ||
	    stream->kept->ending != OPEN || stream->in != slowest(stream))
		return -ENOTSUP;
	n = splice(stream->watch.fd, NULL, sink ? sink->watch.fd : store->devnull, NULL, most, SPLICE_F_NONBLOCK);
	if (n >= 0)
		return n;
	if (errno == EAGAIN && sink && bytes_waiting(stream->watch.fd) > 0) {
		shim_unwatch(&stream->watch); /* it is the client's pipe that is full */
		shim_watch(&sink->watch, EPOLLOUT);
		return -EAGAIN;
	}
	if (errno == EPIPE && sink) {
		sink_free(sink);
		return -EAGAIN;
	}
	if (errno == EINVAL && sink) {
		sink->indirect = true;
		return -ENOTSUP;
	}
	return -errno;
}

static void hand_out(struct pn_stream *stream)
{
	struct pn_log *log = &stream->task->log;

	log_wake(stream->task);
	for (struct pn_sink *s = stream->sinks, *next; s; s = next) {
		next = s->next;
		if (!s->watch.armed)
			sink_push(s);
	}
	if (log->active) {
		log_drop_oldest(stream);
		store_untrimmed = true; /* nobody tells when the last bytes are written */
	}
	stream_release(stream);
	if (!has_room(stream)) {
		shim_unwatch(&stream->watch);
		log_want_room(stream->task);
		stream_release(stream); /* it may have become free just now */
	}
}

static void count_left(struct pn_stream *stream, ssize_t taken)
{
	if (stream->kept->ending != ENDING)
		return;
	stream->kept->left -= taken;
	if (stream->kept->left <= 0)
		stream_closed(stream);
}

static void stream_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_stream *stream = watch->owner;
	size_t most = CHUNK_SIZE;
	ssize_t n;

	(void)events;
	if (stream->kept->ending == ENDING && (uint64_t)stream->kept->left < most)
		most = (size_t)stream->kept->left;
	n = pass_on(stream, most);
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	if (n == -ENOTSUP) {
		n = take(stream, most);
		if ((n == -EAGAIN && stream->kept->ending == OPEN) || n == -EINTR || n == -ENOMEM)
			return;
		if (n > 0) {
			if (is_terminal(stream))
				watch_source(stream); /* asks again whether there is more */
			else if (n == CHUNK_SIZE && !stream->enlarged)
				stream->enlarged = fcntl(stream->watch.fd, F_SETPIPE_SZ, BUSY_PIPE) > 0;
			hand_out(stream);
			count_left(stream, n);
			return;
		}
	}
	/* a pty with nobody at its other end: somebody may open it again, until the task has ended */
	if (n == -EIO && is_terminal(stream) && stream->kept->ending == OPEN)
		return;
	stream_closed(stream);
}

/* ---- begin and end ---- */

static void restore_position(struct pn_stream *stream)
{
	stream->in = stream->kept->base;
	stream->tail = 0;
	stream->nchunks = 0;
	for (uint32_t c = stream->kept->head; c; c = store->chunks[c].next) {
		stream->in = store->chunks[c].start + store->chunks[c].size;
		stream->tail = c;
		stream->nchunks++;
	}
}

static bool awaits_terminal(const struct pn_stream *stream, int index)
{
	return index == 0 && is_terminal(stream) && stream->task->kept->report >= 0;
}

void stream_begin(struct pn_stream *stream, struct pn_task *task, int index)
{
	stream->task = task;
	stream->kept = &task->kept->stream[index];
	stream->watch =
		(struct pn_watch){ .fd = stream->kept->fd, .bulk = true, .ready = stream_ready, .owner = stream };
	restore_position(stream);
	for (uint32_t cell = stream->sinks ? 0 : stream->kept->sinks; cell; cell = store->cells[cell].next)
		if (!sink_new(stream, cell))
			_exit(1); /* no memory: the keeper tries again */
	if (stream->watch.fd < 0 && stream->kept->ending != TAKEN && !awaits_terminal(stream, index))
		KEEP(stream->kept->ending, TAKEN);
	if (stream->watch.fd >= 0) {
		fcntl(stream->watch.fd, F_SETFL, fcntl(stream->watch.fd, F_GETFL) | O_NONBLOCK);
		watch_source(stream);
	}
	for (struct pn_sink *s = stream->sinks, *next; s; s = next) {
		next = s->next;
		sink_push(s);
	}
}

/* What the program has written is there now; others that have the pipe open may write for ever. A pty cannot tell how
 * much there is, but it can tell when there is no more. */
void stream_finish(struct pn_stream *stream)
{
	struct kept_stream *kept = stream->kept;

	if (kept->ending == OPEN) {
		kept->left = kept->fd < 0 ? 0 : is_terminal(stream) ? MOST_LEFT : bytes_waiting(kept->fd);
		KEEP(kept->ending, ENDING);
	}
	if (kept->ending == ENDING && (kept->left <= 0 || kept->fd < 0))
		stream_closed(stream);
	else if (kept->ending == ENDING)
		stream_ready(&stream->watch, 0);
	if (kept->ending == ENDING && !stream->watch.armed)
		watch_source(stream);
}
