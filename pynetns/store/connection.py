"""One thread's connection to SQLite, and how to end whatever it has begun.

Owns: the connection, its lock and its depth of transactions; the lock for opening and closing, which
SQLite does with locks of its own that a fork must not meet. Knows nothing of what is executed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ..forks import release

_T = TypeVar("_T")


class Opening:
    """The process's one lock for opening and closing connections. Nobody waits for a Link's lock while
    holding it: a collector may close a connection in the middle of another's work."""

    lock = threading.RLock()
    owner = 0  # the thread inside


def alone(work: Callable[[], _T]) -> _T:
    """Run `work` while no other thread opens or closes a connection, or forks; what it returns.

    Not a `with`: between its last line and `__exit__` a signal handler may raise, and the lock would
    be held for ever. Left twice, as leaving may be interrupted itself.
    """
    if Opening.owner == threading.get_ident():
        return work()
    try:
        try:
            Opening.lock.acquire()
            Opening.owner = threading.get_ident()
            return work()
        finally:
            leave()
    finally:
        leave()


def leave() -> None:
    """Let others open and close, if it was this thread that did."""
    if Opening.owner == threading.get_ident():
        Opening.owner = 0
    release(Opening.lock)


def close_quietly(db: sqlite3.Connection) -> None:
    """Close a connection whose thread is gone."""
    alone(db.close)


class Link:
    """One thread's connection. `lock` is held while it works, so that a fork never meets it half
    way; `depth` counts nested transactions, `slow` says that each one is synced. Closes itself
    when its thread ends."""

    __slots__ = ("__weakref__", "cursor", "db", "depth", "lock", "slow")

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.cursor = db.cursor()  # one for all: a new one per statement costs as much as a look-up
        self.lock = threading.RLock()
        self.depth = 0
        self.slow = False
        # not __del__: a collector may finalize the connection first, which then complains
        weakref.finalize(self, close_quietly, db)


def end_transaction(link: Link) -> None:
    """Roll back what is open, after a COMMIT that failed too, and leave the slow mode."""
    try:
        if link.db.in_transaction:
            link.db.execute("ROLLBACK")
        if link.slow:
            link.db.execute("PRAGMA synchronous=NORMAL")
            link.slow = False
    except sqlite3.Error:
        pass  # closed, or so broken that it holds nothing any more


def start_anew() -> None:
    """In a forked child: the thread that holds or waits for the old lock is not here."""
    Opening.lock, Opening.owner = threading.RLock(), 0


def remove_files(path: str) -> None:
    """A database that came to nothing, or has another name by now, with SQLite's files beside it."""
    for file in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError):
            os.unlink(file)
