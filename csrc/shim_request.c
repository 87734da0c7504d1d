/* The requests about a task, and who waits for what. Each answers at once or leaves a waiter behind. */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ENTRIES 512

/* ---- waiters ---- */

void waiter_add(struct pn_conn *conn, struct pn_task *task, enum pn_awaited what, const struct pn_frame *frame)
{
	struct pn_waiter *waiter = calloc(1, sizeof(*waiter));

	if (!waiter) {
		shim_reply_error(conn, frame->serial, ENOMEM, PN_STEP_WAIT, "waiter");
		return;
	}
	*waiter = (struct pn_waiter){
		.next_of_task = task->waiters,
		.next_of_conn = conn->waiters,
		.task = task,
		.conn = conn,
		.what = what,
		.serial = frame->serial,
		.received = frame->received,
	};
	task->waiters = waiter;
	conn->waiters = waiter;
	if (!waiter->next_of_conn) /* a successor can go on waiting for one */
		KEEP(store->cells[conn->cell].pos,
		     owes_waiter((uint32_t)(task->kept - store->tasks), what, frame->serial));
}

void waiter_free(struct pn_waiter *waiter)
{
	struct pn_waiter **of_task = &waiter->task->waiters;
	struct pn_waiter **of_conn = &waiter->conn->waiters;

	while (*of_task != waiter)
		of_task = &(*of_task)->next_of_task;
	*of_task = waiter->next_of_task;
	while (*of_conn != waiter)
		of_conn = &(*of_conn)->next_of_conn;
	*of_conn = waiter->next_of_conn;
	conn_settle(waiter->conn);
	free(waiter);
}

/* Who knows the pid names one run by it, and is not answered for a later run of the same key. 0 is any. */
static struct pn_task *find_run(const struct pn_frame *frame)
{
	struct pn_task *task = task_find(frame->key);

	return task && (frame->value == 0 || frame->value == task->kept->pid) ? task : NULL;
}

void request_wait(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_run(frame);

	if (!task) {
		shim_reply_error(conn, frame->serial, ESRCH, PN_STEP_WAIT, "no such task");
		return;
	}
	waiter_add(conn, task, AWAITS_EXIT, frame);
	task_progress(task); /* a code that nobody has read yet */
}

/* A restarted container has its key again: whoever names a run is not answered for an earlier one. */
static bool is_run(const struct kept_task *kept, const struct pn_frame *frame)
{
	return frame->value == 0 || kept->run == (uint64_t)frame->value;
}

/* A task that has come and gone is in the store until its place is used again. */
static const struct kept_task *find_gone(const struct pn_frame *frame)
{
	for (uint32_t i = 1; i < store->ntasks; i++) {
		const struct kept_task *kept = &store->tasks[i];

		if (kept->started && strcmp(kept->key, frame->key) == 0 && is_run(kept, frame))
			return kept;
	}
	return NULL;
}

void request_started(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = task_find(frame->key);
	const struct kept_task *gone;
	struct pn_frame reply = { .kind = PN_FRAME_SPAWNED, .serial = frame->serial };

	if (task && !is_run(task->kept, frame))
		task = NULL;
	gone = task ? NULL : find_gone(frame);
	if (!task && !gone) {
		shim_reply_error(conn, frame->serial, ESRCH, PN_STEP_FRAME, "no such task");
	} else if (!task || task->kept->started) {
		reply.value = task ? task->kept->pid : gone->pid;
		shim_reply(conn, &reply, NULL, 0);
	} else {
		waiter_add(conn, task, AWAITS_START, frame);
	}
}

/* ---- a page of the list ---- */

void request_list(struct pn_conn *conn, const struct pn_frame *frame)
{
	static struct pn_task_entry entries[ENTRIES];
	struct pn_frame reply = { .kind = PN_FRAME_TASK, .serial = frame->serial };
	uint32_t n = 0;
	uint64_t at = frame->value > 0 ? (uint64_t)frame->value : 1;

	for (; at < store->ntasks && n < ENTRIES; at++) {
		const struct kept_task *kept = &store->tasks[at];

		if (kept->state != KEPT_RUNNING && kept->state != KEPT_SPAWNING)
			continue;
		memcpy(entries[n].key, kept->key, sizeof(kept->key));
		entries[n++].pid = kept->pid;
	}
	reply.value = at < store->ntasks ? (int64_t)at : 0;
	shim_reply(conn, &reply, entries, n * (uint32_t)sizeof(entries[0]));
}

/* ---- the others ---- */

static void answer(struct pn_conn *conn, const struct pn_frame *frame, int ret, const char *what)
{
	struct pn_frame reply = { .kind = PN_FRAME_OK, .serial = frame->serial };

	if (ret < 0)
		shim_reply_error(conn, frame->serial, errno, PN_STEP_FRAME, what);
	else
		shim_reply(conn, &reply, NULL, 0);
}

/* A task whose code is known already is gone, as far as these requests are concerned. */
static struct pn_task *find_or_answer(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_run(frame);

	if (task && !task->ending)
		return task;
	shim_reply_error(conn, frame->serial, ESRCH, PN_STEP_FRAME, "no such task");
	return NULL;
}

void request_signal(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);

	if (task)
		answer(conn, frame, (int)syscall(SYS_pidfd_send_signal, task->kept->pidfd, frame->arg, NULL, 0),
		       "signal");
}

/* The terminal's size is its output's, whether or not its input is still open. Before the child has made the terminal
 * the size is noted for it. */
void request_resize(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);
	struct winsize size = { .ws_row = (unsigned short)(frame->arg >> 16),
				.ws_col = (unsigned short)(frame->arg & 0xffff) };

	if (!task)
		return;
	if (!(task->kept->flags & PN_SPAWN_TTY)) {
		errno = ENOTTY;
		answer(conn, frame, -1, "resize");
	} else if (task->kept->stream[0].fd < 0) {
		task->kept->winsize = (uint32_t)frame->arg;
		answer(conn, frame, 0, "resize");
	} else {
		answer(conn, frame, ioctl(task->kept->stream[0].fd, TIOCSWINSZ, &size), "resize");
	}
}

void request_close_stdin(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);

	if (!task)
		return;
	feed_close(task);
	answer(conn, frame, 0, "stdin");
}

void request_home(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds)
{
	answer(conn, frame, home_move(fds, nfds), "exec root");
}

/* Also of a task that has ended and whose code nobody has read. */
void request_record(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds)
{
	struct pn_task *task = task_find(frame->key);

	if (!task) {
		shim_reply_error(conn, frame->serial, ESRCH, PN_STEP_FRAME, "no such task");
		return;
	}
	answer(conn, frame, home_take_record(task, fds, nfds), "record");
	task_progress(task);
}

void request_attach(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds)
{
	struct pn_task *task = find_or_answer(conn, frame);
	uint32_t at = 0;
	int in, out, err;

	if (!task)
		return;
	in = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_IN);
	out = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_OUT);
	err = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_ERR);
	if (in >= 0)
		feed_attach(task, in);
	if (out >= 0)
		stream_attach(&task->stream[0], out);
	if (err >= 0)
		stream_attach(&task->stream[1], err);
	answer(conn, frame, 0, "attach");
}
