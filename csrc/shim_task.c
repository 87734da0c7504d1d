/* The shim's tasks: from the clone to the exit record, and the requests about them.
 *
 * A task is one program, a container's or an exec's. It lives here from clone to the moment when its exit code is in
 * its record directory and everyone who waited has been told; after that the file is the memory.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 1024

static struct pn_task *tasks[BUCKETS];

/* ---- the table ---- */

static struct pn_task **bucket(const char *key)
{
	uint32_t hash = 2166136261u;

	while (*key)
		hash = (hash ^ (unsigned char)*key++) * 16777619u;
	return &tasks[hash % BUCKETS];
}

struct pn_task *task_find(const char *key)
{
	struct pn_task *task = *bucket(key);

	while (task && strcmp(task->key, key) != 0)
		task = task->next;
	return task;
}

void task_free(struct pn_task *task)
{
	struct pn_task **at = bucket(task->key);

	while (*at && *at != task)
		at = &(*at)->next;
	if (*at)
		*at = task->next;
	for (uint32_t i = 0; i < task->nhold; i++)
		pn_close(&task->hold[i]);
	while (task->waiters) {
		struct pn_waiter *waiter = task->waiters;

		task->waiters = waiter->next;
		free(waiter);
	}
	feed_close(task);
	shim_drop(&task->pidfd);
	shim_drop(&task->report);
	pn_close(&task->record);
	pn_close(&task->log);
	free(task->hold);
	free(task->trace);
	free(task);
	shim_busy--;
}

/* ---- the end of a task ---- */

/* Written aside and renamed: a reader sees no record or a whole one. */
static void write_record(const struct pn_task *task, int code, int64_t finished)
{
	char text[64];
	int size, fd;

	if (task->record < 0)
		return;
	fd = openat(task->record, "exit.tmp", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	size = snprintf(text, sizeof(text), "%d %lld\n", code, (long long)finished);
	if (write(fd, text, (size_t)size) == size)
		(void)!renameat(task->record, "exit.tmp", task->record, "exit");
	close(fd);
}

static void tell_waiters(struct pn_task *task, int code, int64_t finished)
{
	for (struct pn_waiter *w = task->waiters; w; w = w->next) {
		struct pn_frame frame = {
			.kind = PN_FRAME_EXITED, .serial = w->serial, .arg = code, .value = finished
		};

		shim_reply(w->conn, &frame, NULL, 0);
	}
}

void task_answer_spawn(struct pn_task *task)
{
	struct pn_frame frame = { .serial = task->serial, .received = task->received, .value = task->pid };
	struct pn_conn *conn = task->spawner;

	task->spawner = NULL;
	if (!conn)
		return;
	if (task->failed) {
		frame.kind = PN_FRAME_ERROR;
		shim_reply(conn, &frame, &task->error, sizeof(task->error));
	} else {
		frame.kind = PN_FRAME_SPAWNED;
		shim_reply(conn, &frame, task->trace, task->trace ? sizeof(*task->trace) : 0);
	}
}

static void end_task(struct pn_task *task, const siginfo_t *info)
{
	int code = info->si_code == CLD_EXITED ? info->si_status : 128 + info->si_status;
	int64_t finished = shim_now(CLOCK_REALTIME);

	stream_finish(&task->out);
	stream_finish(&task->err);
	if (!task->failed)
		write_record(task, code, finished);
	task_answer_spawn(task); /* failed to start, or ended before its start was known */
	tell_waiters(task, code, finished);
	task_free(task);
}

/* ---- what the child reports ---- */

static void swap_process(struct pn_task *task, int pid, int fd)
{
	siginfo_t info;

	waitid(P_PIDFD, (id_t)task->pidfd.fd, &info, WEXITED | __WALL);
	shim_drop(&task->pidfd);
	task->pid = pid;
	task->pidfd.fd = fd;
	shim_watch(&task->pidfd, EPOLLIN);
}

static void open_terminal(struct pn_task *task, int master)
{
	task->input = fcntl(master, F_DUPFD_CLOEXEC, 3);
	stream_open(&task->out, task, "stdout", master);
}

static void take_report(struct pn_task *task, struct pn_report *report, int fd)
{
	switch (report->kind) {
	case PN_REPORT_ERROR:
		task->failed = true;
		task->error = report->error;
		break;
	case PN_REPORT_TTY:
		open_terminal(task, TAKE_FD(fd));
		break;
	case PN_REPORT_PID:
		swap_process(task, report->value, TAKE_FD(fd));
		break;
	case PN_REPORT_TRACE:
		if (task->trace) {
			int64_t cloned = task->trace->cloned;

			*task->trace = report->trace;
			task->trace->cloned = cloned;
		}
		break;
	}
	pn_close(&fd);
}

/* Reads what is there. At the end of the socket the program has been executed (or the child has died). */
static void drain_reports(struct pn_task *task)
{
	struct pn_report report;
	int ret, fd;

	while ((ret = pn_report_recv(task->report.fd, MSG_DONTWAIT, &report, &fd)) > 0)
		take_report(task, &report, fd);
	if (ret == 0)
		shim_drop(&task->report);
}

static void attach_waiting_input(struct pn_task *task)
{
	int fd = task->feed.source.fd;

	if (fd < 0 || task->feed.source.armed)
		return;
	task->feed.source.fd = -1;
	feed_attach(task, fd);
}

static void report_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;

	(void)events;
	drain_reports(task);
	if (task->report.fd >= 0)
		return;
	attach_waiting_input(task); /* a pty's client was waiting for the pty */
	if (!task->failed)
		task_answer_spawn(task); /* a failed child is answered when it is gone, so that its cgroup is free */
}

