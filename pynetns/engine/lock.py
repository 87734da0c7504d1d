"""One lock per container, valid between threads and processes, gone with the process that held it.

Owns: the lock files `<exec_root>/locks/<id>`. What a lock is, is locks.py's. Readers never take it.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

from .. import locks
from ..errors import clear_errors
from .exec_root import make_parts


def _path(exec_root: str, container_id: str) -> str:
    return f"{exec_root}/locks/{container_id}"


@clear_errors
def container_lock(exec_root: str, container_id: str) -> AbstractContextManager[object]:
    """Hold the container's lock, from the call on; waits for it."""
    return _take(exec_root, container_id, wait=True)


@clear_errors
def try_container_lock(exec_root: str, container_id: str) -> AbstractContextManager[object]:
    """Hold the lock if nobody else does; what is entered is true if it is held."""
    try:
        return _take(exec_root, container_id, wait=False)
    except BlockingIOError:
        return nullcontext(False)


def _take(exec_root: str, container_id: str, *, wait: bool) -> locks.FileLock:
    try:
        return locks.take(_path(exec_root, container_id), wait=wait)
    except FileNotFoundError:
        make_parts(exec_root)  # somebody has deleted the directory
        return locks.take(_path(exec_root, container_id), wait=wait)


def remove_lock(exec_root: str, container_id: str) -> None:
    """Remove the lock file of a removed container; called while holding it."""
    try:
        os.unlink(_path(exec_root, container_id))
    except FileNotFoundError:
        pass
