/* What a child reports between its clone and its execve, and what its silence at the end means. A report may be looked
 * at twice: a shim may be killed before it has taken it off the socket. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_REPORTS 8

static void reap_ready(struct pn_watch *watch, uint32_t events)
{
	(void)events;
	waitid(P_PIDFD, (id_t)watch->fd, &(siginfo_t){ 0 }, WEXITED | WNOHANG | __WALL);
	shim_close(watch, NULL);
	free(watch);
}

/* The program is the second process of a fork; the first is reaped when it has ended. */
static void swap_process(struct pn_task *task, int pid, int fd)
{
	struct pn_watch *first = calloc(1, sizeof(*first));

	if (first)
		*first = (struct pn_watch){ .fd = task->kept->pidfd, .ready = reap_ready };
	shim_unwatch(&task->pidfd);
	task->pidfd.fd = store_fd_up(fd);
	KEEP(task->kept->process, (uint64_t)(uint32_t)task->pidfd.fd << 32 | (uint32_t)pid);
	shim_watch(&task->pidfd, EPOLLIN);
	if (first)
		shim_watch(first, EPOLLIN);
}

static void open_terminal(struct pn_task *task, int master)
{
	struct winsize size = { .ws_row = (unsigned short)(task->kept->winsize >> 16),
				.ws_col = (unsigned short)(task->kept->winsize & 0xffff) };

	if (task->kept->winsize)
		ioctl(master, TIOCSWINSZ, &size);
	if (task->kept->input < 0) /* else a predecessor was killed between the two */
		KEEP(task->kept->input, store_fd_up(fcntl(master, F_DUPFD_CLOEXEC, 3)));
	KEEP(task->kept->stream[0].fd, store_fd_up(master));
	stream_begin(&task->stream[0], task, 0);
}

static void take_report(struct pn_task *task, struct pn_report *report, int fd)
{
	switch (report->kind) {
	case PN_REPORT_ERROR:
		task->kept->error = report->error;
		KEEP(task->kept->failed, 1);
		break;
	case PN_REPORT_TTY:
		if (task->kept->stream[0].fd < 0)
			open_terminal(task, TAKE_FD(fd));
		break;
	case PN_REPORT_PID:
		if (task->kept->pid != report->value)
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

/* At the end of the socket the program has been executed, unless the child has failed or was killed before. */
static void reports_ended(struct pn_task *task)
{
	struct kept_task *kept = task->kept;

	shim_close(&task->report, &kept->report);
	if (!kept->failed && KEPT(kept->child_word) != PN_CHILD_EXECUTES) {
		if (kept->child_word & PN_CHILD_REFUSED)
			pn_fail(&task->kept->error, (int)(kept->child_word & ~(uint32_t)PN_CHILD_REFUSED), PN_OP_EXEC,
				NULL);
		else
			pn_fail(&task->kept->error, EINTR, PN_STEP_WAIT, "killed before its program was executed");
		KEEP(kept->failed, 1);
	}
	if (!kept->failed) {
		kept->started = 1;
		KEEP(kept->state, KEPT_RUNNING);
	}
}

void report_drain(struct pn_task *task)
{
	struct pn_report report;
	int ret = 1, fd;

	for (int i = 0; i < MOST_REPORTS && ret > 0; i++) {
		ret = pn_report_recv(task->report.fd, MSG_DONTWAIT | MSG_PEEK, &report, &fd);
		if (ret <= 0)
			break;
		take_report(task, &report, fd);
		pn_report_recv(task->report.fd, MSG_DONTWAIT, &report, &fd);
		pn_close(&fd);
	}
	if (ret == 0)
		reports_ended(task);
}

/* The process is gone: what it has not reported it never will. The socket may still be open, by the first half of a
 * fork that has not ended yet. */
void report_finish(struct pn_task *task)
{
	if (task->report.fd >= 0)
		report_drain(task);
	if (task->report.fd >= 0)
		reports_ended(task);
}

void report_ready(struct pn_watch *watch, uint32_t events)
{
	struct pn_task *task = watch->owner;

	(void)events;
	report_drain(task);
	if (task->report.fd >= 0)
		return;
	feed_begin(task); /* a pty's client was waiting for the pty */
	if (task->kept->started)
		task_answer_spawn(task); /* a failed child is answered when it is gone, so that its cgroup is free */
}