static void pidfd_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;
	siginfo_t info = { 0 };
	int fd = watch->fd;

	(void)events;
	if (task->report.fd >= 0)
		drain_reports(task);
	if (task->pidfd.fd != fd)
		return; /* that was the first half of a fork */
	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG | __WALL) < 0 || info.si_pid == 0)
		return;
	end_task(task, &info);
}

struct pn_task *task_new(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = calloc(1, sizeof(*task));

	if (!task)
		return NULL;
	memcpy(task->key, frame->key, sizeof(task->key));
	task->flags = frame->flags;
	task->spawner = conn;
	task->serial = frame->serial;
	task->received = frame->received;
	task->pidfd = (struct pn_watch){ .fd = -1, .ready = pidfd_ready, .owner = task };
	task->report = (struct pn_watch){ .fd = -1, .ready = report_ready, .owner = task };
	task->out.watch.fd = task->err.watch.fd = -1;
	task->feed.source.fd = task->feed.target.fd = -1;
	task->input = task->record = task->log = -1;
	if (frame->flags & PN_SPAWN_TRACE)
		task->trace = calloc(1, sizeof(*task->trace));
	task->next = *bucket(task->key);
	*bucket(task->key) = task;
	shim_busy++;
	return task;
}

/* ---- requests about a task ---- */

void task_wait(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = task_find(frame->key);
	struct pn_waiter *waiter = task ? calloc(1, sizeof(*waiter)) : NULL;

	if (!waiter) {
		shim_reply_error(conn, frame->serial, task ? ENOMEM : ESRCH, PN_STEP_WAIT, "no such task");
		return;
	}
	*waiter = (struct pn_waiter){ .next = task->waiters, .conn = conn, .serial = frame->serial };
	task->waiters = waiter;
}

void task_list(struct pn_conn *conn, const struct pn_frame *frame)
{
	static struct pn_task_entry entries[512];
	struct pn_frame reply = { .kind = PN_FRAME_TASK, .serial = frame->serial };
	uint32_t n = 0;

	for (uint32_t b = 0; b < BUCKETS; b++) {
		for (const struct pn_task *t = tasks[b]; t; t = t->next) {
			memcpy(entries[n].key, t->key, sizeof(t->key));
			entries[n].pid = t->pid;
			if (++n == sizeof(entries) / sizeof(entries[0])) {
				shim_reply(conn, &reply, entries, n * (uint32_t)sizeof(entries[0]));
				n = 0;
			}
		}
	}
	if (n)
		shim_reply(conn, &reply, entries, n * (uint32_t)sizeof(entries[0]));
	reply.kind = PN_FRAME_OK;
	shim_reply(conn, &reply, NULL, 0);
}

static void answer(struct pn_conn *conn, const struct pn_frame *frame, int ret, const char *what)
{
	struct pn_frame reply = { .kind = PN_FRAME_OK, .serial = frame->serial };

	if (ret < 0)
		shim_reply_error(conn, frame->serial, errno, PN_STEP_FRAME, what);
	else
		shim_reply(conn, &reply, NULL, 0);
}

static struct pn_task *find_or_answer(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = task_find(frame->key);

	if (!task)
		shim_reply_error(conn, frame->serial, ESRCH, PN_STEP_FRAME, "no such task");
	return task;
}

void task_signal(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);

	if (task)
		answer(conn, frame, (int)syscall(SYS_pidfd_send_signal, task->pidfd.fd, frame->arg, NULL, 0), "signal");
}

void task_resize(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);
	struct winsize size = { .ws_row = (unsigned short)(frame->arg >> 16),
				.ws_col = (unsigned short)(frame->arg & 0xffff) };

	if (task)
		answer(conn, frame, ioctl(task->input, TIOCSWINSZ, &size), "resize");
}

void task_close_stdin(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find_or_answer(conn, frame);

	if (!task)
		return;
	feed_close(task);
	answer(conn, frame, 0, "stdin");
}

void task_attach(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds)
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
		stream_attach(&task->out, out);
	if (err >= 0)
		stream_attach(&task->err, err);
	answer(conn, frame, 0, "attach");
}

void task_forget_conn(const struct pn_conn *conn)
{
	for (uint32_t b = 0; b < BUCKETS; b++) {
		for (struct pn_task *t = tasks[b]; t; t = t->next) {
			struct pn_waiter **at = &t->waiters;

			if (t->spawner == conn)
				t->spawner = NULL;
			while (*at) {
				struct pn_waiter *waiter = *at;

				if (waiter->conn != conn) {
					at = &waiter->next;
					continue;
				}
				*at = waiter->next;
				free(waiter);
			}
		}
	}
}
