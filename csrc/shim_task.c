/* The shim's tasks: from a SPAWN frame to the exit record, and the requests about them.
 *
 * A task is one program, a container's or an exec's. It lives here from clone to the moment when its exit code is in
 * its record directory and everyone who waited has been told; after that the file is the memory.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

static struct pn_task *find(const char *key)
{
	struct pn_task *task = *bucket(key);

	while (task && strcmp(task->key, key) != 0)
		task = task->next;
	return task;
}

static void task_free(struct pn_task *task)
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

static void reply_error(struct pn_conn *conn, uint32_t serial, int errnum, uint32_t step, const char *detail)
{
	struct pn_frame frame = { .kind = PN_FRAME_ERROR, .serial = serial };
	struct pn_error error;

	pn_fail(&error, errnum, step, detail);
	shim_reply(conn, &frame, &error, sizeof(error));
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

static void answer_spawn(struct pn_task *task)
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
	answer_spawn(task); /* failed to start, or ended before its start was known */
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
		answer_spawn(task); /* a failed child is answered when it is gone, so that its cgroup is free */
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

/* ---- SPAWN ---- */

struct spawn_fds {
	int plan; /* memfd, or -1 */
	int in, out, err;
	int table[PN_PLAN_FDS + 3];
	uint32_t ntable;
};

static int take(int *fds, uint32_t nfds, uint32_t *at, bool wanted)
{
	return wanted && *at < nfds ? TAKE_FD(fds[(*at)++]) : -1;
}

/* Sorts the frame's descriptors into their places; the order is that of pynetns.h. */
static int sort_fds(struct pn_task *task, const struct pn_frame *frame, struct spawn_fds *s, int *fds, uint32_t nfds)
{
	uint32_t at = 0;

	s->plan = take(fds, nfds, &at, frame->flags & PN_SPAWN_MEMFD);
	task->log = take(fds, nfds, &at, frame->flags & PN_SPAWN_LOG);
	task->record = take(fds, nfds, &at, frame->flags & PN_SPAWN_RECORD);
	s->in = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_IN);
	s->out = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_OUT);
	s->err = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_ERR);
	if (frame->hold > nfds - at || nfds - at - frame->hold > PN_PLAN_FDS)
		return -EINVAL;
	if (frame->hold) {
		task->hold = calloc(frame->hold, sizeof(int));
		if (!task->hold)
			return -ENOMEM;
		for (; task->nhold < frame->hold; task->nhold++)
			task->hold[task->nhold] = TAKE_FD(fds[at++]);
	}
	for (s->ntable = 3; at < nfds; s->ntable++)
		s->table[s->ntable] = TAKE_FD(fds[at++]);
	return 0;
}

static int make_pipe(int *ours, int *theirs, bool we_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ours = fds[we_write];
	*theirs = fds[!we_write];
	return 0;
}

/* The program's stdio. Table entries are closed after the clone; 0-2 of a pty task are /dev/null until TTY. */
static int make_stdio(struct pn_task *task, struct spawn_fds *s, int *ret_out, int *ret_err)
{
	int ret = 0;
	bool direct = task->flags & (PN_SPAWN_DIRECT | PN_SPAWN_TTY);

	for (int i = 0; i < 3; i++)
		s->table[i] = -1;
	if (!(task->flags & PN_SPAWN_TTY)) {
		if (s->in >= 0)
			s->table[0] = TAKE_FD(s->in);
		else if (task->flags & PN_SPAWN_STDIN)
			ret = make_pipe(&task->input, &s->table[0], true);
		if (task->flags & PN_SPAWN_DIRECT) {
			s->table[1] = TAKE_FD(s->out);
			s->table[2] = TAKE_FD(s->err);
		}
	}
	if (ret == 0 && !direct)
		ret = make_pipe(ret_out, &s->table[1], false);
	if (ret == 0 && !direct)
		ret = make_pipe(ret_err, &s->table[2], false);
	for (int i = 0; ret == 0 && i < 3; i++)
		if (s->table[i] < 0 && (s->table[i] = fcntl(shim_devnull, F_DUPFD_CLOEXEC, 3)) < 0)
			ret = -errno;
	return ret;
}

/* The clients' ends; a pty's output is known only when the child has made it. */
static void attach_clients(struct pn_task *task, struct spawn_fds *s, int out, int err)
{
	stream_open(&task->out, task, "stdout", out);
	stream_open(&task->err, task, "stderr", err);
	if (task->flags & PN_SPAWN_TTY) {
		task->out.watch.fd = shim_devnull; /* so that the sink may be attached before the pty is there */
		if (s->out >= 0)
			stream_attach(&task->out, TAKE_FD(s->out));
		task->out.watch.fd = -1;
		task->feed.source.fd = TAKE_FD(s->in);
		return;
	}
	if (s->out >= 0)
		stream_attach(&task->out, TAKE_FD(s->out));
	if (s->err >= 0)
		stream_attach(&task->err, TAKE_FD(s->err));
}

