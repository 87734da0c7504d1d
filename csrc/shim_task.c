/* The shim's tasks: from the clone to the moment when everybody who waited has been told.
 *
 * A task is one program, a container's or an exec's. After that the file in its record directory is the memory; what
 * clients or the log have not taken yet goes on without the key.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOG_PATIENCE 2000000000LL /* as long as dockerd waits for the streams of a container that has ended */

struct pn_task *task_buckets[TASK_BUCKETS];
static struct pn_task *aside; /* whose exit code, log or output is awaited */
static unsigned int living;

/* ---- the table ---- */

static struct pn_task **bucket(const char *key)
{
	uint32_t hash = 2166136261u;

	while (*key)
		hash = (hash ^ (unsigned char)*key++) * 16777619u;
	return &task_buckets[hash % TASK_BUCKETS];
}

struct pn_task *task_find(const char *key)
{
	struct pn_task *task = *bucket(key);

	while (task && (task->told || strcmp(task->kept->key, key) != 0))
		task = task->next;
	return task;
}

/* Whether output of an earlier run of the key is still on its way to the same files. */
bool task_older_drains(const char *key, const struct pn_task *than)
{
	for (struct pn_task *t = *bucket(key); t; t = t->next)
		if (t != than && t->told && t->log.active && !t->log.finished && strcmp(t->kept->key, key) == 0)
			return true;
	return false;
}

/* Those that run, or are not told yet. */
unsigned int task_count(void)
{
	unsigned int unread = 0;

	for (const struct pn_task *task = aside; task; task = task->next_aside)
		unread += task->kept->state == KEPT_ENDED;
	return living - unread;
}

static void put_aside(struct pn_task *task)
{
	if (task->aside)
		return;
	task->aside = true;
	task->next_aside = aside;
	aside = task;
}

static void take_from_aside(struct pn_task *task)
{
	struct pn_task **at = &aside;

	if (!task->aside)
		return;
	while (*at != task)
		at = &(*at)->next_aside;
	*at = task->next_aside;
	task->aside = false;
}

void task_free(struct pn_task *task)
{
	struct kept_task *kept = task->kept;
	struct pn_task **at = bucket(kept->key);
	char key[PN_KEY_MAX];

	while (*at != task)
		at = &(*at)->next;
	*at = task->next;
	take_from_aside(task);
	while (task->waiters)
		waiter_free(task->waiters);
	spawn_forget(kept);
	feed_close(task);
	for (int i = 0; i < 2; i++) {
		stream_drop_sinks(&task->stream[i]);
		shim_close(&task->stream[i].watch, &kept->stream[i].fd);
	}
	log_forget(task);
	shim_close(&task->pidfd, &kept->pidfd);
	shim_close(&task->report, &kept->report);
	for (uint32_t cell = kept->holds; cell; cell = store->cells[cell].next)
		shim_close_kept(&store->cells[cell].fd);
	if (!kept->started && kept->record_file >= 0)
		unlinkat(kept->record, "exit.tmp", 0); /* reserved in vain */
	shim_close_kept(&kept->record);
	shim_close_kept(&kept->record_file);
	shim_close_kept(&kept->cgroup);
	shim_close_kept(&kept->log.directory);
	memcpy(key, kept->key, sizeof(key));
	store_free_task(kept);
	free(task->trace);
	free(task);
	shim_busy--;
	living--;
	log_release_held(key);
}

/* ---- answers ---- */

static void answer_start(struct pn_task *task, struct pn_waiter *waiter)
{
	struct pn_frame frame = { .kind = PN_FRAME_SPAWNED, .serial = waiter->serial, .received = waiter->received };

	if (task->kept->started) {
		frame.value = task->kept->pid;
		shim_reply(waiter->conn, &frame, task->trace, task->trace ? sizeof(*task->trace) : 0);
		return;
	}
	frame.kind = PN_FRAME_ERROR;
	shim_reply(waiter->conn, &frame, &task->kept->error, sizeof(task->kept->error));
}

