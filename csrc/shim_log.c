/* The logs: a thread that takes output out of the store, encodes it and writes it, so that no disk, slow, full or
 * frozen, holds up the loop. At most one write for what is there at a time.
 *
 * Who may touch what: the queue and the flags of a pn_log under `lock`; chunks from `logged` on are not freed while a
 * log is running; the file is the writer's. A write is announced in the store before and confirmed after, so that a
 * successor knows by the file's size whether it happened; steps of a rotation likewise.
 */
#include "shim_log.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define OUT_BYTES 262144
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

static struct cursor cursors[2];

/* Entries into `out`, as many as fit there and into the file; full says that the file has no room for the next. */
static size_t encode(const struct pn_log_options *options, uint64_t file_size, bool *full)
{
	size_t filled = 0;
	int i;

	*full = false;
	while ((i = lines_pick(cursors)) >= 0) {
		struct cursor *c = &cursors[i];
		size_t n;

		if (filled + 6 * (size_t)c->size + ENTRY_OVERHEAD > sizeof(out))
			break;
		n = encode_entry(options->driver, out + filled, c->line, c->size, c->newline, i, c->time);
		if (options->max_size && file_size + filled && file_size + filled + n > options->max_size) {
			*full = true;
			break;
		}
		lines_take(c);
		filled += n;
	}
	return filled;
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
		logfile_ready(log);
		log_lock();
		if (log->fd >= 0)
			logfile_finish_write(log);
		KEEP(task->log.length, 0);
	}
	for (int i = 0; i < 2; i++)
		lines_open(&cursors[i], &task->stream[i], log->final);
	log_unlock();
	if (lines_pick(cursors) < 0) {
		log_lock();
		return false;
	}
	size = logfile_ready(log);
	filled = encode(&task->log.options, size < 0 ? 0 : (uint64_t)size, &full);
	if (full && filled == 0 && size > 0) {
		logfile_rotate(log);
		log_lock();
		return true;
	}
	log_lock();
	announce(task, size < 0 ? 0 : size, filled);
	log->writing = true;
	log_unlock();
	if (size >= 0)
		logfile_write(log->fd, out, filled, size);
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
	if (task->log.active && (kept->length || task->kept->stream[0].head || task->kept->stream[1].head))
		log_wake(task); /* what a predecessor had announced, or only taken */
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
