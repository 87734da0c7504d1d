/* The floor: the kernel work of a cold start on a bridge, and nothing else. floor.c has the order. */
#ifndef FLOOR_H
#define FLOOR_H

#include <stdint.h>
#include <stdnoreturn.h>
#include <time.h>

#define FIRST_HIGH_FD 128 /* above it is what a child does not need */

enum mark {
	MARK_START,
	MARK_NETNS,   /* namespace, IPv6 off, pinned */
	MARK_VETH,    /* pair, peer in place, port of the bridge, up, hairpin */
	MARK_CONFIG,  /* lo up, address, up, route */
	MARK_CGROUP,  /* mkdir, open, device policy */
	MARK_OVERLAY, /* detached */
	MARK_BINDS,   /* detached */
	MARK_PIPES,
	MARK_CLONE, /* first instruction of the child */
	MARK_ROOT,  /* setns, host name, pivot */
	MARK_PROC,  /* the seven default mounts … */
	MARK_DEV,
	MARK_DEVPTS,
	MARK_SYSFS,
	MARK_CGROUPFS,
	MARK_MQUEUE,
	MARK_SHM,
	MARK_ATTACH, /* the binds */
	MARK_SYSCTL, /* Docker's two: low ports and ping without privileges */
	MARK_READONLY,
	MARK_MASK,
	MARK_IDENTITY, /* stdio, limits, cgroup namespace, directory */
	MARK_BOUNDING,
	MARK_SECCOMP,
	MARK_CAPS,
	MARK_RETURN, /* the program has been executed; the starter goes on */
	MARK_COUNT
};

extern const char *const mark_names[MARK_COUNT];

/* Shared with the child: what it has to say. */
struct report {
	int64_t time[MARK_COUNT];
	int errnum;
	char step[60];
};

struct settings {
	const char *lower;   /* "/" stacked below another overlay when nested */
	const char *dir;     /* upper and work directories, the name files */
	const char *runtime; /* a tmpfs: namespace pins, the nested base */
	const char *mark;    /* host directory with the FIFO */
	const char *mark_destination;
	const char *program;
	const char *fifo; /* inside the container */
	const char *bridge;
	const char *subnet; /* the first two numbers, "10.213" */
	const char *cgroup; /* v2 directory of this run */
	const char *seccomp;
	int nested, stay, tracing, samples, gap, copy_vm;
};

extern struct settings settings;
extern struct report *report;

/* Descriptors of one start. */
struct start {
	unsigned int index;
	int netns, netlink; /* netlink lives in netns */
	int cgroup, rootfs;
	int binds[4]; /* resolv.conf, hostname, hosts, mark */
	int cgroup_view;
	int out[2], err[2];
	int pid, pidfd;
};

static inline int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static inline void mark(enum mark which)
{
	report->time[which] = now();
}

noreturn void die(const char *step);

/* floor_net.c */
void net_open(void);
void net_close(void);
void make_netns(struct start *start);
void make_veth(const struct start *start);
void configure(const struct start *start);
void pin_path(char path[256], unsigned int index);

/* floor_cgroup.c */
void cgroup_open(void);
void cgroup_close(void);
void make_cgroup(struct start *start);
void remove_cgroup(unsigned int index);

/* floor_mount.c */
void mounts_open(void);
void mounts_close(void);
void create_directories(unsigned int index);
void remove_directories(unsigned int index);
void make_overlay(struct start *start);
void make_binds(struct start *start);
void enter_small_namespace(void);
void leave_small_namespace(void);

/* floor_child.c */
void child_open(void);
noreturn void child_run(const struct start *start);

#endif
