/* The shim: parent of every container of one exec root, so that they outlive whoever started them.
 *
 * One small process: it clones, watches pidfds, copies logs, keeps exit codes. It knows plans and descriptors, no
 * configuration. It lives in a mount namespace that holds nothing but an empty tmpfs, so that the copy each container
 * gets is small; it runs from a sealed memory file, so that nobody can write to it through /proc/<pid>/exe.
 *
 *   pynetns-shim EXEC_ROOT [CGROUPS]
 *                              listens on EXEC_ROOT/shim.sock, then goes to the background; ends with its last task
 *                              once no engine is connected. The caller holds EXEC_ROOT's shim lock. Descriptors 3 and
 *                              on are CGROUPS cgroup.procs files, by which it enters cgroups of its own.
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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECEIVE_FDS 253

int shim_devnull = -1;
unsigned int shim_busy;
static int epoll_fd = -1;
static struct pn_watch listener;

/* ---- the epoll set ---- */

void shim_watch(struct pn_watch *watch, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	if (epoll_ctl(epoll_fd, watch->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) == 0)
		watch->armed = true;
}

void shim_unwatch(struct pn_watch *watch)
{
	if (watch->armed)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->armed = false;
}

void shim_drop(struct pn_watch *watch)
{
	shim_unwatch(watch);
	pn_close(&watch->fd);
}

int64_t shim_now(int clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* ---- connections ---- */

/* A client that does not read its answers notices at its next request: the socket is shut. */
void shim_reply(struct pn_conn *conn, const struct pn_frame *frame, const void *payload, uint32_t size)
{
	struct pn_error ignored;

	if (pn_frame_send(conn->watch.fd, frame, payload, size, NULL, 0, &ignored) < 0)
		shutdown(conn->watch.fd, SHUT_RDWR);
}

void shim_reply_error(struct pn_conn *conn, uint32_t serial, int errnum, uint32_t step, const char *detail)
{
	struct pn_frame frame = { .kind = PN_FRAME_ERROR, .serial = serial };
	struct pn_error error;

	pn_fail(&error, errnum, step, detail);
	shim_reply(conn, &frame, &error, sizeof(error));
}

static void answer_hello(struct pn_conn *conn, const struct pn_frame *frame)
{
	struct pn_frame reply = { .kind = PN_FRAME_HELLO, .serial = frame->serial, .arg = PN_PROTOCOL };

	reply.value = getpid();
	shim_reply(conn, &reply, NULL, 0);
}

static void dispatch(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
		     int *fds, uint32_t nfds)
{
	switch (frame->kind) {
	case PN_FRAME_HELLO:
		answer_hello(conn, frame);
		break;
	case PN_FRAME_SPAWN:
		task_spawn(conn, frame, payload, size, fds, nfds);
		break;
	case PN_FRAME_WAIT:
		task_wait(conn, frame);
		break;
	case PN_FRAME_ATTACH:
		task_attach(conn, frame, fds, nfds);
		break;
	case PN_FRAME_SIGNAL:
		task_signal(conn, frame);
		break;
	case PN_FRAME_RESIZE:
		task_resize(conn, frame);
		break;
	case PN_FRAME_CLOSE_STDIN:
		task_close_stdin(conn, frame);
		break;
	case PN_FRAME_LIST:
		task_list(conn, frame);
		break;
	default:
		shutdown(conn->watch.fd, SHUT_RDWR);
	}
}

static void conn_close(struct pn_conn *conn)
{
	task_forget_conn(conn);
	shim_drop(&conn->watch);
	free(conn);
	shim_busy--;
}

static void conn_ready(struct pn_watch *watch, uint32_t events)
{
	static uint8_t payload[PN_FRAME_MAX] __attribute__((aligned(8)));
	struct pn_conn *conn = watch->owner;
	struct pn_error error;
	struct pn_frame frame;
	int fds[RECEIVE_FDS];
	uint32_t nfds = 0;
	int size = pn_frame_recv(watch->fd, &frame, payload, sizeof(payload), fds, RECEIVE_FDS, &nfds, &error);

	(void)events;
	if (size == -EAGAIN || size == -EINTR)
		return;
	if (size < 0) {
		conn_close(conn);
		return;
	}
	frame.received = shim_now(CLOCK_MONOTONIC);
	dispatch(conn, &frame, payload, (uint32_t)size, fds, nfds);
	for (uint32_t i = 0; i < nfds; i++) /* those that nobody took */
		pn_close(&fds[i]);
}

static void listener_ready(struct pn_watch *watch, uint32_t events)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct pn_conn *conn;

	(void)events;
	if (fd < 0)
		return;
	conn = calloc(1, sizeof(*conn));
	if (!conn) {
		close(fd);
		return;
	}
	conn->watch = (struct pn_watch){ .fd = fd, .ready = conn_ready, .owner = conn };
	shim_watch(&conn->watch, EPOLLIN);
	shim_busy++;
}

static int die(const char *what)
{
	fprintf(stderr, "pynetns-shim: %s : %s\n", what, strerror(errno));
	return 1;
}

static int serve(void)
{
	struct epoll_event event;

	shim_watch(&listener, EPOLLIN);
	do {
		int n = epoll_wait(epoll_fd, &event, 1, shim_busy ? -1 : 1000);

		if (n == 1) {
			struct pn_watch *watch = event.data.ptr;

			watch->ready(watch, event.events);
		} else if (n == 0 && !shim_busy) {
			return 0;
		}
	} while (1);
}

int main(int argc, char **argv)
{
	sigset_t ignored;

	if (argc != 2 && argc != 3) {
		fprintf(stderr, "usage: pynetns-shim EXEC_ROOT [CGROUPS]\n");
		return 2;
	}
	if (setup_seal_self(argv) < 0)
		return die("seal");
	if (argc == 3)
		setup_enter_cgroups(atoi(argv[2]));
	sigemptyset(&ignored);
	sigaddset(&ignored, SIGPIPE); /* a client that went away is an errno, not a death */
	sigaddset(&ignored, SIGHUP);
	sigaddset(&ignored, SIGINT);
	sigprocmask(SIG_BLOCK, &ignored, NULL);
	prctl(PR_SET_NAME, "pynetns-shim");
	setup_raise_limits();
	shim_devnull = open("/dev/null", O_RDWR | O_CLOEXEC);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (shim_devnull < 0 || epoll_fd < 0)
		return die("open");
	if (chdir(argv[1]) < 0)
		return die(argv[1]);
	listener = (struct pn_watch){ .fd = setup_open_listener(), .ready = listener_ready };
	if (listener.fd < 0)
		return die(argv[1]);
	if (setup_prune_mounts() < 0)
		return die("mount namespace");
	if (setup_go_to_background() < 0)
		return die("fork");
	prctl(PR_SET_DUMPABLE, 0UL, 0UL, 0UL, 0UL);
	return serve();
}
