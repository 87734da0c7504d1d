/* The logs: a thread that takes output out of the store, encodes it and writes it, so that no disk, slow, full or
 * frozen, holds up the loop. At most one write for what is there at a time.
 *
 * Who may touch what: the queue and the flags of a pn_log under `lock`; chunks from `logged` on are not freed while a
 * log is running; the file is the writer's. A write is announced in the store before and confirmed after, so that a
 * successor knows by the file's size whether it happened; steps of a rotation likewise.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OUT_BYTES 262144
#define MOST_SEGMENTS 4
#define WRITER_STACK 131072

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct pn_log *first, *last; /* the queue */
static struct pn_log *ready;
static pthread_t writer;
static bool has_writer, stopping, stopped;
static char out[OUT_BYTES];

void log_lock(void)
{
	pthread_mutex_lock(&lock);
}

void log_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* ---- lines out of chunks (the writer) ---- */

struct segment {
	const uint8_t *bytes;
	uint32_t size, offset; /* offset: of bytes within the chunk */
	const struct kept_chunk *chunk;
};

/* One stream's bytes that are not in the log yet. */
struct cursor {
	struct segment seg[MOST_SEGMENTS];
	uint32_t nseg, at, off;
	uint64_t pos;
	bool final; /* nothing follows: a line without end is complete */
	uint8_t joined[LINE_MAX_BYTES];
	/* the entry found */
	const uint8_t *line;
	uint32_t size, next_at, next_off;
	uint64_t next_pos;
	bool found, newline;
	int64_t time;
};

static struct cursor cursors[2];

/* Under the lock. */
static void open_cursor(struct cursor *c, const struct kept_stream *stream, bool final)
{
	uint64_t pos = stream->logged;
	uint32_t i = stream->head;

	c->nseg = c->at = c->off = 0;
	c->pos = pos;
	c->found = false;
	for (; i && c->nseg < MOST_SEGMENTS; i = store->chunks[i].next) {
		const struct kept_chunk *chunk = &store->chunks[i];
		uint32_t size = KEPT(chunk->size), skip;

		if (pos >= chunk->start + size)
			continue;
		skip = (uint32_t)(pos - chunk->start);
		c->seg[c->nseg++] = (struct segment){ store->data[i] + skip, size - skip, skip, chunk };
		pos = chunk->start + size;
	}
	c->final = final && i == 0;
}

static int64_t arrival(const struct segment *seg, uint32_t off)
{
	const struct kept_chunk *chunk = seg->chunk;
	uint32_t byte = seg->offset + off, i = 0;

	while (i + 1 < chunk->nmarks && chunk->mark[i] <= byte)
		i++;
	return chunk->time[i];
}

static bool entry_found(struct cursor *c, const uint8_t *line, uint32_t size, bool newline, uint32_t at, uint32_t off)
{
	c->line = line;
	c->size = size;
	c->newline = newline;
	c->next_at = at;
	c->next_off = off;
	c->next_pos = c->pos + size + newline;
	c->time = arrival(&c->seg[at], off - 1);
	return c->found = true;
}

/* The next line, or the piece of a long one; copied only where it lies in two chunks. */
static bool next_entry(struct cursor *c)
{
	uint32_t size = 0, off = c->off, at;

	if (c->found)
		return true;
	for (at = c->at; at < c->nseg; at++, off = 0) {
		const uint8_t *bytes = c->seg[at].bytes + off;
		uint32_t have = c->seg[at].size - off, room = LINE_MAX_BYTES - size, n = have < room ? have : room;
		const uint8_t *end = memchr(bytes, '\n', n);
		uint32_t len = end ? (uint32_t)(end - bytes) : n;
		bool whole = end || n == room;

		if (size == 0 && whole)
			return entry_found(c, bytes, len, end, at, off + len + !!end);
		memcpy(c->joined + size, bytes, len);
		size += len;
		if (whole)
			return entry_found(c, c->joined, size, end, at, off + len + !!end);
	}
	if (size == 0 || !c->final)
		return false;
	return entry_found(c, c->joined, size, false, c->nseg - 1, c->seg[c->nseg - 1].size);
}

static void take_entry(struct cursor *c)
{
	c->at = c->next_at;
	c->off = c->next_off;
	c->pos = c->next_pos;
	c->found = false;
}

