/* What outlives a shim that is killed: memory that it shares with its keeper. Private to the shim and the keeper.
 *
 * Everything that a new shim needs to go on is here: which tasks there are, which number of the shared descriptor table
 * is what, the output that was taken from a program and not yet delivered, and for each step that cannot be undone a
 * note from which it can be told afterwards whether it was done. What can be made anew from that (watches, connections,
 * waiters) is not here.
 */
#ifndef PN_SHIM_STORE_H
#define PN_SHIM_STORE_H

#include "pynetns.h"

#include <stdbool.h>

enum store_limits {
	STORE_TASKS = 32768,
	STORE_CELLS = 262144,
	STORE_CHUNKS = 32768,
	STORE_MARKS = 8,
	STORE_EXITS = 1024,
	CHUNK_SIZE = 65536
};

/* A member of a list: a descriptor held for a task, or a client's pipe and how far it has been written. 0 ends lists.
 */
struct kept_cell {
	uint32_t next;
	int32_t fd;
	uint64_t pos;
};

/* Output in flight. Positions count the bytes of a stream from its start; a mark says when the bytes before it came. */
struct kept_chunk {
	uint32_t next;
	uint32_t size;
	uint64_t start;
	uint32_t nmarks;
	uint32_t mark[STORE_MARKS];
	int64_t time[STORE_MARKS]; /* ns since the epoch */
};

struct kept_stream {
	int32_t fd;      /* read end of the program's stdout or stderr, or the pty's master; -1: none (any more) */
	uint32_t head;   /* the oldest chunk */
	uint32_t sinks;  /* cells of attached clients */
	uint32_t ending; /* only `left` more bytes are taken */
	uint64_t base;   /* position of the first byte in the chunks */
	uint64_t logged; /* position up to which the log has them */
	int64_t left;
};

struct kept_log {
	struct pn_log_options options;
	int32_t directory;
	uint32_t rotating; /* the step of a rotation that is under way */
	uint64_t start;    /* of a write under way: the file's size before, */
	uint64_t length;   /* its bytes (0: none is under way), */
	uint64_t next[2];  /* and `logged` of both streams after it */
};

enum kept_state {
	KEPT_FREE,
	KEPT_SPAWNING, /* described, perhaps cloned: pid tells */
	KEPT_RUNNING,
	KEPT_ENDED,   /* its record could not be written and nobody has read the code */
	KEPT_DRAINING /* told and forgotten by its key; output is still on its way */
};

struct kept_task {
	uint32_t state;      /* enum kept_state; written last */
	uint32_t child_word; /* pn_spawn_copying's */
	char key[PN_KEY_MAX];
	uint16_t flags;   /* enum pn_spawn_flags */
	uint16_t started; /* its program was executed */
	uint32_t failed;  /* it reported `error` instead */
	struct pn_error error;
	union {
		struct {
			int32_t pid; /* written by the kernel, in clone */
			int32_t pidfd;
		};
		uint64_t process; /* both at once: no shim is killed between them (little-endian) */
	};
	int32_t report;
	int32_t input;  /* write end of the program's stdin, -1: none */
	int32_t source; /* the client's stdin */
	int32_t record;
	int32_t record_file;
	int32_t cgroup;
	uint32_t winsize;
	uint32_t holds; /* cells */
	uint64_t run;   /* its client's name for this start, 0: none */
	uint32_t exited;
	int32_t code;
	int64_t finished;
	struct kept_stream stream[2]; /* stdout (or the terminal), stderr */
	struct kept_log log;
};

struct kept_exit {
	int32_t pid;
	int32_t code;
	int64_t finished;
};

/* Bytes between a program and a chunk, and between a chunk and a client, lie in two pipes that nobody else touches: how
 * many are left there tells how far a step had come. */
struct kept_transfer {
	uint32_t busy;  /* take: a chunk's index; give: a cell's */
	uint32_t bytes; /* that were in the pipe when it began */
	uint64_t from;  /* take: the chunk's size before; give: the cell's position before */
};

struct store {
	int32_t listener;
	int32_t home; /* the exec root, where the socket is */
	int32_t kick; /* an eventfd: look at the exits, at the logs */
	int32_t devnull;
	int32_t take[2];
	int32_t give[2];
	uint32_t conns;  /* cells of the clients' connections; pos: a request was taken and is not answered */
	int32_t keeper;  /* pid */
	uint32_t ntasks; /* that were ever used: what a restart looks at */
	uint32_t ncells;
	uint32_t nchunks;
	struct kept_transfer taking;
	struct kept_transfer giving;
	uint32_t exits_in; /* written by the keeper */
	uint32_t exits_out;
	struct kept_exit exits[STORE_EXITS];
	struct kept_task tasks[STORE_TASKS];
	struct kept_cell cells[STORE_CELLS];
	struct kept_chunk chunks[STORE_CHUNKS];
	uint8_t data[STORE_CHUNKS][CHUNK_SIZE] __attribute__((aligned(4096)));
};

extern struct store *store;

/* pos of a connection: nothing is owed, a request was taken, or exactly one waiter is there. */
#define OWES_NOTHING 0
#define OWES_ANSWER 1
#define OWES_WAITER (1ULL << 63)
static inline uint64_t owes_waiter(uint32_t task, uint32_t what, uint32_t serial)
{
	return OWES_WAITER | (uint64_t)what << 48 | (uint64_t)task << 32 | serial;
}

/* Stores in program order: what is written before is seen before, by whoever looks after our death. */
#define KEEP(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
#define KEPT(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)

/* Once, before the first shim. */
int store_create(void);
/* At a shim's start: finishes the steps that its predecessor was killed in, finds what is free, closes every
 * descriptor that nothing in the store names. */
void store_recover(void);

struct kept_task *store_new_task(void);       /* NULL when there are too many; state KEPT_FREE, descriptors -1 */
void store_free_task(struct kept_task *task); /* its lists as well; closes nothing */
uint32_t store_new_cell(void);                /* 0 when there are too many */
void store_free_cell(uint32_t cell);
uint32_t store_new_chunk(uint64_t start);
void store_free_chunk(uint32_t chunk);
/* Gives unused pages back to the machine. */
void store_trim(void);
extern bool store_untrimmed;

/* A number of at least 1024, so that those which a request brings stay low and a child has few to inherit; fd itself
 * where the limit forbids that. */
int store_fd_up(int fd);

#endif
