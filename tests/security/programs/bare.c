/* A runtime with the classical faults, for positive controls: bare ROOT HOSTDIR CWD PATH PROGRAM [ARG...]
 *
 * It chroots into ROOT while it holds descriptor 8 on HOSTDIR (close-on-exec, as real runtimes had it), makes and
 * enters CWD by plain path calls and executes PROGRAM along PATH. An attack that fails even here shows nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
	printf("bare: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void make_dirs(char *path)
{
	for (char *at = path + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		mkdir(path, 0755);
		*at = '/';
	}
	mkdir(path, 0755);
}

static void run(char **argv)
{
	if (chroot(argv[1]) < 0 || chdir("/") < 0)
		die("chroot");
	if (mount("proc", "/proc", "proc", 0, NULL) < 0)
		die("proc");
	make_dirs(argv[3]);
	if (chdir(argv[3]) < 0)
		die("cwd");
	setenv("PATH", argv[4], 1);
	execvp(argv[5], argv + 5);
	die("exec");
}

int main(int argc, char **argv)
{
	int fd;
	pid_t pid;

	if (argc < 6)
		return 64;
	fd = open(argv[2], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || dup3(fd, 8, O_CLOEXEC) < 0)
		die("host directory");
	if (unshare(CLONE_NEWNS | CLONE_NEWPID) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("namespaces");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0)
		run(argv);
	return 0; /* nobody executes this file any more but what runs inside */
}
