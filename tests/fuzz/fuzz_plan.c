/* libFuzzer: csrc/plan.c, which decides alone what the child will trust. Input: one byte, the size of the descriptor
 * table less 3; then the plan. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a loaded plan promises: operations that lie within it, one after the other, and vectors with their ends. */
static void check_promises(const struct pn_plan *plan)
{
	char **vectors[] = { plan->candidates, plan->argv, plan->envp };
	size_t length = 0;

	for (uint32_t at = 0; at < plan->size; at += pn_op_span(pn_op_at(plan, at)))
		if (plan->size - at < sizeof(struct pn_op) || pn_op_span(pn_op_at(plan, at)) > plan->size - at)
			abort();
	for (int v = 0; v < 3; v++)
		for (char **one = vectors[v]; *one; one++)
			length += strlen(*one) + 1;
	if (!plan->ncandidates || !*plan->argv || length > plan->size)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fds[3 + 255];
	struct pn_error error;
	struct pn_plan plan;
	uint8_t *bytes;
	uint32_t nfds;
	int checked, loaded;

	if (size < 1)
		return 0;
	nfds = 3 + data[0];
	for (uint32_t i = 0; i < nfds; i++)
		fds[i] = (int)i;
	bytes = malloc(size - 1); /* of exactly that size, so that no byte behind it is read unnoticed */
	if (size > 1)
		memcpy(bytes, data + 1, size - 1);
	checked = pn_plan_check(bytes, (uint32_t)(size - 1), nfds, &error);
	loaded = pn_plan_load(&plan, bytes, (uint32_t)(size - 1), fds, nfds, &error);
	if (checked != loaded)
		abort();
	if (loaded == 0) {
		check_promises(&plan);
		pn_plan_free(&plan);
	}
	free(bytes);
	return 0;
}
