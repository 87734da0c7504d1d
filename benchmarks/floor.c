/* The floor: the kernel work of pynetns's cold start on a bridge in the best known order, and nothing else.
 *
 * No state, no checks, no locks, no messages between processes: one process does it all. It makes no shortcut that
 * pynetns could not make: every namespace, mount, mask, limit of privileges and device rule of a default container is
 * there, the namespace is pinned, and the container's files lie in directories made at create.
 *
 * Reads commands from stdin: "create N", "start N", "remove N". Answers "created N", "started N START_NS RETURN_NS"
 * (with --trace also "name=ns" for each step), "removed N". With --samples COUNT it measures by itself.
 */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CONTAINERS 4096

const char *const mark_names[MARK_COUNT] = {
	"start",  "netns",    "veth", "config",   "cgroup",   "overlay",  "binds",  "pipes", "clone",
	"root",   "proc",     "dev",  "devpts",   "sysfs",    "cgroupfs", "mqueue", "shm",   "attach",
	"sysctl", "readonly", "mask", "identity", "bounding", "seccomp",  "caps",   "exec",
};

struct settings settings = {
	.mark_destination = "/mark",
	.program = "/probe",
	.fifo = "/mark/fifo",
	.bridge = "pnfloor0",
	.subnet = "10.213",
};
struct report *report;

static struct start starts[MAX_CONTAINERS];

noreturn void die(const char *step)
{
	fprintf(stderr, "floor: %s: %s\n", step, strerror(errno));
	_exit(1);
}

/* The child of a memory-sharing clone runs on this very stack frame's continuation: no call may return in it. */
static inline __attribute__((always_inline)) long raw_clone3(struct clone_args *args)
{
#if defined(__x86_64__)
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(SYS_clone3), "D"(args), "S"(sizeof(*args)) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 asm("x8") = SYS_clone3;
	register long x0 asm("x0") = (long)args;
	register long x1 asm("x1") = sizeof(*args);

	asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
	return x0;
#else
#error "raw_clone3 for this machine"
#endif
}

static void __attribute__((noinline)) spawn(struct start *start)
{
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_PIDFD | CLONE_VFORK |
			 CLONE_INTO_CGROUP | CLONE_FILES | (settings.copy_vm ? 0 : CLONE_VM),
		.pidfd = (uint64_t)(uintptr_t)&start->pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)start->cgroup,
	};
	long pid = raw_clone3(&args);

	if (pid == 0)
		child_run(start);
	if (pid < 0)
		die("clone");
	start->pid = (int)pid;
}

/* What lives as long as the container goes where no child has to copy it. */
static void move_up(int *fd)
{
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_HIGH_FD);

	if (high < 0)
		die("descriptor");
	close(*fd);
	*fd = high;
}

static void close_all(const struct start *start)
{
	const int fds[] = { start->netns,       start->netlink,  start->cgroup,   start->rootfs,
			    start->binds[0],    start->binds[1], start->binds[2], start->binds[3],
			    start->cgroup_view, start->out[1],   start->err[1] };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
}

static void start_container(unsigned int index)
{
	struct start *start = &starts[index];

	start->index = index;
	report->errnum = 0;
	mark(MARK_START);
	make_netns(start);
	mark(MARK_NETNS);
	make_veth(start);
	mark(MARK_VETH);
	configure(start);
	mark(MARK_CONFIG);
	make_cgroup(start);
	mark(MARK_CGROUP);
	make_overlay(start);
	mark(MARK_OVERLAY);
	make_binds(start);
	mark(MARK_BINDS);
	if (pipe2(start->out, O_CLOEXEC) < 0 || pipe2(start->err, O_CLOEXEC) < 0)
		die("pipes");
	mark(MARK_PIPES);
	enter_small_namespace();
	spawn(start);
	leave_small_namespace();
	move_up(&start->pidfd);
	move_up(&start->out[0]);
	move_up(&start->err[0]);
	close_all(start);
	mark(MARK_RETURN);
	if (report->errnum) {
		errno = report->errnum;
		die(report->step);
	}
}

static void remove_container(unsigned int index)
{
	struct start *start = &starts[index];
	char pin[256];

	if (start->pid) {
		if (settings.stay)
			kill(start->pid, SIGKILL);
		waitpid(start->pid, NULL, 0);
		close(start->pidfd);
		close(start->out[0]);
		close(start->err[0]);
		pin_path(pin, index);
		umount2(pin, MNT_DETACH);
		unlink(pin);
		remove_cgroup(index);
		start->pid = 0;
	}
	remove_directories(index);
}

static void print_steps(void)
{
	for (int i = 1; i < MARK_COUNT; i++)
		printf(" %s=%lld", mark_names[i], (long long)(report->time[i] - report->time[i - 1]));
}

