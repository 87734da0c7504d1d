"""A shim whose socket is gone: found by its cgroup, asked for another one.

Owns: telling a shim of an exec root among processes, finding the directory that it lives by, and what is
said to it there. Somebody has deleted the socket (a cleaner of temporary files), or the whole exec root
was unmounted and another one is mounted in its place. Never touches a process that is not such a shim:
it is opened first and looked at afterwards. docs/shim-protocol.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

_KNOCK = "shim.wake"


class LostShim(NamedTuple):
    """A shim that nobody finds by a socket: its pidfd, and the directory where it has its socket (an
    O_PATH descriptor); `moved` where that is not the exec root (any more)."""

    pid: int
    pidfd: int
    home: int
    moved: bool


def find_lost(exec_root: str, pids: Iterable[int], scope: ExitStack) -> Iterator[LostShim]:
    """The shims of `exec_root` among the processes `pids`; their descriptors belong to `scope`."""
    here = os.stat(exec_root)
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        scope.callback(os.close, pidfd)
        if not _is_shim(pid, exec_root):
            continue
        home = _home_of(pid, here)
        if home >= 0:
            scope.callback(os.close, home)
            moved = not os.path.samestat(os.fstat(home), here)
            yield LostShim(pid, pidfd, home, moved)


def _is_shim(pid: int, exec_root: str) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().strip()
    except OSError:
        return False
    return name == b"pynetns-shim" and exec_root_of(pid) == exec_root


def exec_root_of(pid: int) -> str:
    """Of which exec root a process is the shim or the keeper; "" of one that is neither."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    return os.fsdecode(words[1]) if len(words) > 1 and words[0] == b"pynetns-shim" else ""


def _home_of(pid: int, here: os.stat_result) -> int:
    """The directory of its socket among its descriptors: the exec root, else the one that is the top
    of a file system and no cgroup's or log's. -1 when it has ended."""
    home = -1
    for name in _descriptors(pid):
        try:
            fd = os.open(f"/proc/{pid}/fd/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        is_here = os.path.samestat(os.fstat(fd), here)
        if not is_here and (home >= 0 or not _is_top(fd)):
            os.close(fd)
            continue
        if home >= 0:
            os.close(home)
        home = fd
        if is_here:
            break
    return home


def _descriptors(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []


def _is_top(fd: int) -> bool:
    """Whether nothing is above a directory on its file system, and an exec root's things are in it
    or nothing is."""
    try:
        above = os.stat("..", dir_fd=fd)
        mine = os.fstat(fd)
        listed = os.listdir(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    top = above.st_dev != mine.st_dev or os.path.samestat(above, mine)
    return top and (not listed or bool({"owner", "tasks", "locks", "shim.lock"} & set(listed)))


def wake(shim: LostShim, patience: float) -> bool:
    """Have it listen again where its home is; whether it does. False when it has ended instead.
    TimeoutError when it does not answer within `patience` seconds."""
    knock = f"/proc/self/fd/{shim.home}/{_KNOCK}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(knock)
    os.mkfifo(knock, 0o600)
    try:
        fd = os.open(knock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            signal.pidfd_send_signal(shim.pidfd, signal.SIGHUP)
            return _knocked(fd, shim.pidfd, patience)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(knock)


def _knocked(fd: int, pidfd: int, patience: float) -> bool:
    """Whether somebody has opened the FIFO and gone again, before the process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + patience
    events = dict(poll.poll(patience * 1000))
    if not events and time.monotonic() >= deadline:
        raise TimeoutError
    return fd in events
