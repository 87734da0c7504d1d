/* What the shim's units share: watches, connections, tasks, streams. Private to shim*.c and keeper.c.
 *
 * Everything here is made anew by a shim that takes the place of a killed one; what may not be lost is in the store.
 */
#ifndef PN_SHIM_H
#define PN_SHIM_H

#include "shim_store.h"
#include "spawn.h"

#include <stdbool.h>

struct pn_watch;
typedef void (*pn_ready)(struct pn_watch *watch, uint32_t events);

/* One descriptor in an epoll set; embedded in what owns it. */
struct pn_watch {
	int fd; /* -1: none */
	bool armed;
	bool bulk; /* a stream: served after requests and exits, one slice at a time */
	pn_ready ready;
	void *owner;
};

struct pn_conn {
	struct pn_watch watch;
	struct pn_waiter *waiters; /* what it waits for */
	uint32_t cell;
	int *fds; /* descriptors sent ahead of a SPAWN */
	uint32_t nfds;
};

enum pn_awaited { AWAITS_START = 1, AWAITS_EXIT };

/* A connection that waits for an answer about a task; in both their lists. */
struct pn_waiter {
	struct pn_waiter *next_of_task;
	struct pn_waiter *next_of_conn;
	struct pn_task *task;
	struct pn_conn *conn;
	enum pn_awaited what;
	uint32_t serial;
	int64_t received;
};

/* Where a copy of a stream goes: an attached client's pipe. Outlives the program until its bytes are gone. */
struct pn_sink {
	struct pn_sink *next;
	struct pn_watch watch;
	struct pn_stream *stream;
	uint32_t cell;
	bool indirect; /* the kernel cannot splice into it from the program's pipe */
};

struct pn_stream {
	struct pn_watch watch; /* kept->fd */
	struct pn_task *task;
	struct kept_stream *kept;
	struct pn_sink *sinks;
	uint32_t tail; /* the newest chunk, 0: none */
	uint32_t nchunks;
	uint64_t in; /* position after the newest byte */
	bool enlarged;
};

/* Output on its way to the disk; shim_log.c's. */
struct pn_log {
	struct pn_log *next;       /* in the writer's queue */
	struct pn_log *next_ready; /* among those that the loop has to look at */
	struct pn_task *task;
	int fd;      /* the file, -1: not opened yet; the writer's */
	bool active; /* there is a log */
	bool held;   /* another run of the same key still writes */
	bool queued, running, writing, ready;
	bool wanted;   /* the loop waits for room or for the end */
	bool final;    /* nothing will come any more */
	bool finished; /* and everything is written */
};

struct pn_task {
	struct pn_task *next;       /* in its bucket */
	struct pn_task *next_aside; /* among those whose exit code or log is awaited */
	struct kept_task *kept;
	struct pn_watch pidfd;
	struct pn_watch report;
	struct pn_watch source; /* an attached client's stdin */
	struct pn_watch target; /* the program's stdin, armed while it is full */
	struct pn_stream stream[2];
	struct pn_log log;
	struct pn_waiter *waiters;
	struct pn_trace *trace; /* NULL: not asked for */
	int64_t told_by;        /* CLOCK_MONOTONIC: waiters are told then though the log is not written */
	bool aside;
	bool ending;   /* its exit code is known */
	bool recorded; /* and in its record */
	bool told;     /* waiters know, the key is free */
};

/* shim.c */
int shim_run(void); /* a shim's whole life; returns what the process exits with */
void shim_watch(struct pn_watch *watch, uint32_t events);
void shim_unwatch(struct pn_watch *watch);
/* Unwatches and closes, and has the store forget the number first. kept may be NULL. */
void shim_close(struct pn_watch *watch, int32_t *kept);
void shim_close_kept(int32_t *kept);
int64_t shim_now(int clock);
void shim_kick(void);          /* has the loop look at exits and logs; from any thread, and from the keeper */
extern unsigned int shim_busy; /* connections and tasks: at zero the shim ends */

/* shim_conn.c */
void conn_start(void);
void conn_settle(struct pn_conn *conn); /* is everything answered? */
void conn_stop_listening(void);
void conn_listen_on(int fd);    /* from now on, instead of where it did */
void conn_rearm_listener(void); /* a descriptor has become free */
void shim_reply(struct pn_conn *conn, const struct pn_frame *frame, const void *payload, uint32_t size);
void shim_reply_error(struct pn_conn *conn, uint32_t serial, int errnum, uint32_t step, const char *detail);

/* shim_clean.c: each returns < 0 with errno set on failure */
int clean_close_descriptors(unsigned int first);
void clean_join_cgroups(unsigned int first, unsigned int count);
int clean_process(void); /* EFBIG: the starter's limit on file sizes cannot be lifted */

/* shim_setup.c: likewise */
int setup_seal_self(char **argv, const char *exec_root);
int setup_open_listener(const char *name); /* in the working directory */
int setup_prune_mounts(void);
int setup_go_to_background(void);

