/* SPAWN: from a frame with its descriptors to a cloned child and its task.
 *
 * Owns the order of the frame's descriptors, the program's stdio and who gets which end of it. Everything is in the
 * store before the clone, and the kernel writes the pid there: a shim killed at any moment leaves either no child or a
 * known one. What happens to the task afterwards is shim_task.c's.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST_PLAN_BYTES (32 << 20)

struct spawn_fds {
	int plan; /* memfd, or -1 */
	int in, out, err;
	int report; /* the child's end */
	int table[PN_PLAN_FDS + 3];
	uint32_t ntable;
};

/* The last clone's, open until its child has a descriptor table of its own. */
static struct spawn_fds shared;
static struct kept_task *shared_by;

int task_take_fd(int *fds, uint32_t nfds, uint32_t *at, bool wanted)
{
	return wanted && *at < nfds ? TAKE_FD(fds[(*at)++]) : -1;
}

/* ---- the frame's descriptors ---- */

static int hold(struct kept_task *kept, int fd)
{
	uint32_t cell = store_new_cell();

	if (!cell) {
		close(fd);
		return -ENOMEM;
	}
	store->cells[cell].fd = store_fd_up(fd);
	store->cells[cell].next = kept->holds;
	kept->holds = cell;
	return 0;
}

/* Sorts the frame's descriptors into their places; the order is that of pynetns.h. */
static int sort_fds(struct kept_task *kept, const struct pn_frame *frame, struct spawn_fds *s, int *fds, uint32_t nfds)
{
	uint32_t at = 0;
	int ret = 0;

	s->plan = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_MEMFD);
	kept->log.directory = store_fd_up(task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_LOG));
	kept->record = store_fd_up(task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_RECORD));
	kept->cgroup = store_fd_up(task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_CGROUP));
	s->in = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_IN);
	s->out = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_OUT);
	s->err = task_take_fd(fds, nfds, &at, frame->flags & PN_SPAWN_ATTACH_ERR);
	if (frame->hold > nfds - at || nfds - at - frame->hold > PN_PLAN_FDS)
		return -EINVAL;
	for (uint32_t i = 0; ret == 0 && i < frame->hold; i++)
		ret = hold(kept, TAKE_FD(fds[at++]));
	for (s->ntable = 3; at < nfds; s->ntable++)
		s->table[s->ntable] = TAKE_FD(fds[at++]);
	return ret;
}

static int make_pipe(int32_t *ours, int *theirs, bool we_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*theirs = fds[!we_write];
	*ours = store_fd_up(fds[we_write]);
	return 0;
}

/* The program's stdio. Table entries are closed after the clone; 0-2 of a pty task are /dev/null until TTY. */
static int make_stdio(struct kept_task *kept, struct spawn_fds *s)
{
	bool tty = kept->flags & PN_SPAWN_TTY, direct = kept->flags & PN_SPAWN_DIRECT;
	int ret = 0;

	if (!tty && s->in >= 0)
		s->table[0] = TAKE_FD(s->in);
	else if (!tty && (kept->flags & PN_SPAWN_STDIN))
		ret = make_pipe(&kept->input, &s->table[0], true);
	if (direct && !tty) {
		s->table[1] = TAKE_FD(s->out);
		s->table[2] = TAKE_FD(s->err);
	}
	for (int i = 0; ret == 0 && i < 2 && !direct && !tty; i++)
		ret = make_pipe(&kept->stream[i].fd, &s->table[1 + i], false);
	for (int i = 0; ret == 0 && i < 3; i++)
		if (s->table[i] < 0 && (s->table[i] = fcntl(store->devnull, F_DUPFD_CLOEXEC, 3)) < 0)
			ret = -errno;
	return ret;
}

/* The clients' ends; a pty's output and input are there only when the child has made it. */
static void attach_clients(struct pn_task *task, struct spawn_fds *s)
{
	if (task->kept->flags & PN_SPAWN_TTY)
		KEEP(task->kept->source, store_fd_up(TAKE_FD(s->in)));
	if (s->out >= 0)
		stream_attach(&task->stream[0], TAKE_FD(s->out));
	if (s->err >= 0)
		stream_attach(&task->stream[1], TAKE_FD(s->err));
}

