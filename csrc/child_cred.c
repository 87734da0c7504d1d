/* Between clone and exec, continued: limits, identity and privileges.
 *
 * The order is the plan's. It matters: the bounding set is dropped while CAP_SETPCAP is still there; the uid changes
 * with capabilities kept, so that capset has the last word; without no_new_privs a filter needs CAP_SYS_ADMIN, which
 * stays for it alone. Raw system calls: the library's versions signal every thread.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* args: resource, soft, hard; -1 is unlimited */
int pn_op_rlimit(struct pn_child *child, const struct pn_op *op)
{
	uint64_t limit[2] = { (uint64_t)op->arg[1], (uint64_t)op->arg[2] };

	if (syscall(SYS_prlimit64, 0, (int)op->arg[0], limit, NULL) < 0)
		return pn_child_fail(child, errno, "ulimit");
	return 0;
}

int pn_op_no_new_privs(struct pn_child *child, const struct pn_op *op)
{
	(void)op;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

int pn_op_seccomp(struct pn_child *child, const struct pn_op *op)
{
	struct sock_fprog program = {
		.len = (unsigned short)(op->size / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)(uintptr_t)(op + 1),
	};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned int)op->arg[0], &program) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

/* arg: the capabilities to keep. EINVAL ends the list: the kernel knows no more. */
int pn_op_bounding(struct pn_child *child, const struct pn_op *op)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if ((uint64_t)op->arg[0] & (1ULL << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0UL, 0UL, 0UL) < 0)
			return errno == EINVAL ? 0 : pn_child_fail(child, errno, NULL);
	}
	return 0;
}

int pn_op_groups(struct pn_child *child, const struct pn_op *op)
{
	if (syscall(SYS_setgroups, op->size / 4, op + 1) < 0)
		return pn_child_fail(child, errno, NULL);
	return 0;
}

/* Whoever starts may live with other rules for uid 0; the program gets the usual ones. */
static int reset_securebits(struct pn_child *child)
{
	if (prctl(PR_GET_SECUREBITS, 0UL, 0UL, 0UL, 0UL) == SECUREBITS_DEFAULT)
		return 0;
	if (prctl(PR_SET_SECUREBITS, (unsigned long)SECUREBITS_DEFAULT, 0UL, 0UL, 0UL) < 0)
		return pn_child_fail(child, errno, "securebits");
	return 0;
}

int pn_op_user(struct pn_child *child, const struct pn_op *op)
{
	if (reset_securebits(child) < 0)
		return -1;
	if (prctl(PR_SET_KEEPCAPS, 1UL, 0UL, 0UL, 0UL) < 0)
		return pn_child_fail(child, errno, "keepcaps");
	if (syscall(SYS_setresgid, op->arg[1], op->arg[1], op->arg[1]) < 0)
		return pn_child_fail(child, errno, "gid");
	if (syscall(SYS_setresuid, op->arg[0], op->arg[0], op->arg[0]) < 0)
		return pn_child_fail(child, errno, "uid");
	if (prctl(PR_SET_KEEPCAPS, 0UL, 0UL, 0UL, 0UL) < 0)
		return pn_child_fail(child, errno, "keepcaps");
	return 0;
}

/* args: effective, permitted, inheritable, ambient */
int pn_op_capset(struct pn_child *child, const struct pn_op *op)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)((uint64_t)op->arg[0] >> (32 * i));
		data[i].permitted = (uint32_t)((uint64_t)op->arg[1] >> (32 * i));
		data[i].inheritable = (uint32_t)((uint64_t)op->arg[2] >> (32 * i));
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return pn_child_fail(child, errno, NULL);
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (!((uint64_t)op->arg[3] & (1ULL << cap)))
			continue;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0UL, 0UL) < 0)
			return pn_child_fail(child, errno, "ambient");
	}
	return 0;
}

/* What the starter keeps in its own keyring is not the program's. A kernel without keys has nothing to hide. */
int pn_op_keyring(struct pn_child *child, const struct pn_op *op)
{
	(void)op;
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0 && errno != ENOSYS)
		return pn_child_fail(child, errno, "session");
	return 0;
}
