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

/* The kernel's own words about a failure, of the attributes in `size` bytes after the error and what it echoes of the
 * request; empty where it gave none. */
static void ack_text(const char *tlvs, size_t size, char *ret_text, size_t capacity)
{
	while (size >= RTA_LENGTH(0)) {
		struct rtattr attr;
		size_t length;

		memcpy(&attr, tlvs, sizeof(attr));
		if (attr.rta_len < RTA_LENGTH(0) || attr.rta_len > size)
			return;
		length = attr.rta_len - RTA_LENGTH(0);
		if ((attr.rta_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG) {
			length = strnlen(tlvs + RTA_LENGTH(0), length < capacity ? length : capacity - 1);
			memcpy(ret_text, tlvs + RTA_LENGTH(0), length);
			ret_text[length] = '\0';
			return;
		}
		if (RTA_ALIGN(attr.rta_len) >= size)
			return;
		tlvs += RTA_ALIGN(attr.rta_len);
		size -= RTA_ALIGN(attr.rta_len);
	}
}

/* at: a message of type NLMSG_ERROR, of which `size` bytes are there. */
static void read_ack(const char *at, size_t size, const struct nlmsghdr *header, struct pn_nl_ack *ret_ack)
{
	const size_t fixed = NLMSG_LENGTH(sizeof(struct nlmsgerr));
	struct nlmsgerr error;
	size_t echoed = 0;

	memcpy(&error, at + NLMSG_HDRLEN, sizeof(error));
	ret_ack->seq = header->nlmsg_seq;
	/* the kernel's are -1 to -4095 */
	ret_ack->errnum = error.error <= 0 && error.error > -4096 ? -error.error : EPROTO;
	ret_ack->text[0] = '\0';
	if (!(header->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(header->nlmsg_flags & NLM_F_CAPPED)) {
		if (error.msg.nlmsg_len < NLMSG_HDRLEN || error.msg.nlmsg_len > size)
			return;
		echoed = NLMSG_ALIGN(error.msg.nlmsg_len - NLMSG_HDRLEN);
	}
	if (echoed < size - fixed)
		ack_text(at + fixed + echoed, size - fixed - echoed, ret_ack->text, sizeof(ret_ack->text));
}

PN_EXPORT int pn_nl_next_ack(const uint8_t *data, uint32_t size, uint32_t *at, struct pn_nl_ack *ret_ack)
{
	while (*at <= size && size - *at >= NLMSG_HDRLEN) {
		const char *message = (const char *)data + *at;
		size_t there = size - *at;
		struct nlmsghdr header;

		memcpy(&header, message, sizeof(header));
		if (header.nlmsg_len < NLMSG_HDRLEN)
			return -EBADMSG;
		/* longer than what is there: cut off by the receiver's buffer, its beginning is good */
		if (header.nlmsg_len < there)
			there = header.nlmsg_len;
		*at = there == header.nlmsg_len && NLMSG_ALIGN(there) < size - *at ? *at + NLMSG_ALIGN(there) : size;
		if (header.nlmsg_type == NLMSG_ERROR && there >= NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
			read_ack(message, there, &header, ret_ack);
			return 1;
		}
	}
	return 0;
}

static void ack_failed(const struct pn_nl_batch *batch, uint32_t index, const struct pn_nl_ack *ack,
		       struct pn_error *reterr)
{
	char detail[sizeof(reterr->detail)];

	snprintf(detail, sizeof(detail), "%s%s%s", batch->subject, *ack->text ? ": " : "", ack->text);
	pn_fail(reterr, ack->errnum, batch->step[index], detail);
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

/* Up to count datagrams, which the kernel has queued within the send: one that is not there never comes. */
static int recv_acks(int nl, uint32_t count, struct mmsghdr *messages)
{
	int got;

	do
		got = recvmmsg(nl, messages, count, MSG_DONTWAIT, NULL);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

/* What is known of the acknowledgements of one transaction. */
struct answers {
	uint32_t missing;
	bool seen[PN_NL_MESSAGES];
	uint32_t first_failed; /* PN_NL_MESSAGES: none */
};

/* One datagram. A late answer to an abandoned transaction is none of ours. */
static void take_answers(const struct pn_nl_batch *batch, struct answers *answers, const uint8_t *data, uint32_t size,
			 struct pn_error *reterr)
{
	struct pn_nl_ack ack;
	uint32_t at = 0;

	while (pn_nl_next_ack(data, size, &at, &ack) == 1) {
		uint32_t index = ack.seq - batch->seq;

		if (index >= batch->count || answers->seen[index])
			continue;
		answers->seen[index] = true;
		answers->missing--;
		if (ack.errnum && index < answers->first_failed) {
			answers->first_failed = index;
			ack_failed(batch, index, &ack, reterr);
		}
	}
}

int pn_nl_transact(int nl, struct pn_nl_batch *batch, struct pn_error *reterr)
{
	uint8_t space[PN_NL_MESSAGES][ACK_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct answers answers = { .missing = batch->count, .first_failed = PN_NL_MESSAGES };
	struct mmsghdr messages[PN_NL_MESSAGES] = { 0 };
	struct sockaddr_nl senders[PN_NL_MESSAGES];
	struct iovec iov[PN_NL_MESSAGES];
	int ret;

	if (batch->overflow)
		return pn_fail(reterr, EMSGSIZE, PN_STEP_NETLINK, batch->subject);
	ret = send_batch(nl, batch);
	if (ret < 0)
		return pn_fail(reterr, -ret, PN_STEP_NETLINK, "send");
	while (answers.missing) {
		int got;

		for (uint32_t i = 0; i < answers.missing; i++) {
			iov[i] = (struct iovec){ .iov_base = space[i], .iov_len = ACK_BYTES };
			messages[i].msg_hdr = (struct msghdr){ .msg_name = &senders[i],
							       .msg_namelen = sizeof(senders[i]),
							       .msg_iov = &iov[i],
							       .msg_iovlen = 1 };
		}
		got = recv_acks(nl, answers.missing, messages);
		if (got < 0)
			return pn_fail(reterr, -got, PN_STEP_NETLINK, "acknowledgement");
		for (int i = 0; i < got; i++)
			if (senders[i].nl_pid == 0) /* the kernel; root's processes may write here too */
				take_answers(batch, &answers, space[i], messages[i].msg_len, reterr);
	}
	return answers.first_failed < PN_NL_MESSAGES ? -reterr->errnum : 0;
}
