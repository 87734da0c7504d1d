"""Being told that a file has grown: inotify(7), by way of the C library.

Owns: one watch on one file. Used only by followers of logs, so that nothing ever has to look again
and again.
"""

from __future__ import annotations

import ctypes
import os
import select

_IN_CLOEXEC = os.O_CLOEXEC
_IN_NONBLOCK = os.O_NONBLOCK
_IN_MODIFY = 0x2


class ModifyWatch:
    """A watch on the file that is open as `fd`. A context manager; OSError when the machine has no
    inotify watch left (fs.inotify.max_user_watches, max_user_instances)."""

    def __init__(self, fd: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        if self.fd < 0:
            raise _os_error("inotify_init1")
        # by descriptor: the file may have lost its name by now
        path = f"/proc/self/fd/{fd}".encode()
        if libc.inotify_add_watch(self.fd, path, _IN_MODIFY) < 0:
            error = _os_error("inotify_add_watch")
            os.close(self.fd)
            raise error

    def wait(self, other_fd: int = -1, timeout: float | None = None) -> bool:
        """Wait until the file has changed, `other_fd` is readable or `timeout` seconds are over.

        True when `other_fd` is readable.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if other_fd >= 0:
            poll.register(other_fd, select.POLLIN)
        ready = poll.poll(None if timeout is None else max(0.0, timeout * 1000))
        fds = {fd for fd, _ in ready}
        if self.fd in fds:
            os.read(self.fd, 4096)  # what happened is not needed, only that it did
        return other_fd in fds

    def __enter__(self) -> ModifyWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _os_error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)} (see sysctl fs.inotify)", call)
