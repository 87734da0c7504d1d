/* A plan, checked and indexed by the spawner, so that the child can trust every byte of it.
 * Private to plan.c, spawn.c, the child's units and the shim. */
#ifndef PN_PLAN_H
#define PN_PLAN_H

#include "pynetns.h"

#include <stdbool.h>

struct pn_plan {
	const uint8_t *bytes; /* the caller's; outlives the plan */
	uint32_t size;
	const int *fds; /* the table; entries 0-2 are the program's stdio */
	uint32_t nfds;
	uint64_t clone_flags;
	int cgroup_fd;   /* -1: none */
	bool fork_joins; /* PN_OP_FORK names a cgroup: the child needs a descriptor of it */
	int go_fd;       /* the pipe of PN_OP_WAIT; -1: none */
	int told_fd;     /* and the socket that is told before; -1: none */
	bool late_stdio; /* STDIO comes after CWD: its three are needed until then */
	bool has_tty;
	uint32_t ncandidates;
	char **candidates; /* absolute paths to try in order */
	char **argv;
	char **envp;
};

/* Checks every operation and builds the argument vectors (one allocation, freed by pn_plan_free). */
int pn_plan_load(struct pn_plan *plan, const uint8_t *bytes, uint32_t size, const int *fds, uint32_t nfds,
		 struct pn_error *reterr);
void pn_plan_free(struct pn_plan *plan);

static inline const struct pn_op *pn_op_at(const struct pn_plan *plan, uint32_t offset)
{
	return (const struct pn_op *)(const void *)(plan->bytes + offset);
}

static inline uint32_t pn_op_span(const struct pn_op *op)
{
	return (uint32_t)sizeof(*op) + ((op->size + 7U) & ~7U);
}

static inline const char *pn_op_payload(const struct pn_op *op)
{
	return (const char *)(op + 1);
}

#endif
