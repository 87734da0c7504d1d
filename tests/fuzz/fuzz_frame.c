/* libFuzzer: csrc/frame.c, what arrives on the shim's socket. Input: the number of descriptors that come along, the
 * room for them, the room for the payload in units of 64 bytes; then the datagram. */
#include "pynetns.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_SENT 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_raw(int sock, const uint8_t *data, size_t size, unsigned int nfds)
{
	union {
		char space[CMSG_SPACE(sizeof(int) * MAX_SENT)];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		for (unsigned int i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &(int){ sock }, sizeof(int));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		abort();
}

/* Whatever came: every descriptor is either handed out or closed again, and the next free number shows it. */
static int next_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t got = 0, room, capacity;
	int pair[2], fds[MAX_SENT], before, ret;
	struct pn_frame *frame;
	struct pn_error error;
	uint8_t *payload;

	if (size < 4 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 0;
	room = data[1] % (MAX_SENT + 1);
	capacity = data[2] * 64U;
	send_raw(pair[0], data + 3, size - 3, data[0] % (MAX_SENT + 1));
	before = next_fd();
	frame = malloc(sizeof(*frame));
	payload = malloc(capacity);
	ret = pn_frame_recv(pair[1], frame, payload, capacity, fds, room, &got, &error);
	if (got > room || (ret < 0 && got) || ret > (int)capacity)
		abort();
	if (ret >= 0 &&
	    (memchr(frame->key, '\0', sizeof(frame->key)) == NULL || (size_t)ret + sizeof(*frame) != size - 3))
		abort();
	for (uint32_t i = 0; i < got; i++)
		close(fds[i]);
	if (next_fd() != before)
		abort();
	free(payload);
	free(frame);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
