/* What child.c and child_mount.c share, and what the child tells its spawner. Private. */
#ifndef PN_CHILD_H
#define PN_CHILD_H

#include "plan.h"

/* One message on the report socket. The socket closes when the program is executed. */
enum pn_report_kind {
	PN_REPORT_ERROR = 1, /* error */
	PN_REPORT_TTY,       /* one fd: the pty's master */
	PN_REPORT_PID,       /* value: pid after PN_OP_FORK; one fd: its pidfd */
	PN_REPORT_TRACE      /* trace */
};

struct pn_report {
	uint32_t kind;
	int32_t value;
	union {
		struct pn_error error;
		struct pn_trace trace;
	};
};

/* The word that a copied child shares with its spawner. */
enum pn_child_word {
	PN_CHILD_SHARES, /* it still uses the spawner's descriptor table */
	PN_CHILD_PREPARES,
	PN_CHILD_EXECUTES, /* every operation but the last is done */
	PN_CHILD_UNKNOWN   /* the spawner's: there is no word */
};

struct pn_child {
	uint32_t *shared_word; /* enum pn_child_word, or NULL */
	const struct pn_plan *plan;
	int report;     /* socket to the spawner */
	bool shares_vm; /* cloned with CLONE_VM: memory is the spawner's */
	uint32_t offset;
	int32_t index;
	int mask_fd;            /* the first attached empty tmpfs, cloned for the next ones */
	struct pn_trace *trace; /* NULL: not asked for */
	struct pn_error error;
};

typedef int (*pn_child_op)(struct pn_child *child, const struct pn_op *op);

/* Runs the plan; never returns. */
__attribute__((noreturn)) void pn_child_run(struct pn_child *child);

/* Records why the running operation failed; returns -1. */
int pn_child_fail(struct pn_child *child, int errnum, const char *detail);

/* Sends a report, with a descriptor or -1. */
void pn_send_report(int sock, const struct pn_report *report, size_t size, int fd);

/* child_tty.c */
int pn_op_tty(struct pn_child *child, const struct pn_op *op);

/* child_mount.c */
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
int pn_op_rlimit(struct pn_child *child, const struct pn_op *op);
int pn_op_no_new_privs(struct pn_child *child, const struct pn_op *op);
int pn_op_seccomp(struct pn_child *child, const struct pn_op *op);
int pn_op_bounding(struct pn_child *child, const struct pn_op *op);
int pn_op_groups(struct pn_child *child, const struct pn_op *op);
int pn_op_user(struct pn_child *child, const struct pn_op *op);
int pn_op_capset(struct pn_child *child, const struct pn_op *op);

static inline const char *pn_next_string(const char *string)
{
	while (*string++)
		;
	return string;
}

#endif
