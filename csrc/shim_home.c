/* The exec root as the shim knows it: the directory that its socket is in. What becomes of socket and records when
 * somebody deletes them, or mounts another file system there.
 *
 * An engine that finds no socket, but a shim in the cgroup where the shims of its root are, asks for another one by
 * SIGHUP. It cannot name a place by that: the socket is made in the directory that the shim was started for. Where that
 * is not the exec root any more, the engine comes by /proc/<pid>/fd and hands over the new one, and so it does with the
 * directories of records. What is new has its name last: a shim killed in between is asked once more.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define FRESH "shim.sock.new"
#define NAME "shim.sock"
#define KNOCK "shim.wake" /* a FIFO that somebody reads until we have come and gone */

static volatile sig_atomic_t asked;

static void note_asked(int number)
{
	(void)number;
	asked = 1;
}

void home_start(void)
{
	struct sigaction action = { .sa_handler = note_asked };

	asked = 0;
	sigaction(SIGHUP, &action, NULL);
}

/* Listens; nobody can come before home_publish. */
int home_open_listener(void)
{
	int fd = -1;

	if (fchdir(store->home) == 0)
		fd = store_fd_up(setup_open_listener(FRESH));
	return fd;
}

int home_publish(void)
{
	return renameat(store->home, FRESH, store->home, NAME);
}

static int listen_again(void)
{
	int fd = home_open_listener();

	(void)!chdir("/");
	if (fd < 0)
		return -1;
	conn_listen_on(fd);
	return home_publish();
}

static void tell_who_knocked(void)
{
	int fd = openat(store->home, KNOCK, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

void home_mind(void)
{
	if (!asked)
		return;
	asked = 0;
	(void)!listen_again();
	tell_who_knocked();
}

/* fds: the exec root, in which there is no socket. */
int home_move(int *fds, uint32_t nfds)
{
	int32_t before = store->home;

	if (nfds == 0) {
		errno = EINVAL;
		return -1;
	}
	KEEP(store->home, store_fd_up(TAKE_FD(fds[0])));
	close(before);
	return listen_again();
}

/* fds: a directory in place of the one where the task's end was to be recorded. An end that is known is recorded at
 * once. */
int home_take_record(struct pn_task *task, int *fds, uint32_t nfds)
{
	struct kept_task *kept = task->kept;

	if (nfds == 0) {
		errno = EINVAL;
		return -1;
	}
	shim_close_kept(&kept->record_file);
	shim_close_kept(&kept->record);
	KEEP(kept->record, store_fd_up(TAKE_FD(fds[0])));
	exit_reserve(kept);
	task->recorded = task->ending && kept->started && exit_write_record(kept);
	return kept->record_file < 0 ? -1 : 0;
}
