"""Being told that something in a directory has changed: inotify(7), by way of the C library.

Owns: one watch on one or more directories. Used by those who follow logs or a container's state, so that
nothing ever has to look again and again. Any container may use up all instances of its user
(fs.inotify.max_user_instances, 128, counted for uid 0 of the host and of every container together): a
watch that gets none looks at growing intervals instead, and takes an instance as soon as there is one.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Sequence

_IN_CLOEXEC = os.O_CLOEXEC
_IN_NONBLOCK = os.O_NONBLOCK
CREATED, DELETED = 0x100, 0x200  # a file or directory in it was made, was removed
# a file in it was written to, was made, was renamed
_EVENTS = 0x2 | CREATED | 0x80
_PAUSES = (0.01, 0.5)  # seconds: the first between two looks, and the longest


class DirectoryWatch:
    """A watch on the directories that are open as `fds` (the caller's). A context manager. `wait`
    returns at once where something has changed since the watch was made."""

    def __init__(self, *fds: int, events: int = _EVENTS) -> None:
        self._watched = [(fd, events) for fd in fds]
        self._pause = _PAUSES[0]
        self.fd = _watch(self._watched)

    def wait(
        self,
        readable: Sequence[int] = (),
        hung_up: Sequence[int] = (),
        timeout: float | None = None,
        *,
        idle: bool = True,
    ) -> set[int]:
        """Wait for a change, for one of `readable` to be so, for the other end of one of `hung_up`
        to be closed, or for `timeout` seconds. The descriptors of both lists that are ready.

        idle: whether the last look found nothing. Without inotify the intervals then grow.
        """
        if self.fd < 0:
            self.fd = _watch(self._watched)
            if self.fd >= 0:
                return set()  # what changed before that nobody has told us
            self._pause = min(self._pause * 2, _PAUSES[1]) if idle else _PAUSES[0]
            timeout = self._pause if timeout is None else min(timeout, self._pause)
        poll = select.poll()
        if self.fd >= 0:
            poll.register(self.fd, select.POLLIN)
        for fd in hung_up:
            poll.register(fd, 0)  # POLLERR and POLLHUP are always told
        for fd in readable:
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else max(0.0, timeout * 1000))}
        if self.fd in ready:
            os.read(self.fd, 65536)  # what happened is not needed, only that it did
        return ready - {self.fd}

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _watch(watched: Sequence[tuple[int, int]]) -> int:
    """A new instance with a watch on each (directory, events); -1 when the machine has none left."""
    libc = ctypes.CDLL(None)
    fd: int = libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
    for directory, events in watched if fd >= 0 else ():
        # by descriptor: the directory may have lost its name by now
        path = f"/proc/self/fd/{directory}".encode()
        if libc.inotify_add_watch(fd, path, events) < 0:
            os.close(fd)
            return -1
    return fd
