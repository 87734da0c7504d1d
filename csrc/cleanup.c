/* Declared cleanup: _cleanup_close_ int fd = -1; ownership leaves a scope by TAKE_FD. */
#include "pynetns.h"

#include <errno.h>
#include <unistd.h>

void pn_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}
