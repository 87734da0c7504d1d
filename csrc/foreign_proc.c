/* The /proc of another mount namespace, as a detached copy.
 *
 * A procfs shows the pid namespace of whoever mounts it, and a process only gets into one by being born there. Who
 * wants one to be ready before it shows itself inside takes a copy of the mount that those inside have. They are not
 * trusted: what is copied is the root of a real procfs, with no link on the way, without what is mounted on it.
 */
#include "pynetns.h"
#include "syscalls.h"
#include "thread.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define PROC_ROOT_INODE 1

struct job {
	int mount_namespace;
	int fd;
	struct pn_error *reterr;
};

static bool is_whole_procfs(int fd)
{
	struct statfs fs;
	struct stat st;

	return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && fstat(fd, &st) == 0 &&
	       st.st_ino == PROC_ROOT_INODE;
}

static int copy_proc(struct job *job, struct pn_error *reterr)
{
	_cleanup_close_ int proc = -1;

	if (unshare(CLONE_FS) < 0)
		return pn_fail(reterr, errno, PN_STEP_UNSHARE, "file system state");
	if (setns(job->mount_namespace, CLONE_NEWNS) < 0)
		return pn_fail(reterr, errno, PN_STEP_SETNS, "mount namespace");
	proc = sys_openat2(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, RESOLVE_NO_SYMLINKS);
	if (proc < 0)
		return pn_fail(reterr, errno, PN_STEP_RESOLVE, "/proc");
	if (!is_whole_procfs(proc))
		return pn_fail(reterr, EXDEV, PN_STEP_RESOLVE, "/proc is no procfs");
	job->fd = sys_open_tree(proc, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	return job->fd < 0 ? pn_fail(reterr, errno, PN_STEP_OPEN_TREE, "/proc") : 0;
}

static void *copy_thread(void *data)
{
	struct job *job = data;

	copy_proc(job, job->reterr);
	return NULL;
}

PN_EXPORT int pn_proc_clone(int mount_namespace, int *ret_fd, struct pn_error *reterr)
{
	struct job job = { .mount_namespace = mount_namespace, .fd = -1, .reterr = reterr };
	int ret;

	ret = pn_thread_run(copy_thread, &job, reterr);
	if (ret < 0)
		return ret;
	if (job.fd < 0)
		return -reterr->errnum;
	*ret_fd = job.fd;
	return 0;
}
