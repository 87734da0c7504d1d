/* Between clone and exec, continued: the terminal of a plan.
 *
 * The pty is the container's own (its /dev/pts), so the child opens it and sends the master to the spawner. Same rules
 * as child.c: async-signal-safe calls only.
 */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

/* The number of the pty's other end as a path; pts numbers are small. */
static void pts_path(char path[32], unsigned int number)
{
	static const char prefix[] = "/dev/pts/";
	char digits[12];
	size_t at = sizeof(prefix) - 1;
	int n = 0;

	memcpy(path, prefix, sizeof(prefix));
	do
		digits[n++] = (char)('0' + number % 10);
	while ((number /= 10) != 0);
	while (n > 0)
		path[at++] = digits[--n];
	path[at] = '\0';
}

/* /dev/console of the container is its terminal, as runc and crun have it. */
static int bind_console(struct pn_child *child, const char *pts)
{
	int fd = open("/dev/console", O_CREAT | O_RDWR | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return pn_child_fail(child, errno, "/dev/console");
	close(fd);
	if (mount(pts, "/dev/console", NULL, MS_BIND, NULL) < 0)
		return pn_child_fail(child, errno, "/dev/console");
	return 0;
}

static int take_terminal(struct pn_child *child, int slave, const struct pn_op *op)
{
	if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return pn_child_fail(child, errno, "controlling terminal");
	if ((op->arg[2] || op->arg[3] > 1) && fchown(slave, (uid_t)op->arg[2], (gid_t)-1) < 0)
		return pn_child_fail(child, errno, "terminal owner");
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return pn_child_fail(child, errno, "stdio");
	return 0;
}

/* args: rows, columns, uid of the owner, 1 to bind /dev/console */
int pn_op_tty(struct pn_child *child, const struct pn_op *op)
{
	struct winsize size = { .ws_row = (unsigned short)op->arg[0], .ws_col = (unsigned short)op->arg[1] };
	struct pn_report report = { .kind = PN_REPORT_TTY };
	unsigned int number;
	char path[32];
	int master, slave, unlock = 0;

	master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0)
		return pn_child_fail(child, errno, "/dev/pts/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
		return pn_child_fail(child, errno, "unlock pty");
	if (size.ws_row && ioctl(master, TIOCSWINSZ, &size) < 0)
		return pn_child_fail(child, errno, "window size");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return pn_child_fail(child, errno, "pty peer");
	pn_send_report(child->report, &report, offsetof(struct pn_report, error), master);
	pts_path(path, number);
	if (op->arg[3] && bind_console(child, path) < 0)
		return -1;
	return take_terminal(child, slave, op);
}
