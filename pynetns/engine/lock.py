"""One lock per container, valid between threads and processes, gone with the process that held it.

Owns: the lock files `<exec_root>/locks/<id>`. A flock(2) on an open file of one's own: two threads
exclude each other as two processes do. Readers never take it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


def _path(exec_root: str, container_id: str) -> str:
    return f"{exec_root}/locks/{container_id}"


def _acquire(path: str, operation: int) -> int:
    """An open, locked lock file that still has its name; BlockingIOError with LOCK_NB."""
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, operation)
            if os.fstat(fd).st_nlink:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # removed with its container while we waited: take the new one


@contextmanager
def container_lock(exec_root: str, container_id: str) -> Iterator[None]:
    """Hold the container's lock; waits for it."""
    fd = _acquire(_path(exec_root, container_id), fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def try_container_lock(exec_root: str, container_id: str) -> Iterator[bool]:
    """Hold the lock if nobody else does; yields whether it is held."""
    try:
        fd = _acquire(_path(exec_root, container_id), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)


def remove_lock(exec_root: str, container_id: str) -> None:
    """Remove the lock file of a removed container; called while holding it."""
    try:
        os.unlink(_path(exec_root, container_id))
    except FileNotFoundError:
        pass
