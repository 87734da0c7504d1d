/* Cloning the child of a checked plan. Private to spawn.c and the shim. */
#ifndef PN_SPAWN_H
#define PN_SPAWN_H

#include "child.h"

/* Clones without sharing memory: the caller goes on at once and hears of the child through `report`, its end of the
 * socket pair whose other end is report_child. trace may be NULL. ret_pidfd and ret_pid are written by the kernel,
 * before the child runs.
 *
 * shared_word (enum pn_child_word), in memory shared with the child, tells how far it is; NULL: nobody asks. Given as
 * PN_CHILD_SHARES the child is born with the caller's descriptor table and copies only the low end of it that it needs,
 * however many the caller has: until the word is another (a futex waiter is woken then, and the report says so), or the
 * report has ended, the plan's descriptors and report_child must stay open. Given as PN_CHILD_PREPARES it copies all.
 */
int pn_spawn_copying(const struct pn_plan *plan, int report_child, struct pn_trace *trace, uint32_t *shared_word,
		     int *ret_pidfd, int *ret_pid, struct pn_error *reterr);

/* One report, or 0 at the end of the socket (the program was executed), or -errno. ret_fd gets a passed fd or -1. */
int pn_report_recv(int sock, int flags, struct pn_report *report, int *ret_fd);

#endif
