/* Connections: accepting, receiving one request at a time, answering. What a request means is known elsewhere.
 *
 * A client may be slow, silent or gone: nothing here waits for one. Without a free descriptor a client is told so; when
 * not even that is possible the listener rests until something closes.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECEIVE_FDS 253
#define MOST_FDS 65536 /* ahead of one SPAWN: as many as there are ports */

static struct pn_watch listener;
static int reserve = -1; /* given up to tell a client that there is no descriptor for it */

static void open_reserve(void)
{
	if (reserve < 0)
		reserve = store_fd_up(fcntl(store->devnull, F_DUPFD_CLOEXEC, 3));
}

/* ---- answers ---- */

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

/* ---- requests ---- */

static void forget_fds(struct pn_conn *conn)
{
	for (uint32_t i = 0; i < conn->nfds; i++)
		pn_close(&conn->fds[i]);
	free(conn->fds);
	conn->fds = NULL;
	conn->nfds = 0;
}

/* Takes the descriptors that came with a frame over into the connection's own list. */
static int gather_fds(struct pn_conn *conn, int *fds, uint32_t nfds)
{
	int *grown;

	if (conn->nfds + nfds > MOST_FDS)
		return -E2BIG;
	if (nfds == 0)
		return 0;
	grown = realloc(conn->fds, (conn->nfds + nfds) * sizeof(int));
	if (!grown)
		return -ENOMEM;
	conn->fds = grown;
	for (uint32_t i = 0; i < nfds; i++)
		conn->fds[conn->nfds++] = TAKE_FD(fds[i]);
	return 0;
}

static void take_spawn(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
		       int *fds, uint32_t nfds)
{
	int ret = conn->nfds ? gather_fds(conn, fds, nfds) : 0;

	if (ret < 0)
		shim_reply_error(conn, frame->serial, -ret, PN_STEP_FRAME, "descriptors");
	else if (conn->nfds)
		task_spawn(conn, frame, payload, size, conn->fds, conn->nfds);
	else
		task_spawn(conn, frame, payload, size, fds, nfds);
	forget_fds(conn);
}

static void dispatch(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
		     int *fds, uint32_t nfds)
{
	switch (frame->kind) {
	case PN_FRAME_HELLO:
		answer_hello(conn, frame);
		break;
	case PN_FRAME_FDS:
		if (gather_fds(conn, fds, nfds) < 0)
			shutdown(conn->watch.fd, SHUT_RDWR);
		break;
	case PN_FRAME_SPAWN:
		take_spawn(conn, frame, payload, size, fds, nfds);
		break;
	case PN_FRAME_STARTED:
		request_started(conn, frame);
		break;
	case PN_FRAME_WAIT:
		request_wait(conn, frame);
		break;
	case PN_FRAME_ATTACH:
		request_attach(conn, frame, fds, nfds);
		break;
	case PN_FRAME_SIGNAL:
		request_signal(conn, frame);
		break;
	case PN_FRAME_RESIZE:
		request_resize(conn, frame);
		break;
	case PN_FRAME_CLOSE_STDIN:
		request_close_stdin(conn, frame);
		break;
	case PN_FRAME_HOME:
		request_home(conn, frame, fds, nfds);
		break;
	case PN_FRAME_RECORD:
		request_record(conn, frame, fds, nfds);
		break;
	case PN_FRAME_LIST:
		request_list(conn, frame);
		break;
	default:
		shutdown(conn->watch.fd, SHUT_RDWR);
	}
}

/* A connection on which nothing is owed outlives a killed shim, and so does a request that lies in it unread. Of one
 * that was taken and not answered only the client knows: it sees its connection end and asks again. */
void conn_settle(struct pn_conn *conn)
{
	if (!conn->waiters && !conn->nfds)
		KEEP(store->cells[conn->cell].pos, OWES_NOTHING);
}

static void conn_close(struct pn_conn *conn)
{
	uint32_t *at = &store->conns;

	while (conn->waiters)
		waiter_free(conn->waiters);
	forget_fds(conn);
	while (*at != conn->cell)
		at = &store->cells[*at].next;
	KEEP(*at, store->cells[conn->cell].next);
	shim_close(&conn->watch, &store->cells[conn->cell].fd);
	store_free_cell(conn->cell);
	free(conn);
	shim_busy--;
}