static void answer_exit(struct pn_task *task, struct pn_waiter *waiter)
{
	struct pn_frame frame = { .kind = PN_FRAME_EXITED,
				  .serial = waiter->serial,
				  .arg = task->kept->code,
				  .value = task->kept->finished };

	shim_reply(waiter->conn, &frame, NULL, 0);
}

/* How many were told. */
static unsigned int answer_all(struct pn_task *task, enum pn_awaited what)
{
	unsigned int told = 0;

	for (struct pn_waiter *w = task->waiters, *next; w; w = next) {
		next = w->next_of_task;
		if (w->what != what)
			continue;
		if (what == AWAITS_START)
			answer_start(task, w);
		else
			answer_exit(task, w);
		waiter_free(w);
		told++;
	}
	return told;
}

void task_answer_spawn(struct pn_task *task)
{
	answer_all(task, AWAITS_START);
}

/* ---- the end of a task ---- */

static bool output_done(const struct pn_task *task)
{
	return stream_taken(&task->stream[0]) && stream_taken(&task->stream[1]) &&
	       (!task->log.active || task->log.finished);
}

static void close_holds(struct kept_task *kept)
{
	for (uint32_t cell = kept->holds; cell; cell = store->cells[cell].next)
		shim_close_kept(&store->cells[cell].fd);
}

/* Somebody may have made room. */
static void record_again(struct pn_task *task)
{
	if (task->recorded || task->kept->state != KEPT_ENDED)
		return;
	task->recorded = exit_write_record(task->kept);
}

static void tell(struct pn_task *task)
{
	bool readable = !task->kept->started || task->recorded || task->kept->record < 0;
	unsigned int told;

	close_holds(task->kept);
	answer_all(task, AWAITS_START);
	told = answer_all(task, AWAITS_EXIT);
	if (!readable && !told) { /* kept until somebody has asked */
		KEEP(task->kept->state, KEPT_ENDED);
		return;
	}
	task->told = true;
	KEEP(task->kept->state, KEPT_DRAINING);
}

void task_progress(struct pn_task *task)
{
	if (!task->ending)
		return;
	record_again(task);
	if (!task->told && (output_done(task) || shim_now(CLOCK_MONOTONIC) >= task->told_by))
		tell(task);
	if (task->told && output_done(task) && !task->stream[0].sinks && !task->stream[1].sinks)
		task_free(task);
	else if (!task->told)
		put_aside(task);
	else
		take_from_aside(task);
}

static void begin_ending(struct pn_task *task)
{
	struct kept_task *kept = task->kept;

	task->told_by = shim_now(CLOCK_MONOTONIC) + LOG_PATIENCE;
	shim_unwatch(&task->pidfd);
	if (!task->told) { /* else a predecessor has done this */
		if (kept->cgroup >= 0)
			exit_kill_cgroup(kept->cgroup);
		if (kept->started)
			task->recorded = exit_write_record(kept);
	}
	feed_close(task);
	stream_finish(&task->stream[0]);
	stream_finish(&task->stream[1]);
	if (stream_taken(&task->stream[0]) && stream_taken(&task->stream[1]))
		log_end(task); /* else when the last slice is taken */
	task->ending = true;   /* last: what closes above must not free it */
}

static void try_to_end(struct pn_task *task)
{
	if (exit_collect(task)) {
		report_finish(task);
		begin_ending(task);
		task_progress(task);
	} else {
		put_aside(task);
	}
}

static void pidfd_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;
	int fd = watch->fd;

	(void)events;
	if (task->report.fd >= 0)
		report_drain(task);
	if (task->pidfd.fd != fd)
		return; /* that was the first half of a fork */
	shim_unwatch(watch);
	try_to_end(task);
}

/* ---- exits that the keeper has collected ---- */

static void note_exit(const struct kept_exit *exited)
{
	for (uint32_t i = 1; i < store->ntasks; i++) {
		struct kept_task *kept = &store->tasks[i];

		if (kept->pid != exited->pid || kept->exited ||
		    (kept->state != KEPT_RUNNING && kept->state != KEPT_SPAWNING))
			continue;
		kept->code = exited->code;
		kept->finished = exited->finished;
		KEEP(kept->exited, 1);
		return;
	}
}

