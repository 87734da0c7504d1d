/* Starts command-line contenders (runc, crun, bwrap) from a small process: what is measured is the command itself, not
 * the cost of forking a Python interpreter.
 *
 * launch [-u PATH]…: unmounts the PATHs in a mount namespace of its own first. Then reads commands from stdin, one a
 * line, words separated by tabs; runs each, waits for its end and prints "START_NS END_NS STATUS".
 */
#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORDS 128

extern char **environ;

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static int split(char *line, char **words)
{
	int count = 0;

	line[strcspn(line, "\n")] = '\0';
	for (char *word = strtok(line, "\t"); word && count < MAX_WORDS - 1; word = strtok(NULL, "\t"))
		words[count++] = word;
	words[count] = NULL;
	return count;
}

static void run(char **words)
{
	posix_spawn_file_actions_t actions;
	long long start, end;
	int status = -1;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	start = now();
	if (posix_spawnp(&pid, words[0], &actions, NULL, words, environ) == 0)
		waitpid(pid, &status, 0);
	end = now();
	posix_spawn_file_actions_destroy(&actions);
	printf("%lld %lld %d\n", start, end, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static int unmount_privately(int argc, char **argv)
{
	if (argc < 3)
		return 0;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	for (int i = 2; i < argc; i += 2)
		if (umount2(argv[i], MNT_DETACH) < 0)
			return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static char line[65536];
	char *words[MAX_WORDS];

	if (unmount_privately(argc, argv) < 0) {
		perror("private mount namespace");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin))
		if (split(line, words) > 0)
			run(words);
	return 0;
}
