/* Filling a pn_error and naming its step. The names are what a user reads in a message. */
#include "pynetns.h"

#include <string.h>

static const struct {
	uint32_t step;
	const char *name;
} step_names[] = {
	{ PN_STEP_OPEN, "open" },
	{ PN_STEP_CLONE, "clone" },
	{ PN_STEP_UNSHARE, "unshare" },
	{ PN_STEP_SETNS, "setns" },
	{ PN_STEP_MOUNT, "mount" },
	{ PN_STEP_UMOUNT, "umount" },
	{ PN_STEP_OVERLAY, "overlay" },
	{ PN_STEP_OPEN_TREE, "open_tree" },
	{ PN_STEP_MOUNT_ATTR, "mount_setattr" },
	{ PN_STEP_RESOLVE, "resolve" },
	{ PN_STEP_SOCKET, "socket" },
	{ PN_STEP_NETLINK, "netlink" },
	{ PN_STEP_VETH, "veth" },
	{ PN_STEP_BRIDGE, "bridge" },
	{ PN_STEP_LINK, "link" },
	{ PN_STEP_ADDRESS, "address" },
	{ PN_STEP_ROUTE, "route" },
	{ PN_STEP_SYSCTL, "sysctl" },
	{ PN_STEP_BPF, "bpf" },
	{ PN_STEP_PLAN, "plan" },
	{ PN_STEP_MEMORY, "memory" },
	{ PN_STEP_WAIT, "wait" },
	{ PN_STEP_FRAME, "frame" },
	{ PN_OP_CLONE, "clone" },
	{ PN_OP_PDEATHSIG, "pdeathsig" },
	{ PN_OP_STDIO, "stdio" },
	{ PN_OP_SETSID, "setsid" },
	{ PN_OP_TTY, "tty" },
	{ PN_OP_SETNS, "setns" },
	{ PN_OP_UNSHARE, "unshare" },
	{ PN_OP_FORK, "fork" },
	{ PN_OP_CGROUP, "cgroup" },
	{ PN_OP_HOSTNAME, "sethostname" },
	{ PN_OP_DOMAINNAME, "setdomainname" },
	{ PN_OP_PRIVATE, "make-private" },
	{ PN_OP_ROOT, "pivot_root" },
	{ PN_OP_CHROOT, "chroot" },
	{ PN_OP_MOUNT, "mount" },
	{ PN_OP_ATTACH, "move_mount" },
	{ PN_OP_MKDIR, "mkdir" },
	{ PN_OP_MKNOD, "mknod" },
	{ PN_OP_SYMLINK, "symlink" },
	{ PN_OP_MASK, "mask" },
	{ PN_OP_READONLY, "readonly" },
	{ PN_OP_ROOT_ATTR, "root-attributes" },
	{ PN_OP_SYSCTL, "sysctl" },
	{ PN_OP_OOM_SCORE, "oom_score_adj" },
	{ PN_OP_RLIMIT, "setrlimit" },
	{ PN_OP_UMASK, "umask" },
	{ PN_OP_NO_NEW_PRIVS, "no_new_privs" },
	{ PN_OP_SECCOMP, "seccomp" },
	{ PN_OP_BOUNDING, "capbset_drop" },
	{ PN_OP_GROUPS, "setgroups" },
	{ PN_OP_USER, "setuid" },
	{ PN_OP_CAPSET, "capset" },
	{ PN_OP_KEYRING, "keyring" },
	{ PN_OP_CWD, "chdir" },
	{ PN_OP_WAIT, "wait" },
	{ PN_OP_READY, "ready" },
	{ PN_OP_EXEC, "exec" },
};

PN_EXPORT const char *pn_step_name(uint32_t step)
{
	for (size_t i = 0; i < sizeof(step_names) / sizeof(step_names[0]); i++)
		if (step_names[i].step == step)
			return step_names[i].name;
	return "unknown step";
}

int pn_fail(struct pn_error *reterr, int errnum, uint32_t step, const char *detail)
{
	reterr->errnum = errnum;
	reterr->step = step;
	reterr->index = -1;
	reterr->detail[0] = '\0';
	if (detail)
		strncat(reterr->detail, detail, sizeof(reterr->detail) - 1);
	return -errnum;
}
