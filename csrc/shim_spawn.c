/* SPAWN: from a frame with its descriptors to a cloned child and its task.
 *
 * Owns the order of the frame's descriptors, the program's stdio and who gets which end of it. What happens to the
 * task afterwards is shim_task.c's.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct spawn_fds {
	int plan; /* memfd, or -1 */
	int in, out, err;
	int table[PN_PLAN_FDS + 3];
	uint32_t ntable;
};

int task_take_fd(int *fds, uint32_t nfds, uint32_t *at, bool wanted)
{
	return wanted && *at < nfds ? TAKE_FD(fds[(*at)++]) : -1;
}

/* Sorts the frame's descriptors into their places; the order is that of pynetns.h. */
static int sort_fds(struct pn_task *task, const struct pn_frame *frame, struct spawn_fds *s, int *fds, uint32_t nfds)
{
	uint32_t at = 0;

	s->plan = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_MEMFD);
	task->log = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_LOG);
	task->record = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_RECORD);
	s->in = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_IN);
	s->out = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_OUT);
	s->err = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_ERR);
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
	ret = pn_spawn_copying(&plan, sock[1], task->trace, NULL, &task->pidfd.fd, &task->pid, &task->error);
	if (task->trace)
		task->trace->cloned = shim_now(CLOCK_MONOTONIC);
	close(sock[1]);
	pn_plan_free(&plan);
	return ret;
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
	struct pn_task *task = task_find(frame->key) ? NULL : task_new(conn, frame);

	if (!task) {
		shim_reply_error(conn, frame->serial, task_find(frame->key) ? EEXIST : ENOMEM, PN_STEP_FRAME, "task");
	} else if (start_task(task, frame, payload, size, fds, nfds) < 0) {
		task->failed = true;
		task_answer_spawn(task);
		task_free(task);
	}
}
