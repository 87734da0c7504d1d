"""Locks on files, between threads and processes, gone with the process that holds them.

Owns: taking a flock(2) on an open file of one's own: two threads exclude each other as two processes
do. It is given back by closing the file: a child that os.fork() made meanwhile has no part in it
(forks.py); one that somebody's C code forked, and that executes nothing, holds it until it ends.
Locks between threads alone are here too.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from io import FileIO
from typing import TypeVar

from . import forks

_T = TypeVar("_T")


class ThreadLock:
    """A lock between threads, free in a forked child, where the thread that has it is not.

    No context manager, and left twice: a signal handler may raise between any two lines.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self.forked()
        forks.make_anew(self)

    def forked(self) -> None:
        self._lock = threading.RLock()

    def alone(self, work: Callable[[], _T]) -> _T:
        """Run `work` with the lock held; what it returns."""
        lock = self._lock
        try:
            try:
                lock.acquire()
                return work()
            finally:
                forks.release(lock)
        finally:
            forks.release(lock)


class FileLock(FileIO):
    """A lock on a file, held until it is closed: `with take(path): …`.

    Leaving it is one call into C, and its end closes it: a signal handler's exception between any
    two lines leaves it to nobody.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, "r+", opener=_open)
        self._number = self.fileno()
        self._status: os.stat_result | None = None
        forks.note(self)

    def lock(self, *, wait: bool) -> bool:
        """Have the lock; false when the file was removed meanwhile."""
        fcntl.flock(self._number, _operation(wait))
        self._status = os.fstat(self._number)
        return self._status.st_nlink > 0

    def descriptors(self) -> Iterable[int]:
        """Also while it is being closed: then the number may be somebody else's already."""
        if not self.closed:
            return (self._number,)
        try:
            same = self._status and os.path.samestat(os.fstat(self._number), self._status)
        except OSError:
            same = False
        return (self._number,) if same else ()


class DirectoryLock(forks.Descriptors):
    """A lock on a directory, held until it is closed: `with take_directory(path): …`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.open(os.open, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self[0]


def take(path: str, *, wait: bool = True) -> FileLock:
    """The lock of the file `path`, made when absent. Its holder may remove the file: it is the lock
    of the one that has the name now. BlockingIOError when somebody else has it and `wait` is false;
    OSError."""
    while True:
        lock = forks.alone(lambda: FileLock(path))
        try:
            if lock.lock(wait=wait):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()  # the new one


def take_directory(path: str, *, wait: bool = True) -> DirectoryLock:
    """The lock of a directory, as `take`."""
    lock = DirectoryLock(path)
    fcntl.flock(lock, _operation(wait))
    return lock


def _operation(wait: bool) -> int:
    return fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
