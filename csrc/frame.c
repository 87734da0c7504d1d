/* One datagram each way: the messages between an engine and the shim. docs/shim-protocol.md is the description. */
#include "pynetns.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_FDS 253 /* SCM_MAX_FD of the kernel */

PN_EXPORT int pn_frame_send(int sock, const struct pn_frame *frame, const uint8_t *payload, uint32_t size,
			    const int *fds, uint32_t nfds, struct pn_error *reterr)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)frame, .iov_len = sizeof(*frame) },
		{ .iov_base = (void *)(uintptr_t)payload, .iov_len = size },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };
	ssize_t sent;

	if (nfds > MAX_FDS || size > PN_FRAME_MAX)
		return pn_fail(reterr, E2BIG, PN_STEP_FRAME, "too many descriptors or too large");
	if (nfds > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
	}
	do
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? pn_fail(reterr, errno, PN_STEP_FRAME, "send") : 0;
}

static void take_fds(struct msghdr *msg, int *fds, uint32_t capacity, uint32_t *ret_nfds)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*ret_nfds < capacity)
				fds[(*ret_nfds)++] = fd;
			else
				pn_close(&fd);
		}
	}
}

PN_EXPORT int pn_frame_recv(int sock, struct pn_frame *frame, uint8_t *payload, uint32_t capacity, int *fds,
			    uint32_t fds_capacity, uint32_t *ret_nfds, struct pn_error *reterr)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov[2] = {
		{ .iov_base = frame, .iov_len = sizeof(*frame) },
		{ .iov_base = payload, .iov_len = capacity },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = capacity ? 2 : 1 };
	ssize_t size;

	*ret_nfds = 0;
	msg.msg_control = control.space;
	msg.msg_controllen = sizeof(control.space);
	size = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	if (size < 0)
		return pn_fail(reterr, errno, PN_STEP_FRAME, "receive");
	if (size == 0)
		return pn_fail(reterr, EPIPE, PN_STEP_FRAME, "the other side is gone");
	take_fds(&msg, fds, fds_capacity, ret_nfds);
	if ((size_t)size < sizeof(*frame) || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (uint32_t i = 0; i < *ret_nfds; i++)
			pn_close(&fds[i]);
		*ret_nfds = 0;
		if ((msg.msg_flags & MSG_CTRUNC) && !(msg.msg_flags & MSG_TRUNC)) /* no free number for them */
			return pn_fail(reterr, EMFILE, PN_STEP_FRAME, "descriptors of a frame");
		return pn_fail(reterr, EBADMSG, PN_STEP_FRAME, "truncated frame");
	}
	frame->key[PN_KEY_MAX - 1] = '\0';
	return (int)((size_t)size - sizeof(*frame));
}