static void close_fds(struct spawn_fds *s)
{
	for (uint32_t i = 0; i < s->ntable; i++)
		pn_close(&s->table[i]);
	s->ntable = 0;
	pn_close(&s->plan);
	pn_close(&s->in);
	pn_close(&s->out);
	pn_close(&s->err);
	pn_close(&s->report);
}

/* ---- a child that shares our descriptors for a moment ---- */

void spawn_settle(void)
{
	if (!shared_by)
		return;
	if (KEPT(shared_by->child_word) == 0 && shared_by->state != KEPT_FREE && !shared_by->exited)
		return;
	shared_by = NULL;
	close_fds(&shared);
}

/* Its child is dead, or it never had one. */
void spawn_forget(const struct kept_task *kept)
{
	if (shared_by != kept)
		return;
	shared_by = NULL;
	close_fds(&shared);
}

void spawn_reset(void)
{
	shared_by = NULL;
}

/* Whether the next clone may share: never while another child still does. */
static bool may_share(void)
{
	struct timespec moment = { .tv_nsec = 5000000 };

	spawn_settle();
	if (!shared_by)
		return true;
	syscall(SYS_futex, &shared_by->child_word, FUTEX_WAIT, 0, &moment, NULL, 0);
	spawn_settle();
	return !shared_by;
}

/* ---- the clone ---- */

static void move_pidfd_up(struct kept_task *kept)
{
	int low = kept->pidfd, up = fcntl(low, F_DUPFD_CLOEXEC, 1024);

	if (up < 0)
		return;
	KEEP(kept->pidfd, up);
	close(low);
}

static int clone_loaded(struct pn_task *task, struct spawn_fds *s, const struct pn_plan *plan)
{
	struct kept_task *kept = task->kept;
	bool sharing = may_share();
	int sock[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		return pn_fail(&task->kept->error, errno, PN_STEP_SOCKET, "report socket");
	s->report = sock[1];
	kept->report = store_fd_up(sock[0]);
	kept->child_word = sharing ? PN_CHILD_SHARES : PN_CHILD_PREPARES;
	KEEP(kept->state, KEPT_SPAWNING);
	ret = pn_spawn_copying(plan, s->report, task->trace, &kept->child_word, &kept->pidfd, &kept->pid,
			       &task->kept->error);
	if (ret < 0)
		return ret;
	move_pidfd_up(kept);
	if (task->trace)
		task->trace->cloned = shim_now(CLOCK_MONOTONIC);
	if (sharing) {
		shared = *s;
		shared_by = kept;
		*s = (struct spawn_fds){ .plan = -1, .in = -1, .out = -1, .err = -1, .report = -1 };
		spawn_settle();
	}
	return 0;
}

static int clone_task(struct pn_task *task, struct spawn_fds *s, const uint8_t *bytes, uint32_t size)
{
	struct pn_plan plan;
	int ret = pn_plan_load(&plan, bytes, size, s->table, s->ntable, &task->kept->error);

	if (ret < 0)
		return ret;
	if (plan.has_tty != !!(task->kept->flags & PN_SPAWN_TTY))
		ret = pn_fail(&task->kept->error, EINVAL, PN_STEP_PLAN, "terminal flag and plan differ");
	if (ret == 0)
		ret = clone_loaded(task, s, &plan);
	pn_plan_free(&plan);
	return ret;
}

/* ---- log options, then the plan ---- */

static int take_log_options(struct pn_task *task, const uint8_t **bytes, uint32_t *size)
{
	struct pn_log_options *options = &task->kept->log.options;

	if (!(task->kept->flags & PN_SPAWN_LOG))
		return 0;
	if (*size < sizeof(*options))
		return pn_fail(&task->kept->error, EINVAL, PN_STEP_FRAME, "log options");
	memcpy(options, *bytes, sizeof(*options));
	*bytes += sizeof(*options);
	*size -= (uint32_t)sizeof(*options);
	if (options->driver > PN_LOG_LOCAL || options->mode > PN_LOG_NON_BLOCKING || options->pad ||
	    !memchr(options->name, '\0', sizeof(options->name)) ||
	    (options->driver != PN_LOG_NONE && (!options->name[0] || options->max_file == 0)))
		return pn_fail(&task->kept->error, EINVAL, PN_STEP_FRAME, "log options");
	return 0;
}

static int start_from(struct pn_task *task, struct spawn_fds *s, const uint8_t *bytes, uint32_t size)
{
	int ret = take_log_options(task, &bytes, &size);

	return ret < 0 ? ret : clone_task(task, s, bytes, size);
}

/* What is too large for a frame comes as a file in memory. */
static int start_from_memfd(struct pn_task *task, struct spawn_fds *s)
{
	struct stat st;
	void *bytes;
	int ret;

	if (fstat(s->plan, &st) < 0 || st.st_size <= 0 || st.st_size > MOST_PLAN_BYTES)
		return pn_fail(&task->kept->error, EINVAL, PN_STEP_PLAN, "plan file");
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, s->plan, 0);
	if (bytes == MAP_FAILED)
		return pn_fail(&task->kept->error, errno, PN_STEP_MEMORY, "plan file");
	ret = start_from(task, s, bytes, (uint32_t)st.st_size);
	munmap(bytes, (size_t)st.st_size);
	return ret;
}