/* Of two streams the older entry. */
static int pick(void)
{
	bool has[2] = { next_entry(&cursors[0]), next_entry(&cursors[1]) };

	if (has[0] && has[1])
		return cursors[1].time < cursors[0].time;
	return has[0] ? 0 : has[1] ? 1 : -1;
}

/* Entries into `out`, as many as fit there and into the file; full says that the file has no room for the next. */
static size_t encode(const struct pn_log_options *options, uint64_t file_size, bool *full)
{
	size_t filled = 0;
	int i;

	*full = false;
	while ((i = pick()) >= 0) {
		struct cursor *c = &cursors[i];
		size_t n;

		if (filled + 6 * (size_t)c->size + ENTRY_OVERHEAD > sizeof(out))
			break;
		n = encode_entry(options->driver, out + filled, c->line, c->size, c->newline, i, c->time);
		if (options->max_size && file_size + filled && file_size + filled + n > options->max_size) {
			*full = true;
			break;
		}
		take_entry(c);
		filled += n;
	}
	return filled;
}

/* ---- the file (the writer) ---- */

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

/* Was the write done that a predecessor had announced? The file's size tells: nobody else writes to it. */
static void finish_write(struct pn_log *log)
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

/* Ready to be appended to; its size, or -1. */
static int64_t ready_file(struct pn_log *log)
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

static void rotate(struct pn_log *log)
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
static void write_whole(int fd, const char *bytes, size_t size, int64_t start)
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

/* ---- one turn of the writer: called and left with the lock held ---- */

static void confirm(struct kept_task *task)
{
	for (int i = 0; i < 2; i++)
		if (task->stream[i].logged < cursors[i].pos)
			KEEP(task->stream[i].logged, cursors[i].pos);
	KEEP(task->log.length, 0);
}

static void announce(struct kept_task *task, int64_t start, size_t length)
{
	task->log.start = (uint64_t)start;
	task->log.next[0] = cursors[0].pos;
	task->log.next[1] = cursors[1].pos;
	KEEP(task->log.length, length);
}

/* true when there may be more to do. */
static bool write_some(struct pn_log *log)
{
	struct kept_task *task = log->task->kept;
	int64_t size;
	size_t filled;
	bool full;

	if (task->log.length) { /* a predecessor's; before anything is read */
		log_unlock();
		ready_file(log);
		log_lock();
		if (log->fd >= 0)
			finish_write(log);
		KEEP(task->log.length, 0);
	}
	for (int i = 0; i < 2; i++)
		open_cursor(&cursors[i], &task->stream[i], log->final);
	log_unlock();
	if (pick() < 0) {
		log_lock();
		return false;
	}
	size = ready_file(log);
	filled = encode(&task->log.options, size < 0 ? 0 : (uint64_t)size, &full);
	if (full && filled == 0 && size > 0) {
		rotate(log);
		log_lock();
		return true;
	}
	log_lock();
	announce(task, size < 0 ? 0 : size, filled);
	log->writing = true;
	log_unlock();
	if (size >= 0)
		write_whole(log->fd, out, filled, size);
	log_lock();
	log->writing = false;
	confirm(task);
	return true;
}

static bool all_written(const struct pn_log *log)
{
	const struct pn_task *task = log->task;

	return log->final && task->kept->stream[0].logged >= task->stream[0].in &&
	       task->kept->stream[1].logged >= task->stream[1].in;
}

static void enqueue(struct pn_log *log)
{
	if (log->queued)
		return;
	log->queued = true;
	log->next = NULL;
	if (first)
		last->next = log;
	else
		first = log;
	last = log;
	pthread_cond_signal(&work);
}

/* Has the loop look at it. */
static void make_ready(struct pn_log *log)
{
	if (log->ready)
		return;
	log->ready = true;
	log->next_ready = ready;
	ready = log;
	shim_kick();
}

static void serve_log(struct pn_log *log)
{
	first = log->next;
	log->queued = false;
	log->running = true;
	if (write_some(log)) {
		enqueue(log);
	} else if (!log->queued && all_written(log)) { /* else it has been woken again, and is still in the queue */
		pn_close(&log->fd);
		log->finished = true;
		make_ready(log);
	}
	log->running = false;
	if (log->wanted)
		make_ready(log);
}

static void *write_logs(void *unused)
{
	(void)unused;
	log_lock();
	while (!stopping) {
		if (first)
			serve_log(first);
		else
			pthread_cond_wait(&work, &lock);
	}
	stopped = true;
	log_unlock();
	shim_kick();
	return NULL;
}

