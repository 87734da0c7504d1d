"""Reading the store where nothing can be written: from a copy in memory.

Owns: the copy, and when it may be used. SQLite wants to write even to read: an index of the log
(`-shm`), and the log's file itself. On a full or read-only file system that fails, yet what is there
can be read. https://www.sqlite.org/wal.html#read_only_databases
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from typing import Any

_TRIES = 5
_MEMORY = ("/dev/shm", "/run")  # where a tmpfs usually is
# The texts are SQLite's own: no space, no space for the index, read-only, no file could be made.
_CANNOT_WRITE = ("disk is full", "disk I/O error", "readonly database", "unable to open")


def cannot_write(error: sqlite3.Error) -> bool:
    """Whether the error may be about writing, while reading would work."""
    return any(text in str(error) for text in _CANNOT_WRITE)


def read_copy(path: str, sql: str, args: Sequence[Any]) -> list[Any] | None:
    """The rows of a reading statement, from a copy of the database `path` and of its log; None
    where that cannot be done either (then the first error is the one to tell)."""
    for _ in range(_TRIES):
        before = _stamp(path)
        if before is None:
            return None
        rows = _read(path, sql, args)
        if _stamp(path) == before:  # nobody wrote meanwhile
            return rows
    return None


def _stamp(path: str) -> tuple[tuple[int, int], ...] | None:
    stamps = []
    for file in (path, f"{path}-wal"):
        try:
            status = os.stat(file)
            stamps.append((status.st_mtime_ns, status.st_size))
        except FileNotFoundError:
            stamps.append((0, 0))
        except OSError:
            return None
    return tuple(stamps)


def _read(path: str, sql: str, args: Sequence[Any]) -> list[Any] | None:
    directory = ""
    try:
        directory = tempfile.mkdtemp(prefix="pynetns-", dir=_memory())
        copied = f"{directory}/copy.db"
        shutil.copyfile(path, copied)
        if os.path.exists(f"{path}-wal"):
            shutil.copyfile(f"{path}-wal", f"{copied}-wal")
        return _select(copied, sql, args)
    except (OSError, sqlite3.Error):
        return None
    finally:
        if directory:
            shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    return next((place for place in _MEMORY if os.access(place, os.W_OK)), None)


def _select(copied: str, sql: str, args: Sequence[Any]) -> list[Any]:
    db = sqlite3.connect(copied, isolation_level=None)
    try:
        return db.execute(sql, args).fetchall()
    finally:
        db.close()
