"""One lock per container, valid between threads and processes, gone with the process that held it.

Owns: the lock files `<exec_root>/locks/<id>`. A flock(2) on an open file of one's own: two threads
exclude each other as two processes do. Readers never take it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO

from ..errors import clear_errors
from .exec_root import make_parts


def _path(exec_root: str, container_id: str) -> str:
    return f"{exec_root}/locks/{container_id}"


@clear_errors
def _acquire(path: str, operation: int) -> FileIO:
    """An open, locked lock file that still has its name; BlockingIOError with LOCK_NB. A file object
    closes itself if its caller is interrupted before it has it."""
    while True:
        file = FileIO(path, "r+", opener=_open)
        try:
            fcntl.flock(file, operation)
            if os.fstat(file.fileno()).st_nlink:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # removed with its container while we waited: take the new one


def _open(path: str, flags: int) -> int:
    flags |= os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_parts(os.path.dirname(os.path.dirname(path)))  # somebody has deleted the directory
        return os.open(path, flags, 0o600)


@contextmanager
def container_lock(exec_root: str, container_id: str) -> Iterator[None]:
    """Hold the container's lock; waits for it."""
    with _acquire(_path(exec_root, container_id), fcntl.LOCK_EX) as file:
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile has a copy


@contextmanager
def try_container_lock(exec_root: str, container_id: str) -> Iterator[bool]:
    """Hold the lock if nobody else does; yields whether it is held."""
    try:
        file = _acquire(_path(exec_root, container_id), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    with file:
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def remove_lock(exec_root: str, container_id: str) -> None:
    """Remove the lock file of a removed container; called while holding it."""
    try:
        os.unlink(_path(exec_root, container_id))
    except FileNotFoundError:
        pass