static void conn_ready(struct pn_watch *watch, uint32_t events)
{
	static uint8_t payload[PN_FRAME_MAX] __attribute__((aligned(8)));
	struct pn_conn *conn = watch->owner;
	struct pn_error error;
	struct pn_frame frame = { 0 };
	int fds[RECEIVE_FDS];
	uint32_t nfds = 0;
	int size;

	(void)events;
	KEEP(store->cells[conn->cell].pos, OWES_ANSWER);
	size = pn_frame_recv(watch->fd, &frame, payload, sizeof(payload), fds, RECEIVE_FDS, &nfds, &error);
	if (size == -EAGAIN || size == -EINTR) {
		conn_settle(conn);
		return;
	}
	if (size == -EMFILE) /* the request's descriptors found no place here */
		shim_reply_error(conn, frame.serial, EMFILE, PN_STEP_FRAME, "the shim has no descriptors left");
	if (size < 0) {
		conn_close(conn);
		return;
	}
	frame.received = shim_now(CLOCK_MONOTONIC);
	dispatch(conn, &frame, payload, (uint32_t)size, fds, nfds);
	for (uint32_t i = 0; i < nfds; i++) /* those that nobody took */
		pn_close(&fds[i]);
	conn_settle(conn);
}

static struct pn_conn *conn_new(uint32_t cell)
{
	struct pn_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->watch = (struct pn_watch){ .fd = store->cells[cell].fd, .ready = conn_ready, .owner = conn };
	conn->cell = cell;
	shim_busy++;
	shim_watch(&conn->watch, EPOLLIN);
	return conn;
}

/* ---- the listener ---- */

/* There is no descriptor for this client: it is told with the last one, which is then reserved again. */
static void refuse_one(void)
{
	struct pn_conn conn = { .watch = { .fd = -1 } };

	pn_close(&reserve);
	conn.watch.fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (conn.watch.fd >= 0) {
		shim_reply_error(&conn, 0, EMFILE, PN_STEP_FRAME, "the shim has no descriptors left");
		close(conn.watch.fd);
	}
	open_reserve();
	if (reserve < 0 || conn.watch.fd < 0)
		shim_unwatch(&listener); /* until something closes */
}

static void listener_ready(struct pn_watch *watch, uint32_t events)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct pn_conn *conn;
	uint32_t cell;

	(void)events;
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			refuse_one();
		return;
	}
	cell = store_new_cell();
	if (!cell) {
		close(fd);
		return;
	}
	store->cells[cell].fd = store_fd_up(fd);
	store->cells[cell].next = store->conns;
	KEEP(store->conns, cell);
	conn = conn_new(cell);
	if (!conn) {
		KEEP(store->conns, store->cells[cell].next);
		shim_close_kept(&store->cells[cell].fd);
		store_free_cell(cell);
	} else if (!conn->watch.armed) {
		conn_close(conn);
	}
}

/* Who has come to the old socket and was not accepted comes again. */
void conn_listen_on(int fd)
{
	int32_t before = store->listener;

	shim_unwatch(&listener);
	KEEP(store->listener, fd);
	close(before);
	listener.fd = fd;
	shim_watch(&listener, EPOLLIN);
}

void conn_rearm_listener(void)
{
	if (listener.fd < 0 || listener.armed || !listener.ready)
		return;
	open_reserve();
	if (reserve >= 0)
		shim_watch(&listener, EPOLLIN);
}

/* Who waited for a task that is still there goes on waiting. */
static bool restore_waiter(uint32_t cell)
{
	uint64_t owed = store->cells[cell].pos;
	struct kept_task *kept = &store->tasks[owed >> 32 & (STORE_TASKS - 1)];
	enum pn_awaited what = (enum pn_awaited)(owed >> 48 & 3);
	struct pn_frame frame = { .serial = (uint32_t)owed };
	struct pn_task *task = kept->state == KEPT_FREE ? NULL : task_find(kept->key);
	struct pn_conn *conn = task && task->kept == kept ? conn_new(cell) : NULL;

	if (!conn)
		return false;
	waiter_add(conn, task, what, &frame);
	if (what == AWAITS_START && kept->started)
		task_answer_spawn(task);
	task_progress(task);
	return true;
}

static bool restore_conn(uint32_t cell)
{
	if (store->cells[cell].pos & OWES_WAITER)
		return restore_waiter(cell);
	return store->cells[cell].pos == OWES_NOTHING && conn_new(cell);
}

static void restore_conns(void)
{
	uint32_t *at = &store->conns;

	while (*at) {
		uint32_t cell = *at;

		if (restore_conn(cell)) {
			at = &store->cells[cell].next;
			continue;
		}
		KEEP(*at, store->cells[cell].next);
		shim_close_kept(&store->cells[cell].fd);
		store_free_cell(cell);
	}
}

void conn_start(void)
{
	listener = (struct pn_watch){ .fd = store->listener, .ready = listener_ready };
	reserve = -1;
	open_reserve();
	restore_conns();
	shim_watch(&listener, EPOLLIN);
}

/* From here on a client finds nobody, and starts another shim. */
void conn_stop_listening(void)
{
	shim_close(&listener, &store->listener);
}
