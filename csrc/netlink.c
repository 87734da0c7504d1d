/* rtnetlink transactions: building a batch of requests, sending it, reading the acknowledgements.
 *
 * Knows nothing of links; see netlink.h for the contract. The kernel executes a request within the send, so all
 * acknowledgements are queued when it returns and one recvmmsg takes them. */
#include "netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define ACK_BYTES 512

PN_EXPORT int pn_nl_open(int *ret_fd, struct pn_error *reterr)
{
	int on = 1;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_SOCKET, "rtnetlink");
	/* Both only make answers better: the reason as text, and without a copy of the request. */
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	*ret_fd = fd;
	return 0;
}

/* ---- building ---- */

void pn_nl_init(struct pn_nl_batch *batch, const char *subject)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	batch->subject = subject;
	batch->count = batch->start = batch->used = 0;
	batch->overflow = false;
	/* Any number that an earlier, abandoned transaction on this socket did not use. */
	batch->seq = (uint32_t)now.tv_nsec ^ ((uint32_t)now.tv_sec << 30);
}

/* Space for size bytes, zeroed up to the next boundary; NULL once the batch is full. */
static void *reserve(struct pn_nl_batch *batch, size_t size)
{
	size_t padded = NLMSG_ALIGN(size);
	char *at = batch->data + batch->used;

	if (batch->overflow || padded < size || padded > sizeof(batch->data) - batch->used) {
		batch->overflow = true;
		return NULL;
	}
	memset(at + size, 0, padded - size);
	batch->used += (uint32_t)padded;
	if (batch->count)
		((struct nlmsghdr *)(batch->data + batch->start))->nlmsg_len = batch->used - batch->start;
	return at;
}

void pn_nl_put_raw(struct pn_nl_batch *batch, const void *value, size_t size)
{
	void *at = reserve(batch, size);

	if (at)
		memcpy(at, value, size);
}

void pn_nl_begin(struct pn_nl_batch *batch, uint32_t step, uint16_t type, uint16_t flags, const void *fixed,
		 size_t size)
{
	struct nlmsghdr header = {
		.nlmsg_len = sizeof(header),
		.nlmsg_type = type,
		.nlmsg_flags = flags | NLM_F_REQUEST | NLM_F_ACK,
		.nlmsg_seq = batch->seq + batch->count,
	};

	if (batch->count == PN_NL_MESSAGES) {
		batch->overflow = true;
		return;
	}
	batch->start = batch->used;
	batch->step[batch->count] = step;
	pn_nl_put_raw(batch, &header, sizeof(header));
	batch->count++;
	pn_nl_put_raw(batch, fixed, size);
}

void pn_nl_put(struct pn_nl_batch *batch, uint16_t type, const void *value, size_t size)
{
	struct rtattr header = { .rta_len = (uint16_t)RTA_LENGTH(size), .rta_type = type };
	char *at;

	if (size > UINT16_MAX - RTA_LENGTH(0)) {
		batch->overflow = true;
		return;
	}
	at = reserve(batch, RTA_LENGTH(size));
	if (!at)
		return;
	memcpy(at, &header, sizeof(header));
	if (size)
		memcpy(at + RTA_LENGTH(0), value, size);
}

void pn_nl_put_u8(struct pn_nl_batch *batch, uint16_t type, uint8_t value)
{
	pn_nl_put(batch, type, &value, sizeof(value));
}

void pn_nl_put_u32(struct pn_nl_batch *batch, uint16_t type, uint32_t value)
{
	pn_nl_put(batch, type, &value, sizeof(value));
}

void pn_nl_put_string(struct pn_nl_batch *batch, uint16_t type, const char *value)
{
	pn_nl_put(batch, type, value, strlen(value) + 1);
}

uint32_t pn_nl_nest(struct pn_nl_batch *batch, uint16_t type)
{
	uint32_t nest = batch->used;

	pn_nl_put(batch, type | NLA_F_NESTED, NULL, 0);
	return nest;
}

