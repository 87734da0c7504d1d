"""What SQLite's errors mean to a caller: whose fault, which file, what to do.

Owns: the table. Knows nothing of connections.
"""

from __future__ import annotations

import os
import sqlite3

from ..errors import PynetnsError, StateDamaged, System, Unavailable, remedy_of

_ROOM = 65536  # bytes: SQLite's index takes 32 KiB at once
_FULL = "free some space on its file system"
# The texts are SQLite's own (sqlite3_errstr); Python 3.10 has no error codes to look at.
_ERRORS: tuple[tuple[str, type[PynetnsError], str], ...] = (
    ("file is not a database", StateDamaged, "restore it from a backup or remove it"),
    ("malformed", StateDamaged, "restore it from a backup or remove it"),
    ("no such table", StateDamaged, "it was not made by pynetns"),
    ("no such column", StateDamaged, "it was not made by this version"),
    ("disk is full", Unavailable, _FULL),
    ("disk I/O error", Unavailable, "check the file system and its free space"),
    ("readonly database", Unavailable, "its file system or its permissions allow no writing"),
    ("is locked", Unavailable, "another process holds it for more than 10 s"),
)


def translate(error: sqlite3.Error, path: str) -> PynetnsError:
    """The exception a caller can understand; it names the file and the remedy."""
    text = str(error)
    if "unable to open" in text:
        return _not_opened(error, path)
    if "I/O error" in text and _is_full(path):  # what SQLite calls a full disk when it maps files
        text = "database or disk is full"
    for part, kind, remedy in _ERRORS:
        if part in text:
            return kind(f"{path}: {text}: {remedy}")
    return System(f"{path}: {text}")


def _is_full(path: str) -> bool:
    try:
        status = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _ROOM or status.f_favail == 0


def _not_opened(error: sqlite3.Error, path: str) -> PynetnsError:
    """Why the file cannot be opened: SQLite does not tell."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as reason:
        return Unavailable(f"{path}: {reason.strerror}{remedy_of(reason.errno)}")
    return Unavailable(f"{path}: {error}: its directory must be writable and have space")
