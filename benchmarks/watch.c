/* The one observer of the end mark: it waits for a byte in the FIFO and prints when it came.
 *
 * watch FIFO: prints "ready", then for every byte its CLOCK_MONOTONIC time in ns, until stdin ends. A process of its
 * own, in C, because a thread of the harness would have to wait for Python's interpreter lock.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	struct pollfd fds[2] = { { .events = POLLIN }, { .fd = 0, .events = POLLIN } };
	char bytes[64];

	/* O_RDWR: never an end of file, and no writer has to wait for a reader */
	fds[0].fd = argc > 1 ? open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
	if (fds[0].fd < 0) {
		perror("watch FIFO");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (poll(fds, 2, -1) > 0 && !fds[1].revents) {
		long long time = now();
		ssize_t count = read(fds[0].fd, bytes, sizeof(bytes));

		for (ssize_t i = 0; i < count; i++)
			printf("%lld\n", time);
	}
	return 0;
}
