/* The shim: parent of every container of one exec root, so that they outlive whoever started them.
 *
 * It clones, watches pidfds, copies output, keeps exit codes. It knows plans and descriptors, no configuration. It
 * lives in a mount namespace that holds nothing but an empty tmpfs, so that the copy each container gets is small; it
 * runs from a sealed memory file, so that nobody can write to it through /proc/<pid>/exe.
 *
 *   pynetns-shim EXEC_ROOT [CGROUPS]   listens on EXEC_ROOT/shim.sock, then goes to the background; ends with its last
 *                                      task once no engine is connected. The caller holds EXEC_ROOT's shim lock.
 *                                      Descriptors 3... are CGROUPS files (cgroup.procs) that it moves itself into.
 *
 * This unit owns the two epoll sets and the loop: one event at a time, requests and exits before streams.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

unsigned int shim_busy;
static int urgent = -1; /* requests, exits, and `bulk` itself */
static int bulk = -1;   /* streams */
static struct pn_watch kick;
static struct pn_watch keeper;
static bool keeper_gone;
static volatile sig_atomic_t told_to_end;
static int64_t idle_since, trim_at; /* CLOCK_MONOTONIC, 0: not so */

/* ---- the epoll sets ---- */

void shim_watch(struct pn_watch *watch, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	if (epoll_ctl(watch->bulk ? bulk : urgent, watch->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) ==
	    0)
		watch->armed = true;
}

void shim_unwatch(struct pn_watch *watch)
{
	if (watch->armed)
		epoll_ctl(watch->bulk ? bulk : urgent, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->armed = false;
}

void shim_close_kept(int32_t *kept)
{
	int fd = *kept;

	KEEP(*kept, -1);
	if (fd >= 0) {
		close(fd);
		conn_rearm_listener();
	}
}

void shim_close(struct pn_watch *watch, int32_t *kept)
{
	int fd = watch->fd < 0 && kept ? *kept : watch->fd; /* it may be kept and not be watched yet */

	shim_unwatch(watch);
	if (kept)
		KEEP(*kept, -1);
	watch->fd = -1;
	if (fd >= 0) {
		close(fd);
		conn_rearm_listener();
	}
}

int64_t shim_now(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * SECOND + now.tv_nsec;
}

/* ---- what the loop does beside requests ---- */

void shim_kick(void)
{
	(void)!write(store->kick, &(uint64_t){ 1 }, sizeof(uint64_t));
}

static void kicked(struct pn_watch *watch, uint32_t events)
{
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	task_look_aside();
	log_take_ready();
}

static void watch_keeper(void)
{
	keeper = (struct pn_watch){ .fd = keeper_open() };
	keeper_gone = keeper.fd < 0;
	if (!keeper_gone)
		shim_watch(&keeper, EPOLLIN);
}

/* The watch of the keeper has no function of its own: its end is looked at between two events. */
static void mind_keeper(void)
{
	if (!keeper_gone || !log_stop_writer())
		return;
	if (keeper_replace() == 0) {
		watch_keeper();
		task_look_aside();
	}
	log_start_writer();
}

static void end_asked(int number)
{
	(void)number;
	told_to_end = 1;
}

/* Milliseconds until something is due that has no event of its own, -1 for ever. */
static int timeout(int64_t now)
{
	int64_t due = task_next_deadline();

	if (idle_since && (!due || idle_since + SECOND < due))
		due = idle_since + SECOND;
	if (trim_at && (!due || trim_at < due))
		due = trim_at;
	if (!due)
		return -1;
	return due <= now ? 0 : (int)((due - now) / 1000000 + 1);
}

static void serve_one(const struct epoll_event *event)
{
	struct pn_watch *watch = event->data.ptr;
	struct epoll_event stream;

	if (!watch) { /* one slice of a stream; the next turn looks at requests again */
		if (epoll_wait(bulk, &stream, 1, 0) != 1)
			return;
		event = &stream;
		watch = stream.data.ptr;
	}
	if (watch == &keeper) {
		shim_close(&keeper, NULL);
		keeper_gone = true;
		return;
	}
	watch->ready(watch, event->events);
}

static bool finished(int64_t now)
{
	if (shim_busy)
		idle_since = 0;
	else if (!idle_since)
		idle_since = now;
	if (told_to_end && task_count() == 0)
		return true;
	return idle_since && now - idle_since >= SECOND;
}

static void trim(int64_t now)
{
	if (!store_untrimmed)
		trim_at = 0;
	else if (!trim_at)
		trim_at = now + SECOND;
	else if (now >= trim_at)
		task_trim();
}

static void serve(void)
{
	struct epoll_event event;
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, SIGTERM);
	sigdelset(&mask, SIGHUP);
	for (;;) {
		int64_t now = shim_now(CLOCK_MONOTONIC);
		int n;

		if (finished(now))
			return;
		trim(now);
		n = epoll_pwait(urgent, &event, 1, timeout(now), &mask);
		if (n == 1)
			serve_one(&event);
		else if (n == 0)
			task_look_aside();
		spawn_settle();
		home_mind();
		mind_keeper();
	}
}

