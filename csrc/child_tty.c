/* Between clone and exec, continued: the terminal of a plan.
 *
 * The pty is the container's own (its /dev/pts), so the child opens it and sends the master to the spawner. The
 * terminal is known by its descriptors from then on, never by its path: what /dev/pts/0 names may be another's work.
 * Same rules as child.c: async-signal-safe calls only.
 */
#include "child.h"
#include "syscalls.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static int open_master(struct pn_child *child)
{
	struct statfs fs;
	int fd = pn_path_open(child, "/dev/pts/ptmx", O_PATH | O_NOFOLLOW, PN_RESOLVE_EXACT);

	if (fd < 0)
		return fd;
	if (fstatfs(fd, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC) {
		close(fd);
		return -EXDEV;
	}
	close(fd);
	fd = pn_path_open(child, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW, PN_RESOLVE_EXACT);
	/* the ioctls that follow work on a pty of a real devpts only */
	return fd;
}

/* /dev/console of the container is its terminal, as runc and crun have it. */
static int bind_console(struct pn_child *child, int slave)
{
	int ret, console, fd = pn_path_make(child, "/dev/console", S_IFREG, 0, true);

	if (fd < 0)
		return pn_child_fail(child, -fd, "/dev/console");
	console = sys_open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	ret = console < 0 ? -1 : sys_move_mount(console, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	if (ret < 0)
		pn_child_fail(child, errno, "/dev/console");
	if (console >= 0)
		close(console);
	close(fd);
	return ret;
}

static int become_stdio(struct pn_child *child, int slave, const struct pn_op *op)
{
	if (op->arg[2] && fchown(slave, (uid_t)op->arg[2], (gid_t)-1) < 0)
		return pn_child_fail(child, errno, "terminal owner");
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return pn_child_fail(child, errno, "stdio");
	close(slave);
	return 0;
}

/* To the spawner, or to whoever listens at the console socket: there with a name, as runc sends it. */
static int send_master(struct pn_child *child, const struct pn_op *op, int master)
{
	static const struct pn_report report = { .kind = PN_REPORT_TTY };
	static const char name[] = "/dev/ptmx";
	int ret;

	if (op->arg[1] < 0) {
		pn_send_report(child->report, &report, offsetof(struct pn_report, error), master);
		return 0;
	}
	ret = pn_send_fd(child->plan->fds[op->arg[1]], name, sizeof(name) - 1, master);
	return ret < 0 ? pn_child_fail(child, -ret, "console socket") : 0;
}

/* args: rows << 16 | columns, console socket or -1, uid of the owner, 1 to bind /dev/console */
int pn_op_tty(struct pn_child *child, const struct pn_op *op)
{
	struct winsize size = { .ws_row = (unsigned short)(op->arg[0] >> 16),
				.ws_col = (unsigned short)(op->arg[0] & 0xffff) };
	int slave, unlock = 0, master = open_master(child);

	if (master < 0)
		return pn_child_fail(child, -master, "/dev/pts/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return pn_child_fail(child, errno, "unlock pty");
	if (size.ws_row && ioctl(master, TIOCSWINSZ, &size) < 0)
		return pn_child_fail(child, errno, "window size");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return pn_child_fail(child, errno, "pty peer");
	if (send_master(child, op, master) < 0)
		return -1;
	close(master);
	if (op->arg[3] && bind_console(child, slave) < 0)
		return -1;
	return become_stdio(child, slave, op);
}