/* ---- for the loop ---- */

void log_reset(void)
{
	first = last = ready = NULL;
	has_writer = stopping = stopped = false;
}

/* Made when the first output arrives. Its signals are all blocked, as the loop's are. */
void log_start_writer(void)
{
	pthread_attr_t attr;

	if (has_writer)
		return;
	stopping = stopped = false;
	if (!first)
		return;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, WRITER_STACK);
	has_writer = pthread_create(&writer, &attr, write_logs, NULL) == 0;
	pthread_attr_destroy(&attr);
}

/* It may be in a write that takes for ever: nobody waits for it. */
bool log_stop_writer(void)
{
	bool done;

	if (!has_writer)
		return true;
	log_lock();
	stopping = true;
	done = stopped;
	pthread_cond_signal(&work);
	log_unlock();
	if (!done)
		return false;
	pthread_join(writer, NULL);
	has_writer = false;
	return true;
}

void log_begin(struct pn_task *task)
{
	struct kept_log *kept = &task->kept->log;

	task->log.task = task;
	task->log.active = kept->directory >= 0 && kept->options.driver != PN_LOG_NONE;
	task->log.held = task_older_drains(task->kept->key, task);
	if (task->log.active && kept->length)
		log_wake(task);
}

void log_wake(struct pn_task *task)
{
	if (!task->log.active || task->log.held)
		return;
	log_lock();
	if (!task->log.finished)
		enqueue(&task->log);
	log_unlock();
	if (!stopping)
		log_start_writer();
}

void log_end(struct pn_task *task)
{
	log_lock();
	task->log.final = true;
	log_unlock();
	log_wake(task);
}

void log_want_room(struct pn_task *task)
{
	log_lock();
	task->log.wanted = true;
	log_unlock();
}

void log_release_held(const char *key)
{
	struct pn_task *task = task_find(key);

	if (!task || !task->log.held || task_older_drains(key, task))
		return;
	task->log.held = false;
	log_wake(task);
}

static struct pn_log *next_ready(void)
{
	struct pn_log *log;

	log_lock();
	log = ready;
	if (log) {
		ready = log->next_ready;
		log->ready = log->wanted = false;
	}
	log_unlock();
	return log;
}

void log_take_ready(void)
{
	struct pn_log *log;

	while ((log = next_ready())) {
		struct pn_task *task = log->task;
		char key[PN_KEY_MAX];

		memcpy(key, task->kept->key, sizeof(key));
		stream_release(&task->stream[0]);
		stream_release(&task->stream[1]);
		task_progress(task);
		log_release_held(key);
	}
}

/* Only a log that is finished, or never began, is forgotten: its task waits for it. */
void log_forget(struct pn_task *task)
{
	struct pn_log **at = &ready;

	log_lock(); /* the writer may be just leaving it */
	while (*at && *at != &task->log)
		at = &(*at)->next_ready;
	if (*at)
		*at = task->log.next_ready;
	log_unlock();
	pn_close(&task->log.fd);
	task->log.active = false;
}

/* Non-blocking mode: the oldest lines make room, unless the writer is reading them just now. */
void log_drop_oldest(struct pn_stream *stream)
{
	const struct pn_log *log = &stream->task->log;
	const struct pn_log_options *options = &stream->task->kept->log.options;
	uint64_t keep_from;

	if (options->mode != PN_LOG_NON_BLOCKING || stream->in - KEPT(stream->kept->logged) <= options->max_buffer)
		return;
	keep_from = stream->in - options->max_buffer;
	log_lock();
	for (uint32_t c = stream->kept->head; c && (!log->running || log->writing); c = store->chunks[c].next) {
		const struct kept_chunk *chunk = &store->chunks[c];
		uint64_t end = chunk->start + chunk->size;
		uint64_t from = keep_from > chunk->start ? keep_from : chunk->start;
		const uint8_t *newline;

		if (keep_from >= end)
			continue;
		newline = memchr(store->data[c] + (from - chunk->start), '\n', (size_t)(end - from));
		if (!newline && end - from < LINE_MAX_BYTES && chunk->next)
			continue; /* the line goes on in the next one */
		if (newline)
			keep_from = chunk->start + (uint64_t)(newline - store->data[c]) + 1;
		if (stream->kept->logged < keep_from)
			KEEP(stream->kept->logged, keep_from);
		break;
	}
	log_unlock();
}