void task_take_exits(void)
{
	if (KEPT(store->exits_in) == store->exits_out)
		return;
	/* a fork's second half is known by its report only, which came before its end */
	for (int b = 0; b < TASK_BUCKETS; b++)
		for (struct pn_task *t = task_buckets[b]; t; t = t->next)
			if (t->report.fd >= 0)
				report_drain(t);
	while (KEPT(store->exits_in) != store->exits_out) {
		note_exit(&store->exits[store->exits_out % STORE_EXITS]);
		KEEP(store->exits_out, store->exits_out + 1);
	}
}

void task_look_aside(void)
{
	task_take_exits();
	for (struct pn_task *task = aside, *next; task; task = next) {
		next = task->next_aside;
		if (task->ending)
			task_progress(task);
		else if (exit_collect(task))
			try_to_end(task);
	}
}

/* An exit that only its new parent can tell has no event of its own: it is looked for again. */
int64_t task_next_deadline(void)
{
	int64_t now = aside ? shim_now(CLOCK_MONOTONIC) : 0, next = 0;

	for (const struct pn_task *task = aside; task; task = task->next_aside) {
		int64_t at = !task->ending ? now + 10000000 : task->told_by;

		if (task->kept->state == KEPT_ENDED)
			at = now + 1000000000;

		if (!next || at < next)
			next = at;
	}
	return next;
}

/* ---- beginnings ---- */

struct pn_task *task_new(struct kept_task *kept)
{
	struct pn_task *task = calloc(1, sizeof(*task));

	if (!task)
		return NULL;
	task->kept = kept;
	task->pidfd = (struct pn_watch){ .fd = -1, .ready = pidfd_ready, .owner = task };
	task->report = (struct pn_watch){ .fd = -1, .ready = report_ready, .owner = task };
	task->source.fd = task->target.fd = -1;
	for (int i = 0; i < 2; i++) {
		task->stream[i].watch.fd = -1;
		task->stream[i].task = task;
		task->stream[i].kept = &kept->stream[i];
	}
	task->log.fd = -1;
	if (kept->flags & PN_SPAWN_TRACE)
		task->trace = calloc(1, sizeof(*task->trace));
	task->next = *bucket(kept->key);
	*bucket(kept->key) = task;
	shim_busy++;
	living++;
	return task;
}

void task_begin(struct pn_task *task)
{
	struct kept_task *kept = task->kept;

	log_begin(task);
	stream_begin(&task->stream[0], task, 0);
	stream_begin(&task->stream[1], task, 1);
	task->report.fd = kept->report;
	if (task->report.fd >= 0)
		shim_watch(&task->report, EPOLLIN);
	task->pidfd.fd = kept->pidfd;
	shim_watch(&task->pidfd, EPOLLIN);
	feed_begin(task);
}

static void restore(struct kept_task *kept)
{
	struct pn_task *task = task_new(kept);

	if (!task)
		_exit(1); /* no memory: the keeper tries again */
	task->told = kept->state == KEPT_DRAINING;
	task_begin(task);
	if (kept->exited)
		put_aside(task); /* its end is told when those who wait for it are back */
}

void task_trim(void)
{
	for (int b = 0; b < TASK_BUCKETS; b++) {
		for (struct pn_task *t = task_buckets[b]; t; t = t->next) {
			stream_release(&t->stream[0]);
			stream_release(&t->stream[1]);
		}
	}
	store_trim();
}

/* After a predecessor that was killed: every task goes on from what is kept of it. */
void task_restore_all(void)
{
	memset(task_buckets, 0, sizeof(task_buckets));
	aside = NULL;
	living = 0;
	for (uint32_t i = 1; i < store->ntasks; i++) /* first: a later run of the key writes its log after these */
		if (store->tasks[i].state == KEPT_DRAINING)
			restore(&store->tasks[i]);
	for (uint32_t i = 1; i < store->ntasks; i++)
		if (store->tasks[i].state != KEPT_FREE && store->tasks[i].state != KEPT_DRAINING)
			restore(&store->tasks[i]);
}
