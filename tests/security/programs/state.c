/* Everything that a program inherits, as "name value" lines: what the starter's process must not leak into. */
#include "attack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void file_line(const char *name, const char *path)
{
	char text[256] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!read(fd, text, sizeof(text) - 1);
	text[strcspn(text, "\n")] = '\0';
	printf("%s %s\n", name, text);
	if (fd >= 0)
		close(fd);
}

static void descriptors(const char *name, const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int mine = strstr(path, "self") || getpid() == 1; /* then the listing's own descriptor is in it */

	printf("%s", name);
	while (dir && (entry = readdir(dir)))
		if (*entry->d_name != '.' && !(mine && atoi(entry->d_name) == dirfd(dir)))
			printf(" %s", entry->d_name);
	puts("");
	if (dir)
		closedir(dir);
}

/* The kernel's own view of all 64: dispositions that are not the default, and the mask. */
static void signals(void)
{
	uint64_t mask = 0;

	printf("dispositions");
	for (int sig = 1; sig <= 64; sig++) {
		uint64_t action[4] = { 0 };

		if (syscall(SYS_rt_sigaction, sig, NULL, action, 8) == 0 && action[0])
			printf(" %d:%llu", sig, (unsigned long long)action[0]);
	}
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	printf("\nsignal-mask %llx\n", (unsigned long long)mask);
}

static void limits(void)
{
	struct rlimit limit;

	for (int resource = 0; resource < RLIM_NLIMITS; resource++)
		if (getrlimit(resource, &limit) == 0)
			printf("limit-%d %llu %llu\n", resource, (unsigned long long)limit.rlim_cur,
			       (unsigned long long)limit.rlim_max);
}

static void scheduling(void)
{
	cpu_set_t cpus;
	int policy;
	unsigned long nodes[16] = { 0 };

	printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
	printf("scheduler %d\n", sched_getscheduler(0));
	printf("io-priority %ld\n", syscall(SYS_ioprio_get, 1, 0));
	sched_getaffinity(0, sizeof(cpus), &cpus);
	printf("cpus %d\n", CPU_COUNT(&cpus));
	printf("timer-slack %ld\n", (long)prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	if (syscall(SYS_get_mempolicy, &policy, nodes, 1024UL, NULL, 0UL) == 0)
		printf("memory-policy %d\n", policy);
}

static void identity(void)
{
	char *none[] = { NULL };
	mode_t mask = umask(0);

	cmd_ids(0, none);
	printf("umask %03o\n", mask);
	printf("session %d group %d\n", getsid(0), getpgrp());
	printf("securebits %x\n", prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
	printf("no-new-privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	printf("dumpable %d\n", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	printf("keepcaps %d\n", prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
	printf("thp-disable %d\n", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	printf("personality %x\n", personality(0xffffffff));
	printf("session-keyring %ld\n", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
}

static void death_signal_and_subreaper(void)
{
	int value = 0;

	prctl(PR_GET_PDEATHSIG, &value, 0, 0, 0);
	printf("death-signal %d\n", value);
	prctl(PR_GET_CHILD_SUBREAPER, &value, 0, 0, 0);
	printf("subreaper %d\n", value);
}

static void terminal(void)
{
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	printf("terminal %s\n", fd >= 0 ? "yes" : strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void processes(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	printf("processes");
	while (dir && (entry = readdir(dir)))
		if (*entry->d_name >= '1' && *entry->d_name <= '9')
			printf(" %s", entry->d_name);
	printf("\nparent %d\n", getppid());
	if (dir)
		closedir(dir);
}

extern char **environ;

int cmd_state(int argc, char **argv)
{
	char cwd[4096] = "";

	(void)argc;
	(void)argv;
	descriptors("descriptors", "/proc/self/fd");
	descriptors("descriptors-of-init", "/proc/1/fd");
	signals();
	identity();
	limits();
	scheduling();
	death_signal_and_subreaper();
	terminal();
	processes();
	file_line("oom-score-adj", "/proc/self/oom_score_adj");
	file_line("coredump-filter", "/proc/self/coredump_filter");
	(void)!getcwd(cwd, sizeof(cwd));
	printf("directory %s\n", cwd);
	for (char **entry = environ; *entry; entry++)
		printf("env-%.*s %s\n", (int)strcspn(*entry, "="), *entry, *entry + strcspn(*entry, "="));
	return 0;
}
