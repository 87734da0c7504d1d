"""A fork finds no connection at work, and the child uses none that it inherited.

Owns: which databases the process has open, and what happens around its forks. SQLite's process-wide
table of locks would otherwise claim locks that the child does not hold.
https://www.sqlite.org/howtocorrupt.html, section 2.6. Knows nothing of what a database does.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from .connection import Opening, leave


class Forkable(Protocol):
    """What is to be still while the process forks."""

    def quiesce(self) -> None:
        """Wait until nobody writes and no connection is at work, and keep it so."""

    def hold_new(self) -> bool:
        """The same for connections that have come since; whether there were any."""

    def is_quiet(self) -> bool:
        """Whether every connection is held."""

    def resume(self) -> None:
        """In the parent: go on."""

    def reopen(self) -> None:
        """In the child: nothing inherited is used, the next call connects anew."""


databases: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking: list[Forkable] = []


def _before_fork() -> None:
    """Wait until no thread is inside SQLite, and keep it so: every connection's lock first, the one
    for opening last, again for those that were opened meanwhile."""
    _forking.clear()
    while True:
        for database in [d for d in list(databases) if d not in _forking]:
            database.quiesce()
            _forking.append(database)
        Opening.lock.acquire()
        if all(d in _forking and d.is_quiet() for d in list(databases)):
            return
        Opening.lock.release()
        for database in _forking:
            database.hold_new()


def _after_fork_in_parent() -> None:
    leave()
    for database in _forking:
        database.resume()
    _forking.clear()


def _after_fork_in_child() -> None:
    # the thread that waits for the old one is not here
    Opening.lock, Opening.owner = threading.RLock(), 0
    for database in _forking:
        database.reopen()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