/* Nothing is started whose end could not be recorded. */
static int reserve_record(struct pn_task *task)
{
	if (task->kept->record < 0)
		return 0;
	errno = 0;
	exit_reserve(task->kept);
	if (task->kept->record_file < 0)
		return pn_fail(&task->kept->error, errno ? errno : EIO, PN_STEP_FRAME, "exit record");
	return 0;
}

static int start_task(struct pn_task *task, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
		      int *fds, uint32_t nfds)
{
	struct spawn_fds s = { .plan = -1, .in = -1, .out = -1, .err = -1, .report = -1, .table = { -1, -1, -1 } };
	int in, out, err, ret = sort_fds(task->kept, frame, &s, fds, nfds);

	if (ret == 0)
		ret = make_stdio(task->kept, &s);
	if (ret < 0)
		pn_fail(&task->kept->error, -ret, PN_STEP_FRAME, "descriptors");
	else
		ret = reserve_record(task);
	in = TAKE_FD(s.in);
	out = TAKE_FD(s.out);
	err = TAKE_FD(s.err);
	attach_clients(task, &(struct spawn_fds){ .in = in, .out = out, .err = err });
	if (ret == 0)
		ret = s.plan >= 0 ? start_from_memfd(task, &s) : start_from(task, &s, payload, size);
	if (ret == 0)
		task_begin(task);
	close_fds(&s);
	return ret;
}

static struct pn_task *new_task(const struct pn_frame *frame)
{
	struct kept_task *kept = store_new_task();
	struct pn_task *task;

	if (!kept)
		return NULL;
	memcpy(kept->key, frame->key, sizeof(kept->key));
	kept->flags = frame->flags;
	kept->run = (uint64_t)frame->value;
	task = task_new(kept);
	if (!task)
		store_free_task(kept);
	return task;
}

void task_spawn(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size, int *fds,
		uint32_t nfds)
{
	struct pn_task *task = task_find(frame->key);

	if (task && task->kept->state == KEPT_ENDED) { /* nobody asked how that run ended */
		task_free(task);
		task = NULL;
	}
	if (task) {
		shim_reply_error(conn, frame->serial, EEXIST, PN_STEP_FRAME, "task");
		return;
	}
	task = new_task(frame);
	if (!task) {
		shim_reply_error(conn, frame->serial, ENOMEM, PN_STEP_FRAME, "task");
		return;
	}
	waiter_add(conn, task, AWAITS_START, frame);
	if (start_task(task, frame, payload, size, fds, nfds) < 0) {
		task->kept->failed = 1;
		task_answer_spawn(task);
		task_free(task);
	}
}
