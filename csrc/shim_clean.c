/* A clean start, whoever starts: what a process inherits and a container must not. Runs once, before anything else.
 *
 * Owns the values that stand for "nobody's": those that a container of Docker has. What cannot be undone (no_new_privs,
 * a seccomp filter, capabilities missing from the bounding set, hard limits lowered without CAP_SYS_RESOURCE) stays the
 * starter's; docs/shim-protocol.md says so.
 */
#include "shim.h"
#include "syscalls.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MIB (1024UL * 1024)
#define NOFILE 1048576UL
#define KEYCTL_JOIN_SESSION_KEYRING 1

int clean_close_descriptors(unsigned int first)
{
	return (int)syscall(SYS_close_range, first, ~0U, 0);
}

/* Best effort, as making those cgroups was: a hierarchy that takes nobody in (a real-time task in v1's cpu, say) keeps
 * no container from starting. */
void clean_join_cgroups(unsigned int first, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		(void)!write((int)(first + i), "0", 1);
		close((int)(first + i));
	}
}

/* Raw: the C library keeps two real-time signals for itself and would not touch them. */
static void reset_signals(void)
{
	unsigned long nobody[4] = { 0 };
	sigset_t none;

	for (int number = 1; number <= 64; number++)
		syscall(SYS_rt_sigaction, number, nobody, NULL, 8UL);
	sigemptyset(&none);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8UL);
	for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++)
		setitimer((__itimer_which_t)which, &(struct itimerval){ 0 }, NULL);
}

/* Docker's service has no limits of its own but these; the rest are the kernel's defaults. */
static const struct {
	int resource;
	rlim_t soft, hard;
} limits[] = {
	{ RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_STACK, 8 * MIB, RLIM_INFINITY },
	{ RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_RSS, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_NOFILE, NOFILE, NOFILE },
	{ RLIMIT_MEMLOCK, 8 * MIB, 8 * MIB },
	{ RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_LOCKS, RLIM_INFINITY, RLIM_INFINITY },
	{ RLIMIT_MSGQUEUE, 819200, 819200 },
	{ RLIMIT_NICE, 0, 0 },
	{ RLIMIT_RTPRIO, 0, 0 },
	{ RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY },
};

/* Where the hard limit may not be raised, as far up as it goes. */
static void set_limit(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit limit = { .rlim_cur = soft, .rlim_max = hard };

	if (setrlimit((__rlimit_resource_t)resource, &limit) == 0 ||
	    getrlimit((__rlimit_resource_t)resource, &limit) < 0)
		return;
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	setrlimit((__rlimit_resource_t)resource, &limit);
}

static void reset_limits(void)
{
	struct rlimit first;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		set_limit(limits[i].resource, limits[i].soft, limits[i].hard);
	/* depends on the machine's memory: what its first process was given */
	if (prlimit(1, RLIMIT_SIGPENDING, NULL, &first) == 0)
		set_limit(RLIMIT_SIGPENDING, first.rlim_max, first.rlim_max);
}

static void reset_scheduling(void)
{
	unsigned char every_cpu[1024];

	memset(every_cpu, 0xff, sizeof(every_cpu));
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_ioprio_set, 1, 0, 0);
	syscall(SYS_sched_setaffinity, 0, sizeof(every_cpu), every_cpu);
	syscall(SYS_set_mempolicy, 0, NULL, 0UL);
	prctl(PR_SET_TIMERSLACK, 50000UL, 0UL, 0UL, 0UL);
	prctl(PR_SET_THP_DISABLE, 0UL, 0UL, 0UL, 0UL);
}

static void reset_identity(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];

	setgroups(0, NULL);
	(void)!setresgid(0, 0, 0);
	(void)!setresuid(0, 0, 0);
	prctl(PR_SET_SECUREBITS, 0UL, 0UL, 0UL, 0UL);
	prctl(PR_SET_KEEPCAPS, 0UL, 0UL, 0UL, 0UL);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0UL, 0UL, 0UL);
	if (syscall(SYS_capget, &header, caps) == 0) {
		caps[0].inheritable = caps[1].inheritable = 0;
		syscall(SYS_capset, &header, caps);
	}
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0);
	umask(022);
	personality(PER_LINUX);
	prctl(PR_SET_PDEATHSIG, 0UL, 0UL, 0UL, 0UL);
}

static const struct {
	const char *path, *value;
} proc_values[] = {
	{ "/proc/self/coredump_filter", "0x33" },
	{ "/proc/self/loginuid", "4294967295" },
	{ "/proc/self/oom_score_adj", "-999" }, /* the shim's own; a plan writes its container's */
};

/* Best effort: each needs a capability or a kernel option of its own. */
static void reset_proc(void)
{
	for (size_t i = 0; i < sizeof(proc_values) / sizeof(proc_values[0]); i++) {
		int fd = open(proc_values[i].path, O_WRONLY | O_CLOEXEC);

		if (fd >= 0) {
			(void)!write(fd, proc_values[i].value, strlen(proc_values[i].value));
			close(fd);
		}
	}
}

int clean_process(void)
{
	struct rlimit size;

	reset_signals();
	reset_identity();
	reset_limits();
	reset_scheduling();
	reset_proc();
	/* the one limit that would lose data: logs would end at it */
	if (getrlimit(RLIMIT_FSIZE, &size) == 0 && size.rlim_cur != RLIM_INFINITY) {
		errno = EFBIG;
		return -1;
	}
	return 0;
}
