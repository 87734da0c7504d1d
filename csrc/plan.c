/* Checking a plan before anything is cloned: sizes, strings, descriptor indexes, order.
 * What passes here is executed by child.c without further checks. */
#include "plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* For each operation: how many strings it takes (-1: its own count, -2: a blob), which arguments are fd indexes. */
static const struct {
	int8_t nstr;
	uint8_t fd_args; /* bit i: arg[i] is an index into the table, or -1 where optional */
	uint8_t optional;
} shapes[] = {
	[PN_OP_CLONE] = { 0, 2, 2 },     [PN_OP_PDEATHSIG] = { 0, 0, 0 },  [PN_OP_STDIO] = { 0, 0, 0 },
	[PN_OP_SETSID] = { 0, 0, 0 },    [PN_OP_TTY] = { 0, 2, 2 },        [PN_OP_SETNS] = { 0, 1, 0 },
	[PN_OP_UNSHARE] = { 0, 0, 0 },   [PN_OP_FORK] = { 0, 1, 1 },       [PN_OP_CGROUP] = { 0, 1, 0 },
	[PN_OP_HOSTNAME] = { 1, 0, 0 },  [PN_OP_DOMAINNAME] = { 1, 0, 0 }, [PN_OP_PRIVATE] = { 0, 0, 0 },
	[PN_OP_ROOT] = { 0, 1, 0 },      [PN_OP_CHROOT] = { 1, 0, 0 },     [PN_OP_MOUNT] = { 4, 0, 0 },
	[PN_OP_ATTACH] = { 1, 1, 0 },    [PN_OP_MKDIR] = { 1, 0, 0 },      [PN_OP_MKNOD] = { 1, 0, 0 },
	[PN_OP_SYMLINK] = { 2, 0, 0 },   [PN_OP_MASK] = { 1, 0, 0 },       [PN_OP_READONLY] = { 1, 0, 0 },
	[PN_OP_ROOT_ATTR] = { 0, 0, 0 }, [PN_OP_SYSCTL] = { 2, 0, 0 },     [PN_OP_OOM_SCORE] = { 1, 1, 1 },
	[PN_OP_RLIMIT] = { 0, 0, 0 },    [PN_OP_UMASK] = { 0, 0, 0 },      [PN_OP_NO_NEW_PRIVS] = { 0, 0, 0 },
	[PN_OP_SECCOMP] = { -2, 0, 0 },  [PN_OP_BOUNDING] = { 0, 0, 0 },   [PN_OP_GROUPS] = { -2, 0, 0 },
	[PN_OP_USER] = { 0, 0, 0 },      [PN_OP_CAPSET] = { 0, 0, 0 },     [PN_OP_KEYRING] = { 0, 0, 0 },
	[PN_OP_CWD] = { 1, 0, 0 },       [PN_OP_WAIT] = { 0, 3, 2 },       [PN_OP_READY] = { 0, 0, 0 },
	[PN_OP_EXEC] = { -1, 0, 0 },
};

static int refuse(struct pn_error *reterr, int32_t index, const char *why)
{
	pn_fail(reterr, EINVAL, PN_STEP_PLAN, why);
	reterr->index = index;
	return -EINVAL;
}

static bool strings_are_whole(const struct pn_op *op)
{
	const char *at = pn_op_payload(op);
	const char *end = at + op->size;

	for (uint32_t i = 0; i < op->nstr; i++) {
		const char *nul = memchr(at, '\0', (size_t)(end - at));
		if (!nul)
			return false;
		at = nul + 1;
	}
	return at == end;
}

static bool exec_counts_match(const struct pn_op *op)
{
	for (int i = 0; i < 3; i++)
		if (op->arg[i] < 0 || op->arg[i] > UINT32_MAX / 4)
			return false;
	return op->arg[0] >= 1 && op->arg[1] >= 1 && op->arg[0] + op->arg[1] + op->arg[2] == op->nstr;
}

static bool fd_args_are_valid(const struct pn_op *op, uint32_t nfds)
{
	for (int i = 0; i < 4; i++) {
		if (!(shapes[op->code].fd_args & (1 << i)))
			continue;
		if (op->arg[i] == -1 && (shapes[op->code].optional & (1 << i)))
			continue;
		if (op->arg[i] < 0 || op->arg[i] >= (int64_t)nfds)
			return false;
	}
	return true;
}

/* From CWD on the table is closed: what comes then may name no descriptor but those of WAIT. */
static bool names_closed_fd(const struct pn_op *op)
{
	if (op->code == PN_OP_WAIT)
		return false;
	for (int i = 0; i < 4; i++)
		if ((shapes[op->code].fd_args & (1 << i)) && op->arg[i] != -1)
			return true;
	return false;
}

static int check_op(const struct pn_op *op, uint32_t nfds, int32_t index, struct pn_error *reterr)
{
	if (op->code < PN_OP_CLONE || op->code > PN_OP_EXEC)
		return refuse(reterr, index, "unknown operation");
	if ((op->code == PN_OP_CLONE) != (index == 0))
		return refuse(reterr, index, "clone comes first, and once");
	if (shapes[op->code].nstr >= 0 && op->nstr != (uint32_t)shapes[op->code].nstr)
		return refuse(reterr, index, "wrong number of strings");
	if (shapes[op->code].nstr != -2 && !strings_are_whole(op))
		return refuse(reterr, index, "string without end");
	if (!fd_args_are_valid(op, nfds))
		return refuse(reterr, index, "descriptor index out of range");
	if (op->code == PN_OP_SECCOMP && (op->size == 0 || op->size % 8 || op->size / 8 > UINT16_MAX))
		return refuse(reterr, index, "filter size");
	if (op->code == PN_OP_GROUPS && op->size % 4)
		return refuse(reterr, index, "group list size");
	if (op->code == PN_OP_EXEC && !exec_counts_match(op))
		return refuse(reterr, index, "exec counts");
	return 0;
}