static int clone_task(struct pn_task *task, struct spawn_fds *s, const uint8_t *bytes, uint32_t size)
{
	struct pn_plan plan;
	int sock[2], ret;

	ret = pn_plan_load(&plan, bytes, size, s->table, s->ntable, &task->error);
	if (ret < 0)
		return ret;
	if (plan.has_tty != !!(task->flags & PN_SPAWN_TTY)) {
		pn_plan_free(&plan);
		return pn_fail(&task->error, EINVAL, PN_STEP_PLAN, "terminal flag and plan differ");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
		pn_plan_free(&plan);
		return pn_fail(&task->error, errno, PN_STEP_SOCKET, "report socket");
	}
	task->report.fd = sock[0];
	ret = pn_spawn_copying(&plan, sock[1], task->trace, &task->pidfd.fd, &task->pid, &task->error);
	if (task->trace)
		task->trace->cloned = shim_now(CLOCK_MONOTONIC);
	close(sock[1]);
	pn_plan_free(&plan);
	return ret;
}

static struct pn_task *task_new(struct pn_conn *conn, const struct pn_frame *frame)
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

static void close_table(struct spawn_fds *s)
{
	for (uint32_t i = 0; i < s->ntable; i++)
		pn_close(&s->table[i]);
	pn_close(&s->plan);
	pn_close(&s->in);
	pn_close(&s->out);
	pn_close(&s->err);
}

/* A plan too large for a frame comes as a sealed file. */
static int start_from_memfd(struct pn_task *task, struct spawn_fds *s)
{
	struct stat st;
	void *bytes;
	int ret;

	if (fstat(s->plan, &st) < 0 || st.st_size <= 0 || st.st_size > (32 << 20))
		return pn_fail(&task->error, EINVAL, PN_STEP_PLAN, "plan file");
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, s->plan, 0);
	if (bytes == MAP_FAILED)
		return pn_fail(&task->error, errno, PN_STEP_MEMORY, "plan file");
	ret = clone_task(task, s, bytes, (uint32_t)st.st_size);
	munmap(bytes, (size_t)st.st_size);
	return ret;
}

static int start_task(struct pn_task *task, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
		      int *fds, uint32_t nfds)
{
	struct spawn_fds s = { .plan = -1, .in = -1, .out = -1, .err = -1 };
	int out = -1, err = -1;
	int ret = sort_fds(task, frame, &s, fds, nfds);

	if (ret == 0)
		ret = make_stdio(task, &s, &out, &err);
	if (ret < 0)
		pn_fail(&task->error, -ret, PN_STEP_FRAME, "descriptors");
	else
		ret = s.plan >= 0 ? start_from_memfd(task, &s) : clone_task(task, &s, payload, size);
	if (ret == 0) {
		attach_clients(task, &s, out, err);
		shim_watch(&task->pidfd, EPOLLIN);
		shim_watch(&task->report, EPOLLIN);
	} else {
		pn_close(&out);
		pn_close(&err);
	}
	close_table(&s);
	return ret;
}

void task_spawn(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size, int *fds,
		uint32_t nfds)
{
	struct pn_task *task = find(frame->key) ? NULL : task_new(conn, frame);

	if (!task) {
		reply_error(conn, frame->serial, find(frame->key) ? EEXIST : ENOMEM, PN_STEP_FRAME, "task");
	} else if (start_task(task, frame, payload, size, fds, nfds) < 0) {
		task->failed = true;
		answer_spawn(task);
		task_free(task);
	}
}

/* ---- requests about a task ---- */

void task_wait(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find(frame->key);
	struct pn_waiter *waiter = task ? calloc(1, sizeof(*waiter)) : NULL;

	if (!waiter) {
		reply_error(conn, frame->serial, task ? ENOMEM : ESRCH, PN_STEP_WAIT, "no such task");
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
		reply_error(conn, frame->serial, errno, PN_STEP_FRAME, what);
	else
		shim_reply(conn, &reply, NULL, 0);
}

static struct pn_task *find_or_answer(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_task *task = find(frame->key);

	if (!task)
		reply_error(conn, frame->serial, ESRCH, PN_STEP_FRAME, "no such task");
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
	in = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_IN);
	out = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_OUT);
	err = take(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_ERR);
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