/* shim_home.c: likewise */
void home_start(void);
void home_mind(void);         /* somebody found no socket */
int home_open_listener(void); /* leaves the working directory there */
int home_publish(void);
int home_move(int *fds, uint32_t nfds);
int home_take_record(struct pn_task *task, int *fds, uint32_t nfds);

/* keeper.c */
/* Makes a shim and looks after it until it has ended by itself; returns its exit status. */
int keeper_run(void);
/* The keeper has died: this process takes its place, and a child goes on as the shim. 0 in that child. */
int keeper_replace(void);
/* A pidfd of the keeper, or -1 when it is gone. */
int keeper_open(void);

/* shim_spawn.c */
/* The next descriptor of a frame if it is wanted, else -1. */
int task_take_fd(int *fds, uint32_t nfds, uint32_t *at, bool wanted);
void task_spawn(struct pn_conn *conn, const struct pn_frame *frame, const uint8_t *payload, uint32_t size, int *fds,
		uint32_t nfds);
void spawn_settle(void); /* closes the descriptors of the last clone when its child no longer shares them */
void spawn_forget(const struct kept_task *kept);
void spawn_reset(void);

/* shim_task.c */
struct pn_task *task_find(const char *key);
struct pn_task *task_new(struct kept_task *kept);
void task_begin(struct pn_task *task); /* watches what there is */
void task_free(struct pn_task *task);
void task_answer_spawn(struct pn_task *task);
void task_progress(struct pn_task *task); /* tells waiters and frees the task as far as that is due */
void task_take_exits(void);               /* what the keeper has collected */
void task_look_aside(void);
void task_trim(void);             /* gives memory back that is not needed */
int64_t task_next_deadline(void); /* CLOCK_MONOTONIC ns, 0: none */
bool task_older_drains(const char *key, const struct pn_task *task);
void task_restore_all(void);
unsigned int task_count(void);
extern struct pn_task *task_buckets[];
enum { TASK_BUCKETS = 1024 };

/* shim_exit.c */
int exit_collect(struct pn_task *task); /* 1: kept->exited is set; 0: not yet */
void exit_reserve(struct kept_task *kept);
bool exit_write_record(struct kept_task *kept);
void exit_kill_cgroup(int cgroup);

/* shim_request.c */
void waiter_add(struct pn_conn *conn, struct pn_task *task, enum pn_awaited what, const struct pn_frame *frame);
void waiter_free(struct pn_waiter *waiter);
void request_wait(struct pn_conn *conn, const struct pn_frame *frame);
void request_started(struct pn_conn *conn, const struct pn_frame *frame);
void request_list(struct pn_conn *conn, const struct pn_frame *frame);
void request_signal(struct pn_conn *conn, const struct pn_frame *frame);
void request_resize(struct pn_conn *conn, const struct pn_frame *frame);
void request_close_stdin(struct pn_conn *conn, const struct pn_frame *frame);
void request_home(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds);
void request_record(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds);
void request_attach(struct pn_conn *conn, const struct pn_frame *frame, int *fds, uint32_t nfds);

/* shim_report.c */
void report_ready(struct pn_watch *watch, uint32_t events);
void report_drain(struct pn_task *task);
void report_finish(struct pn_task *task); /* its process has ended */

/* shim_sink.c */
struct pn_sink *sink_new(struct pn_stream *stream, uint32_t cell);
void sink_free(struct pn_sink *sink);
/* Gives a client what it takes now; false when it is gone. A client that has everything of an ended stream goes. */
bool sink_push(struct pn_sink *sink);
void stream_attach(struct pn_stream *stream, int fd);
void stream_drop_sinks(struct pn_stream *stream);

/* shim_stream.c */
void stream_begin(struct pn_stream *stream, struct pn_task *task, int index);
void stream_finish(struct pn_stream *stream);      /* take what is there now and no more */
bool stream_taken(const struct pn_stream *stream); /* nothing more will come */
void stream_release(struct pn_stream *stream);     /* forget what everybody has, go on if there is room */

/* shim_feed.c */
void feed_attach(struct pn_task *task, int fd);
void feed_begin(struct pn_task *task);
void feed_close(struct pn_task *task);

/* shim_log.c */
void log_begin(struct pn_task *task);
void log_wake(struct pn_task *task);
void log_end(struct pn_task *task); /* no more will come; its task is told when all is written */
void log_want_room(struct pn_task *task);
void log_release_held(const char *key);
void log_take_ready(void); /* for the loop, after a kick */
void log_forget(struct pn_task *task);
void log_lock(void);
void log_unlock(void);
void log_drop_oldest(struct pn_stream *stream); /* non-blocking mode, the buffer is full */
void log_reset(void);
void log_start_writer(void);
bool log_stop_writer(void); /* true once it has stopped; else ask again after a kick */

/* shim_encode.c */
enum { LINE_MAX_BYTES = 16384, ENTRY_OVERHEAD = 160 };
size_t encode_entry(uint32_t driver, char *out, const uint8_t *line, size_t size, bool newline, int stream,
		    int64_t time);

#endif