/* One allocation holds the three NULL-terminated vectors. */
static int index_exec(struct pn_plan *plan, const struct pn_op *op, struct pn_error *reterr)
{
	char *at = (char *)(uintptr_t)pn_op_payload(op);
	char ***vectors[] = { &plan->candidates, &plan->argv, &plan->envp };
	char **slot = calloc((size_t)op->nstr + 3, sizeof(*slot));

	if (!slot)
		return pn_fail(reterr, ENOMEM, PN_STEP_MEMORY, "argument vectors");
	for (int v = 0; v < 3; v++) {
		*vectors[v] = slot;
		for (int64_t i = 0; i < op->arg[v]; i++) {
			*slot++ = at;
			at += strlen(at) + 1;
		}
		slot++;
	}
	plan->ncandidates = (uint32_t)op->arg[0];
	return 0;
}

/* What a plan has, as its walk finds it. */
struct found {
	bool tty;
	bool closed; /* CWD or READY has been */
	bool late_stdio;
	bool fork_joins;
	int64_t go;               /* index of the pipe of WAIT, or -1 */
	int64_t told;             /* index of its socket, or -1 */
	const struct pn_op *last; /* exec */
};

static void note_wait(const struct pn_op *op, struct found *found)
{
	found->go = op->arg[0];
	found->told = op->arg[1];
}

static int note_op(const struct pn_op *op, int32_t index, struct found *found, struct pn_error *reterr)
{
	if (found->closed && names_closed_fd(op))
		return refuse(reterr, index, "descriptor after the working directory");
	if (op->code == PN_OP_WAIT && found->go >= 0)
		return refuse(reterr, index, "second wait");
	if (op->code == PN_OP_TTY)
		found->tty = true;
	else if (op->code == PN_OP_CWD || op->code == PN_OP_READY)
		found->closed = true;
	else if (op->code == PN_OP_WAIT)
		note_wait(op, found);
	else if (op->code == PN_OP_STDIO)
		found->late_stdio = found->closed;
	else if (op->code == PN_OP_FORK && op->arg[0] >= 0)
		found->fork_joins = true;
	return 0;
}

/* Walks all operations. */
static int check_all(const uint8_t *bytes, uint32_t size, uint32_t nfds, struct found *found, struct pn_error *reterr)
{
	const struct pn_op *op = NULL;
	uint32_t offset = 0;
	int32_t index = 0;
	int ret;

	*found = (struct found){ .go = -1, .told = -1 };

	if (nfds < 3 || nfds > PN_PLAN_FDS + 3 || (uintptr_t)bytes % 8)
		return refuse(reterr, -1, "no stdio table, too many descriptors, or unaligned");
	for (; offset < size; offset += pn_op_span(op), index++) {
		if (op && op->code == PN_OP_EXEC)
			return refuse(reterr, index, "operation after exec");
		if (size - offset < sizeof(*op))
			return refuse(reterr, index, "truncated operation");
		op = (const struct pn_op *)(const void *)(bytes + offset);
		if (op->size > size - offset - sizeof(*op) || pn_op_span(op) > size - offset)
			return refuse(reterr, index, "truncated payload");
		ret = check_op(op, nfds, index, reterr);
		if (ret == 0)
			ret = note_op(op, index, found, reterr);
		if (ret < 0)
			return ret;
	}
	if (!op || op->code != PN_OP_EXEC)
		return refuse(reterr, index, "no exec at the end");
	found->last = op;
	return 0;
}

PN_EXPORT int pn_plan_check(const uint8_t *plan, uint32_t size, uint32_t nfds, struct pn_error *reterr)
{
	struct found found;

	return check_all(plan, size, nfds, &found, reterr);
}

int pn_plan_load(struct pn_plan *plan, const uint8_t *bytes, uint32_t size, const int *fds, uint32_t nfds,
		 struct pn_error *reterr)
{
	struct found found;
	int ret;

	*plan = (struct pn_plan){ .bytes = bytes, .size = size, .fds = fds, .nfds = nfds, .cgroup_fd = -1 };
	ret = check_all(bytes, size, nfds, &found, reterr);
	if (ret < 0)
		return ret;
	plan->has_tty = found.tty;
	plan->late_stdio = found.late_stdio;
	plan->fork_joins = found.fork_joins;
	plan->go_fd = found.go >= 0 ? fds[found.go] : -1;
	plan->told_fd = found.told >= 0 ? fds[found.told] : -1;
	plan->clone_flags = (uint64_t)pn_op_at(plan, 0)->arg[0];
	if (pn_op_at(plan, 0)->arg[1] >= 0)
		plan->cgroup_fd = fds[pn_op_at(plan, 0)->arg[1]];
	return index_exec(plan, found.last, reterr);
}

void pn_plan_free(struct pn_plan *plan)
{
	free(plan->candidates); /* the start of the one block */
	plan->candidates = NULL;
}
