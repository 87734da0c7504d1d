/* Loading and attaching the device policy of a v2 cgroup. The instructions are made elsewhere. */
#include "pynetns.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOG_BYTES 8192
#define LOAD_TRIES 5

static int sys_bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* The verifier gives up with EAGAIN when a signal is pending. */
static int load(union bpf_attr *attr)
{
	int fd = -1;

	for (int i = 0; i < LOAD_TRIES; i++) {
		fd = sys_bpf(BPF_PROG_LOAD, attr);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd;
}

/* The verifier's complaint precedes its last line, a summary. */
static const char *complaint(char *log)
{
	char *line = NULL, *rest = log, *next;

	while ((next = strsep(&rest, "\n")))
		if (*next && strncmp(next, "processed ", 10) != 0)
			line = next;
	return line ? line : "load";
}

/* Loaded without the verifier's log, which costs; again with it to say why it failed. */
PN_EXPORT int pn_bpf_device_load(const uint8_t *insns, uint32_t count, int *ret_fd, struct pn_error *reterr)
{
	char log[LOG_BYTES];
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (uint64_t)(uintptr_t)insns;
	attr.insn_cnt = count;
	attr.license = (uint64_t)(uintptr_t)"Apache-2.0";
	memcpy(attr.prog_name, "pynetns_device", sizeof("pynetns_device"));
	fd = load(&attr);
	if (fd < 0 && (errno == EACCES || errno == EINVAL)) {
		log[0] = '\0';
		attr.log_buf = (uint64_t)(uintptr_t)log;
		attr.log_size = sizeof(log);
		attr.log_level = 1;
		fd = load(&attr);
		if (fd < 0)
			return pn_fail(reterr, errno, PN_STEP_BPF, complaint(log));
	}
	if (fd < 0)
		return pn_fail(reterr, errno, PN_STEP_BPF, "load");
	*ret_fd = fd;
	return 0;
}

PN_EXPORT int pn_bpf_device_attach(int cgroup, int prog, uint32_t flags, struct pn_error *reterr)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.target_fd = (uint32_t)cgroup;
	attr.attach_bpf_fd = (uint32_t)prog;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = flags;
	if (sys_bpf(BPF_PROG_ATTACH, &attr) < 0)
		return pn_fail(reterr, errno, PN_STEP_BPF, "attach");
	return 0;
}
