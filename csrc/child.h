/* What the child's units share, and what the child tells its spawner. Private. */
#ifndef PN_CHILD_H
#define PN_CHILD_H

#include "plan.h"

/* One message on the report socket. The socket closes when the program is executed. */
enum pn_report_kind {
	PN_REPORT_ERROR = 1, /* error */
	PN_REPORT_TTY,       /* one fd: the pty's master */
	PN_REPORT_PID,       /* value: pid after PN_OP_FORK; one fd: its pidfd */
	PN_REPORT_TRACE,     /* trace */
	PN_REPORT_UNSHARED,  /* the spawner may close what it lent: this wakes it up for that */
	PN_REPORT_PREPARED   /* to the socket of WAIT only */
};

struct pn_report {
	uint32_t kind;
	int32_t value;
	union {
		struct pn_error error;
		struct pn_trace trace;
	};
};

/* The word that a child shares with its spawner, in memory that survives either. */
enum pn_child_word {
	PN_CHILD_SHARES, /* it still uses the spawner's descriptor table */
	PN_CHILD_PREPARES,
	PN_CHILD_EXECUTES,         /* every operation but the last is done */
	PN_CHILD_REFUSED = 0x10000 /* and that failed; the low bits are its errno. A filter may let nothing else out */
};

struct pn_child {
	const struct pn_plan *plan;
	int report;     /* socket to the spawner */
	bool shares_vm; /* cloned with CLONE_VM: memory is the spawner's */
	/* enum pn_child_word, or NULL. Where it begins as PN_CHILD_SHARES the child was cloned with CLONE_FILES: the
	 * spawner's descriptors are not copied, only those kept are; a futex waiter is woken once it has a table of its
	 * own. */
	uint32_t *shared_word;
	uint32_t offset;
	int32_t index;
	bool sealed;            /* nothing but stdio, report and what WAIT names is open */
	bool ready;             /* signal mask and trace are done */
	int root_fd;            /* O_PATH of "/", opened when first needed; -1 */
	int mask_fd;            /* the tmpfs over the first masked directory: the others get copies of it; -1 */
	int null_fd;            /* the null device, verified: a masked file gets a copy of it */
	struct pn_trace *trace; /* NULL: not asked for */
	struct pn_error error;
	uint32_t nkeep;
	int keep[PN_PLAN_FDS + 8]; /* sorted: stdio, the plan's table, the report */
};

typedef int (*pn_child_op)(struct pn_child *child, const struct pn_op *op);

/* Runs the plan; never returns. */
__attribute__((noreturn)) void pn_child_run(struct pn_child *child);

/* Records why the running operation failed; returns -1. */
int pn_child_fail(struct pn_child *child, int errnum, const char *detail);

/* One message with a descriptor, or -1 for none; -errno. */
int pn_send_fd(int sock, const void *data, size_t size, int fd);
/* Sends a report, likewise. */
void pn_send_report(int sock, const struct pn_report *report, size_t size, int fd);

/* child_path.c: the only look-ups of paths that an image or a user can influence. -errno on failure. */
#define PN_RESOLVE_INSIDE (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define PN_RESOLVE_EXACT (PN_RESOLVE_INSIDE | RESOLVE_NO_SYMLINKS)
/* openat2 below the root: INSIDE follows links there, EXACT none at all. */
int pn_path_open(struct pn_child *child, const char *path, uint64_t flags, uint64_t resolve);
/* O_PATH; what is missing is made: directories with mode, and at the end a directory or a file (kind S_IFREG). */
int pn_path_make(struct pn_child *child, const char *path, int kind, mode_t mode, bool exact);
/* A mount point that may lie behind links: made as above; -EXDEV when it turns out to be the root, or in /proc, /sys or
 * /dev, where nothing belongs that did not ask for it by that name. */
int pn_path_destination(struct pn_child *child, const char *path, int kind);
/* The directory of the last component, missing ones made; *ret_name is that component in path. */
int pn_path_parent(struct pn_child *child, const char *path, mode_t mode, const char **ret_name);
/* A file below /proc for writing, and nothing that anybody mounted or linked there; proc: a procfs, or -1. */
int pn_path_open_proc(struct pn_child *child, int proc, const char *path);
/* O_PATH of the container's null device; -EXDEV where /dev/null is something else. */
int pn_path_find_null(struct pn_child *child);
/* The same opened with flags; one of our own where there is none. */
int pn_path_open_null(struct pn_child *child, uint64_t flags);
/* The root is another from here on, or the table is closed. */
void pn_path_forget_root(struct pn_child *child);

/* child_tty.c */
int pn_op_tty(struct pn_child *child, const struct pn_op *op);

/* child_mount.c */
/* A detached tmpfs with MOUNT_ATTR_* attributes, or -errno. */
int pn_mount_tmpfs(uint64_t attributes);
int pn_op_root(struct pn_child *child, const struct pn_op *op);
int pn_op_private(struct pn_child *child, const struct pn_op *op);
int pn_op_mount(struct pn_child *child, const struct pn_op *op);
int pn_op_attach(struct pn_child *child, const struct pn_op *op);
int pn_op_mkdir(struct pn_child *child, const struct pn_op *op);
int pn_op_mknod(struct pn_child *child, const struct pn_op *op);
int pn_op_symlink(struct pn_child *child, const struct pn_op *op);
int pn_op_mask(struct pn_child *child, const struct pn_op *op);
int pn_op_readonly(struct pn_child *child, const struct pn_op *op);
int pn_op_root_attr(struct pn_child *child, const struct pn_op *op);

/* child_cred.c */
int pn_op_keyring(struct pn_child *child, const struct pn_op *op);
int pn_op_rlimit(struct pn_child *child, const struct pn_op *op);
int pn_op_no_new_privs(struct pn_child *child, const struct pn_op *op);
int pn_op_seccomp(struct pn_child *child, const struct pn_op *op);
int pn_op_bounding(struct pn_child *child, const struct pn_op *op);
int pn_op_groups(struct pn_child *child, const struct pn_op *op);
int pn_op_user(struct pn_child *child, const struct pn_op *op);
int pn_op_capset(struct pn_child *child, const struct pn_op *op);

/* Inserts fd into a sorted list; its new length. */
static inline uint32_t pn_keep(int *keep, uint32_t nkeep, int fd)
{
	uint32_t at = nkeep;

	for (; at > 0 && keep[at - 1] > fd; at--)
		keep[at] = keep[at - 1];
	keep[at] = fd;
	return nkeep + 1;
}

static inline const char *pn_next_string(const char *string)
{
	while (*string++)
		;
	return string;
}

#endif
