/* The floor's cgroup: one directory in the v2 hierarchy, with Docker's device policy on it. */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) }
#define LOAD(d, o) INSN(BPF_LDX | BPF_MEM | BPF_W, d, 1, o, 0)
#define RETURN(v) INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, v), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define UNLESS(r, v, skip) INSN(BPF_JMP | BPF_JNE | BPF_K, r, 0, skip, v)
#define ALLOW(major, minor) UNLESS(4, major, 3), UNLESS(5, minor, 2), RETURN(1)
#define ALLOW_MAJOR(major) UNLESS(4, major, 2), RETURN(1)

/* r2 type, r3 access, r4 major, r5 minor */
static const struct bpf_insn device_policy[] = {
	LOAD(2, 0),
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0),
	INSN(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16),
	INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
	LOAD(4, 4),
	LOAD(5, 8),
	UNLESS(3, BPF_DEVCG_ACC_MKNOD, 2),
	RETURN(1),
	INSN(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 2, BPF_DEVCG_DEV_CHAR),
	RETURN(0),
	ALLOW(1, 3),
	ALLOW(1, 5),
	ALLOW(1, 7),
	ALLOW(1, 8),
	ALLOW(1, 9),
	ALLOW(5, 0),
	ALLOW(5, 1),
	ALLOW(5, 2),
	ALLOW_MAJOR(136),
	RETURN(0),
};

static int policy = -1;

static void path_of(char path[256], unsigned int index)
{
	snprintf(path, 256, "%s/%u", settings.cgroup, index);
}

void cgroup_open(void)
{
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (uint64_t)(uintptr_t)device_policy,
		.insn_cnt = sizeof(device_policy) / sizeof(device_policy[0]),
		.license = (uint64_t)(uintptr_t)"GPL",
	};

	if (mkdir(settings.cgroup, 0755) < 0 && errno != EEXIST)
		die(settings.cgroup);
	policy = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	if (policy < 0)
		die("load device policy");
}

void cgroup_close(void)
{
	rmdir(settings.cgroup);
}

void make_cgroup(struct start *start)
{
	union bpf_attr attr = { .attach_bpf_fd = (uint32_t)policy, .attach_type = BPF_CGROUP_DEVICE };
	char path[256];

	path_of(path, start->index);
	if (mkdir(path, 0755) < 0)
		die(path);
	start->cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	attr.target_fd = (uint32_t)start->cgroup;
	if (start->cgroup < 0 || syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0)
		die("attach device policy");
}

/* The last task's end can lag behind its being waited for: wait for the change of cgroup.events. */
void remove_cgroup(unsigned int index)
{
	char path[256], events[300];
	struct pollfd fd = { .events = POLLPRI };

	path_of(path, index);
	snprintf(events, sizeof(events), "%s/cgroup.events", path);
	fd.fd = open(events, O_RDONLY | O_CLOEXEC);
	while (rmdir(path) < 0 && errno == EBUSY)
		poll(&fd, 1, 10);
	close(fd.fd);
}
