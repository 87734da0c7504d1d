/*
 * Makes system calls and says what became of them: a line "ABI NUMBER ANSWER" on standard output for each, from a list
 * of "ABI NUMBER [ARGUMENT...]" lines on standard input. ABI: n (this machine's own), i (i386, int 0x80), x (x32).
 * ANSWER: the errno, 0, "signal N", or "hangs". Each call is made in a child of its own, with arguments that do no
 * harm where none are given: descriptors and pointers that do not exist.
 *
 * Static, and without a C library's help in the child: it must run in any image and under any filter that lets it
 * write, fork and wait.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

#define X32_BIT 0x40000000L

static long call_i386(long number, const unsigned long *arg)
{
#ifdef __x86_64__
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(number), "b"(arg[0]), "c"(arg[1]), "d"(arg[2]), "S"(arg[3]), "D"(arg[4])
			 : "memory", "r8", "r9", "r10", "r11");
	return ret;
#else
	(void)number;
	(void)arg;
	return -ENOSYS;
#endif
}

static long call(char abi, long number, const unsigned long *arg)
{
	long ret;

	if (abi == 'i')
		return call_i386(number, arg);
	ret = syscall(abi == 'x' ? number | X32_BIT : number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	return ret < 0 ? -errno : ret;
}

/* The answer travels by a pipe: a call such as exit_group may end the child before it can say anything. */
static void in_child(char abi, long number, const unsigned long *arg, int out)
{
	unsigned char answer[2];
	long ret;

	alarm(1);
	ret = call(abi, number, arg);
	ret = ret < 0 && ret >= -4095 ? -ret : 0;
	answer[0] = (unsigned char)(ret & 0xff);
	answer[1] = (unsigned char)(ret >> 8);
	if (write(out, answer, sizeof(answer)) < 0)
		_exit(1);
	_exit(0);
}

static void probe(char abi, long number, const unsigned long *arg)
{
	unsigned char answer[2];
	int pipes[2], status;
	ssize_t got;
	pid_t pid;

	if (pipe(pipes) < 0)
		exit(2);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		exit(3);
	if (pid == 0)
		in_child(abi, number, arg, pipes[1]);
	close(pipes[1]);
	if (waitpid(pid, &status, 0) < 0)
		exit(4);
	got = read(pipes[0], answer, sizeof(answer));
	close(pipes[0]);
	printf("%c %ld ", abi, number);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM)
		printf("signal %d\n", WTERMSIG(status));
	else if (got == sizeof(answer))
		printf("%d\n", answer[0] | answer[1] << 8);
	else
		printf("%s\n", WIFSIGNALED(status) ? "hangs" : "ends");
}

int main(void)
{
	unsigned long arg[6];
	char line[512], abi, *at, *end;
	long number;
	int i;

	signal(SIGPIPE, SIG_IGN);
	while (fgets(line, sizeof(line), stdin)) {
		abi = line[0];
		number = strtol(line + 1, &at, 0);
		for (i = 0; i < 6; i++) {
			arg[i] = strtoul(at, &end, 0);
			if (end == at)
				arg[i] = ~0UL;
			at = end;
		}
		probe(abi, number, arg);
	}
	return 0;
}