int shim_run(void)
{
	struct epoll_event streams = { .events = EPOLLIN };
	struct sigaction action = { .sa_handler = end_asked };

	told_to_end = 0;
	shim_busy = 0;
	idle_since = trim_at = 0;
	log_reset();
	spawn_reset();
	prctl(PR_SET_NAME, "pynetns-shim");
	sigaction(SIGTERM, &action, NULL);
	home_start();
	store_recover();
	urgent = store_fd_up(epoll_create1(EPOLL_CLOEXEC));
	bulk = store_fd_up(epoll_create1(EPOLL_CLOEXEC));
	if (urgent < 0 || bulk < 0 || epoll_ctl(urgent, EPOLL_CTL_ADD, bulk, &streams) < 0)
		return 1;
	watch_keeper();
	kick = (struct pn_watch){ .fd = store->kick, .ready = kicked };
	shim_watch(&kick, EPOLLIN);
	task_restore_all();
	conn_start();
	task_look_aside();
	serve();
	conn_stop_listening();
	return 0;
}

/* ---- the first process ---- */

static int die(const char *what)
{
	fprintf(stderr, "pynetns-shim: %s : %s\n", what, strerror(errno));
	return 1;
}

static int open_kept(const char *exec_root)
{
	store->home = store_fd_up(open(exec_root, O_PATH | O_DIRECTORY | O_CLOEXEC));
	store->devnull = store_fd_up(open("/dev/null", O_RDWR | O_CLOEXEC));
	store->kick = store_fd_up(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	store->listener = home_open_listener();
	if (store->devnull < 0 || store->kick < 0 || store->listener < 0 || home_publish() < 0)
		return -1;
	if (pipe2(store->take, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(store->give, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		store->take[i] = store_fd_up(store->take[i]);
		store->give[i] = store_fd_up(store->give[i]);
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int cgroups = argc == 3 ? (unsigned int)strtoul(argv[2], NULL, 10) : 0;
	sigset_t all;

	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: pynetns-shim EXEC_ROOT [CGROUPS]\n");
		return 2;
	}
	if (clean_close_descriptors(3 + cgroups) < 0)
		return die("descriptors");
	clean_join_cgroups(3, cgroups);
	if (clean_process() < 0) /* before anything that a limit could stop */
		return die("start it where file sizes are unlimited (ulimit -f); lifting that takes CAP_SYS_RESOURCE");
	if (setup_seal_self((char *[]){ argv[0], argv[1], NULL }, argv[1]) < 0)
		return die("seal");
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL); /* a client that went away is an errno, not a death */
	if (store_create() < 0)
		return die("memory");
	if (open_kept(argv[1]) < 0)
		return die(argv[1]);
	if (setup_prune_mounts() < 0)
		return die("mount namespace");
	if (setup_go_to_background() < 0)
		return die("fork");
	prctl(PR_SET_DUMPABLE, 0UL, 0UL, 0UL, 0UL);
	return keeper_run();
}
