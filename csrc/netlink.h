/* The one door to rtnetlink, for link.c and namespace.c: a batch of requests, sent at once, each acknowledged.
 *
 * A batch is built on the caller's stack. Running out of space is remembered, not checked at each put, and fails the
 * transaction before anything is sent. Messages that follow a failed one in a batch are still executed by the kernel:
 * put two in one batch only where the second is harmless without the first. */
#ifndef PN_NETLINK_H
#define PN_NETLINK_H

#include "pynetns.h"

#include <linux/netlink.h>
#include <stdbool.h>

enum pn_nl_limits { PN_NL_MESSAGES = 4, PN_NL_BYTES = 1024 };

struct pn_nl_batch {
	const char *subject; /* what the requests are about; begins the detail of an error */
	uint32_t step[PN_NL_MESSAGES];
	uint32_t count;
	uint32_t start; /* where the message under construction begins */
	uint32_t used;
	uint32_t seq; /* of the first message */
	bool overflow;
	char data[PN_NL_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

void pn_nl_init(struct pn_nl_batch *batch, const char *subject);
/* Begins a message; family is the fixed part of its type (ifinfomsg, …). NLM_F_REQUEST and NLM_F_ACK are added. */
void pn_nl_begin(struct pn_nl_batch *batch, uint32_t step, uint16_t type, uint16_t flags, const void *fixed,
		 size_t size);
void pn_nl_put(struct pn_nl_batch *batch, uint16_t type, const void *value, size_t size);
void pn_nl_put_u8(struct pn_nl_batch *batch, uint16_t type, uint8_t value);
void pn_nl_put_u32(struct pn_nl_batch *batch, uint16_t type, uint32_t value);
/* With its NUL, as all of rtnetlink takes it. */
void pn_nl_put_string(struct pn_nl_batch *batch, uint16_t type, const char *value);
/* A structure without attribute header (the ifinfomsg of a veth's peer). */
void pn_nl_put_raw(struct pn_nl_batch *batch, const void *value, size_t size);
uint32_t pn_nl_nest(struct pn_nl_batch *batch, uint16_t type);
void pn_nl_nest_end(struct pn_nl_batch *batch, uint32_t nest);
/* Sends the batch and reads every acknowledgement. The error is that of the first message that failed. */
int pn_nl_transact(int nl, struct pn_nl_batch *batch, struct pn_error *reterr);

#endif
