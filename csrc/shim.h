/* What the shim's units share: watches, connections, tasks, streams. Private to shim*.c. */
#ifndef PN_SHIM_H
#define PN_SHIM_H

#include "spawn.h"

#include <stdbool.h>

struct pn_watch;
typedef void (*pn_ready)(struct pn_watch *watch, uint32_t events);

/* One descriptor in the epoll set; embedded in what owns it. */
struct pn_watch {
	int fd; /* -1: none */
	bool armed;
	pn_ready ready;
	void *owner;
};

struct pn_conn {
	struct pn_watch watch;
};

struct pn_waiter {
	struct pn_waiter *next;
	struct pn_conn *conn;
	uint32_t serial;
};

/* Where a copy of a stream goes: an attached client's pipe. Outlives the task until its bytes are gone. */
struct pn_sink {
	struct pn_sink *next;
	struct pn_watch watch;
	struct pn_stream *stream; /* NULL once the stream has ended */
	char *pending;
	size_t size;
};

struct pn_stream {
	struct pn_watch watch; /* read end of the program's stdout or stderr, or the pty's master */
	struct pn_task *task;
	struct pn_sink *sinks;
	const char *name;
	char *line; /* bytes since the last newline, allocated only while there are some */
	size_t line_size;
};

/* An attached client's stdin on its way to the program. */
struct pn_feed {
	struct pn_watch source;
	struct pn_watch target; /* armed while the program does not read */
	char *pending;
	size_t size;
};

struct pn_task {
	struct pn_task *next;
	char key[PN_KEY_MAX];
	int pid;
	uint16_t flags; /* enum pn_spawn_flags */
	bool failed;
	bool ended;
	struct pn_watch pidfd;
	struct pn_watch report;
	struct pn_stream out;
	struct pn_stream err;
	struct pn_feed feed;
	int input; /* write end of the program's stdin, or a dup of the pty's master; -1: none */
	int record;
	int log;
	int *hold;
	uint32_t nhold;
	struct pn_conn *spawner; /* who waits for SPAWNED or ERROR */
	uint32_t serial;
	int64_t received;
	struct pn_error error;
	struct pn_trace *trace; /* NULL: not asked for */
	struct pn_waiter *waiters;
};

/* shim.c */
void shim_watch(struct pn_watch *watch, uint32_t events);
void shim_unwatch(struct pn_watch *watch);
void shim_drop(struct pn_watch *watch); /* unwatch and close */
int64_t shim_now(int clock);
void shim_reply(struct pn_conn *conn, const struct pn_frame *frame, const void *payload, uint32_t size);
void shim_reply_error(struct pn_conn *conn, uint32_t serial, int errnum, uint32_t step, const char *detail);
extern int shim_devnull;
extern unsigned int shim_busy; /* connections, tasks and sinks: at zero the shim ends */

/* shim_setup.c: each returns < 0 with errno set on failure */
int setup_seal_self(char **argv);
void setup_raise_limits(void);
void setup_enter_cgroups(int count);
int setup_open_listener(void); /* in the working directory */
int setup_prune_mounts(void);
int setup_go_to_background(void);

/* shim_spawn.c */
/* The next descriptor of a frame if it is wanted, else -1. */
int task_take_fd(int *fds, uint32_t nfds, uint32_t *at, bool wanted);
void task_spawn(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size, int *fds,
		uint32_t nfds);

/* shim_task.c */
struct pn_task *task_find(const char *key);
struct pn_task *task_new(struct pn_conn *conn, const struct pn_frame *frame);
void task_answer_spawn(struct pn_task *task);
void task_free(struct pn_task *task);
void task_wait(struct pn_conn *conn, const struct pn_frame *frame);
void task_list(struct pn_conn *conn, const struct pn_frame *frame);
void task_signal(struct pn_conn *conn, const struct pn_frame *frame);
void task_resize(struct pn_conn *conn, const struct pn_frame *frame);
void task_close_stdin(struct pn_conn *conn, const struct pn_frame *frame);
void task_attach(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds);
void task_forget_conn(const struct pn_conn *conn);

/* shim_stream.c */
void stream_open(struct pn_stream *stream, struct pn_task *task, const char *name, int fd);
void stream_attach(struct pn_stream *stream, int fd);
void stream_finish(struct pn_stream *stream); /* take what is left, close; sinks go on alone */
void feed_attach(struct pn_task *task, int fd);
void feed_close(struct pn_task *task);

/* shim_log.c */
void log_chunk(struct pn_stream *stream, const char *bytes, size_t size);
void log_end(struct pn_stream *stream);

#endif