void pn_nl_nest_end(struct pn_nl_batch *batch, uint32_t nest)
{
	if (!batch->overflow)
		((struct rtattr *)(batch->data + nest))->rta_len = (uint16_t)(batch->used - nest);
}

/* ---- sending ---- */

/* The kernel's own words about a failure, NULL where it gave none. */
static const char *ack_text(const struct nlmsghdr *header)
{
	const struct nlmsgerr *error = NLMSG_DATA(header);
	size_t echoed = header->nlmsg_flags & NLM_F_CAPPED ? 0 : NLMSG_ALIGN(error->msg.nlmsg_len - NLMSG_HDRLEN);
	size_t at = NLMSG_LENGTH(sizeof(*error)) + echoed;

	if (!(header->nlmsg_flags & NLM_F_ACK_TLVS))
		return NULL;
	while (at + RTA_LENGTH(1) <= header->nlmsg_len) {
		const struct rtattr *attr = (const void *)((const char *)header + at);

		if (attr->rta_len < RTA_LENGTH(0) || at + attr->rta_len > header->nlmsg_len)
			return NULL;
		if ((attr->rta_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG && attr->rta_len > RTA_LENGTH(0) &&
		    ((const char *)attr)[attr->rta_len - 1] == '\0')
			return RTA_DATA(attr);
		at += RTA_ALIGN(attr->rta_len);
	}
	return NULL;
}

static void ack_failed(const struct pn_nl_batch *batch, uint32_t index, const struct nlmsghdr *header,
		       struct pn_error *reterr)
{
	const struct nlmsgerr *error = NLMSG_DATA(header);
	const char *text = ack_text(header);
	char detail[sizeof(reterr->detail)];

	snprintf(detail, sizeof(detail), "%s%s%s", batch->subject, text ? ": " : "", text ? text : "");
	pn_fail(reterr, -error->error, batch->step[index], detail);
}

static int send_batch(int nl, const struct pn_nl_batch *batch)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	ssize_t sent;

	do
		sent = sendto(nl, batch->data, batch->used, 0, (const struct sockaddr *)&kernel, sizeof(kernel));
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static int recv_acks(int nl, uint32_t count, struct mmsghdr *messages)
{
	int got;

	do
		got = recvmmsg(nl, messages, count, 0, NULL);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

int pn_nl_transact(int nl, struct pn_nl_batch *batch, struct pn_error *reterr)
{
	char space[PN_NL_MESSAGES][ACK_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct mmsghdr messages[PN_NL_MESSAGES] = { 0 };
	struct iovec iov[PN_NL_MESSAGES];
	uint32_t first_failed = PN_NL_MESSAGES, pending = batch->count;
	int ret;

	if (batch->overflow)
		return pn_fail(reterr, EMSGSIZE, PN_STEP_NETLINK, batch->subject);
	ret = send_batch(nl, batch);
	if (ret < 0)
		return pn_fail(reterr, -ret, PN_STEP_NETLINK, "send");
	for (uint32_t i = 0; i < batch->count; i++) {
		iov[i] = (struct iovec){ .iov_base = space[i], .iov_len = ACK_BYTES };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	while (pending) {
		int got = recv_acks(nl, pending, messages);

		if (got < 0)
			return pn_fail(reterr, -got, PN_STEP_NETLINK, "acknowledgement");
		for (int i = 0; i < got; i++) {
			const struct nlmsghdr *header = (const void *)space[i];
			uint32_t index = header->nlmsg_seq - batch->seq;

			/* A late answer to an abandoned transaction is none of ours. */
			if (messages[i].msg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)) ||
			    header->nlmsg_type != NLMSG_ERROR || index >= batch->count)
				continue;
			pending--;
			if (((const struct nlmsgerr *)NLMSG_DATA(header))->error && index < first_failed) {
				first_failed = index;
				ack_failed(batch, index, header, reterr);
			}
		}
	}
	return first_failed < PN_NL_MESSAGES ? -reterr->errnum : 0;
}