static void serve(void)
{
	char line[64], verb[16];
	unsigned int index;

	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%15s %u", verb, &index) != 2 || index >= MAX_CONTAINERS)
			continue;
		if (strcmp(verb, "create") == 0) {
			create_directories(index);
			printf("created %u\n", index);
		} else if (strcmp(verb, "start") == 0) {
			start_container(index);
			printf("started %u %lld %lld", index, (long long)report->time[MARK_START],
			       (long long)report->time[MARK_RETURN]);
			if (settings.tracing)
				print_steps();
			puts("");
		} else if (strcmp(verb, "remove") == 0) {
			remove_container(index);
			printf("removed %u\n", index);
		}
	}
	for (index = 0; index < MAX_CONTAINERS; index++)
		if (starts[index].pid)
			remove_container(index);
}

/* ---- measuring by itself ---- */

static int ascending(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void print_quantiles(const char *name, int64_t *values, int count)
{
	qsort(values, (size_t)count, sizeof(*values), ascending);
	printf("%-12s p50 %8.1f  p90 %8.1f  p99 %8.1f us\n", name, (double)values[count / 2] / 1e3,
	       (double)values[count * 9 / 10] / 1e3, (double)values[count * 99 / 100] / 1e3);
}

static void measure(void)
{
	int count = settings.samples;
	int64_t *values = calloc((size_t)count * (MARK_COUNT + 1), sizeof(*values));
	char path[300], byte[8];
	struct pollfd fifo = { .events = POLLIN };

	snprintf(path, sizeof(path), "%s/fifo", settings.mark);
	fifo.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fifo.fd < 0 || !values)
		die(path);
	for (int i = 0; i < count; i++) {
		create_directories(0);
		start_container(0);
		poll(&fifo, 1, -1);
		values[i] = now() - report->time[MARK_START];
		if (read(fifo.fd, byte, sizeof(byte)) < 0)
			die("read mark");
		for (int m = 1; m < MARK_COUNT; m++)
			values[m * count + i] = report->time[m] - report->time[m - 1];
		values[MARK_COUNT * count + i] = report->time[MARK_RETURN] - report->time[MARK_START];
		remove_container(0);
		usleep((unsigned int)settings.gap * 1000); /* the kernel frees the namespace meanwhile */
	}
	print_quantiles("first byte", values, count);
	print_quantiles("return", values + MARK_COUNT * count, count);
	for (int m = 1; m < MARK_COUNT && settings.tracing; m++)
		print_quantiles(mark_names[m], values + m * count, count);
}

/* ---- the command line ---- */

/* Each takes the next word, but for a flag. */
static const struct {
	const char *name;
	const char **text;
	int *number, *flag;
} PARAMETERS[] = {
	{ "--lower", .text = &settings.lower },
	{ "--dir", .text = &settings.dir },
	{ "--runtime", .text = &settings.runtime },
	{ "--mark", .text = &settings.mark },
	{ "--mark-destination", .text = &settings.mark_destination },
	{ "--program", .text = &settings.program },
	{ "--fifo", .text = &settings.fifo },
	{ "--bridge", .text = &settings.bridge },
	{ "--subnet", .text = &settings.subnet },
	{ "--cgroup", .text = &settings.cgroup },
	{ "--seccomp", .text = &settings.seccomp },
	{ "--samples", .number = &settings.samples },
	{ "--gap", .number = &settings.gap },
	{ "--nested", .flag = &settings.nested },
	{ "--stay", .flag = &settings.stay },
	{ "--trace", .flag = &settings.tracing },
	{ "--copy-vm", .flag = &settings.copy_vm },
};

/* The number of words that it took, 0 for an unknown one. */
static int take_parameter(char **words)
{
	for (size_t i = 0; i < sizeof(PARAMETERS) / sizeof(PARAMETERS[0]); i++) {
		if (strcmp(words[0], PARAMETERS[i].name) != 0)
			continue;
		if (PARAMETERS[i].flag)
			return *PARAMETERS[i].flag = 1;
		if (!words[1])
			return 0;
		if (PARAMETERS[i].number)
			*PARAMETERS[i].number = atoi(words[1]);
		else
			*PARAMETERS[i].text = words[1];
		return 2;
	}
	return 0;
}

static void parse(int argc, char **argv)
{
	int taken = 1;

	for (int i = 1; i < argc && taken; i += taken)
		taken = take_parameter(argv + i);
	if (taken && settings.lower && settings.dir && settings.runtime && settings.mark && settings.cgroup)
		return;
	fputs("floor: needs --lower, --dir, --runtime, --mark and --cgroup; knows also:\n", stderr);
	for (size_t i = 0; i < sizeof(PARAMETERS) / sizeof(PARAMETERS[0]); i++)
		fprintf(stderr, "  %s\n", PARAMETERS[i].name);
	exit(2);
}

int main(int argc, char **argv)
{
	struct rlimit files;

	parse(argc, argv);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	setvbuf(stdout, NULL, _IOLBF, 0);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED)
		die("memory");
	child_open();
	net_open();
	cgroup_open();
	mounts_open();
	if (settings.samples > 0)
		measure();
	else
		serve();
	mounts_close();
	cgroup_close();
	net_close();
	return 0;
}
