"""Making the store's file, and checking whose it is before anything is read from it.

Owns: a file is made whole under another name and linked in place, so that an empty or cut one is
always damage, never a half-made store; which schema versions are read. Knows nothing of connections
that last.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import suppress

from ..errors import StateDamaged
from .connection import remove_files
from .migrations import migrate
from .schema import SCHEMA, SCHEMA_VERSION

BUSY_SECONDS = 10.0


def connect(path: str) -> sqlite3.Connection:
    """A connection to the file that is there, in autocommit mode, usable by any thread.

    mode=rw: a file that went away is an error, not a reason to make an empty one.
    """
    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(
        f"file:{name}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def create(path: str) -> None:
    """Make the file whole, then link it in place; whoever links first wins."""
    if os.path.lexists(f"{path}-wal") and not os.path.lexists(path):
        raise StateDamaged(f"{path}: is missing, but {path}-wal is there")
    fresh = f"{path}.{secrets.token_hex(8)}"
    try:
        _link_in_place(fresh, path)
        remove_files(fresh)
    except BaseException:
        remove_files(fresh)
        raise


def _link_in_place(fresh: str, path: str) -> None:
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db: sqlite3.Connection | None = None
    try:
        db = sqlite3.connect(fresh, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(SCHEMA)
        rows = (("version", str(SCHEMA_VERSION)), ("engine_id", secrets.token_hex(16)))
        db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        db.close()  # folds the WAL back into the file
    except BaseException:
        if db is not None:
            db.close()
        raise
    with suppress(FileExistsError):
        os.link(fresh, path)


def is_old(path: str, meta: Mapping[str, str]) -> bool:
    """Whether the store has an older schema than this version's. StateDamaged for a newer one, and
    for a file without a version."""
    version = str(meta.get("version", ""))
    if not version.isdecimal() or int(version) < 1 or "engine_id" not in meta:
        raise StateDamaged(f"{path}: has no schema version: it was not made by pynetns")
    if int(version) > SCHEMA_VERSION:
        raise StateDamaged(
            f"{path}: written by a newer pynetns (schema {version}, this one reads "
            f"{SCHEMA_VERSION}): upgrade pynetns"
        )
    return int(version) < SCHEMA_VERSION


def bring_up_to_date(path: str) -> None:
    """Take the store to this version's schema, by whichever process comes first."""
    opened: list[sqlite3.Connection] = []
    try:
        try:
            opened.append(connect(path))
            migrate(opened[0])
        finally:
            _close(opened)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateDamaged(f"{path}: cannot be read by this version ({error!r})") from error
    finally:
        _close(opened)  # said twice, as the first time may be interrupted


def _close(opened: list[sqlite3.Connection]) -> None:
    for db in opened:
        db.close()
