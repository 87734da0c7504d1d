"""A fork in the middle of others' work: no connection is inside SQLite while it happens.

Owns: the order in which a fork takes and gives back the locks of every open database, and what is made
anew in the child. See fork(2); https://www.sqlite.org/howtocorrupt.html, section 2.6.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from ..forks import Hooks, around
from .connection import Opening, leave, start_anew


class Forkable(Protocol):
    """A database as a fork sees it."""

    def quiesce(self) -> None:
        """Take its locks: those of writers, then those of the connections there are."""

    def hold_new(self) -> bool:
        """Take the locks of connections that have come since; whether there were any."""

    def is_quiet(self) -> bool:
        """Whether the locks of all its connections are held."""

    def resume(self) -> None:
        """In the parent: give back every lock."""

    def reopen(self) -> None:
        """In the child: nothing inherited is used; the next call connects anew."""


watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_forking: list[Forkable] = []


def _before_fork() -> None:
    """Wait until no thread is inside SQLite, and keep it so: every connection's lock first, the one
    for opening last, again for those that were opened meanwhile."""
    _forking.clear()
    while True:
        for database in [d for d in list(watched) if d not in _forking]:
            database.quiesce()
            _forking.append(database)
        Opening.lock.acquire()
        if all(d in _forking and d.is_quiet() for d in list(watched)):
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
    start_anew()
    for database in _forking:
        database.reopen()
    _forking.clear()


around(Hooks(_before_fork, _after_fork_in_parent, _after_fork_in_child))
