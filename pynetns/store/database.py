"""The SQLite file below the store: connections, transactions, forks, errors.

Owns: how the file is shared between threads and processes. Knows nothing of the tables' meaning, nor
how the file is made (creation.py) or comes up to date (migrations.py).

- One connection per thread. Writers of one process queue on a lock, since SQLite's own waiting
  sleeps; writers of different processes wait for each other by SQLite's busy handler (10 s).
- A fork finds no connection at work (all locks are taken around it) and the child closes what it
  inherited (forks.py).
- An exception may come between any two lines (a signal handler's): no transaction stays open, no
  lock held, no connection forgotten. Hence functions that take the work to be done, no `with`.
- Reading works where nothing can be written (see copy.py).
- An empty or cut file is damage, never a half-made store. It is refused and never overwritten.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ..errors import StateDamaged, System, Unavailable, remedy_of
from ..forks import release
from .connection import Link, alone, end_transaction
from .copy import cannot_write, read_copy
from .creation import bring_up_to_date, connect, create, is_old
from .forks import watched
from .refusals import translate

_T = TypeVar("_T")
# A checkpoint costs an fsync; every 4,000 pages (16 MiB) is once in several hundred starts.
_PRAGMAS = (
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA foreign_keys=ON",
)


class Database:
    """The file `path`. Thread-safe, fork-safe, shared by any number of processes.

    Raises StateDamaged (unreadable, from a newer version), Unavailable (not writable, disk full).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = threading.local()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._write_lock = threading.RLock()
        self._held: list[Link] = []
        self._closed = False
        watched.add(self)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        path = self.path
        try:
            if not os.path.lexists(path):
                alone(partial(create, path))
            if os.path.getsize(path) == 0:
                raise StateDamaged(f"{path}: is empty: restore it from a backup or remove it")
            self._check_version()
        except sqlite3.Error as error:
            raise translate(error, path) from error
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}{remedy_of(error.errno)}") from error

    # ---- opening ----

    def _check_version(self) -> None:
        meta = self.meta()
        if is_old(self.path, meta):
            alone(partial(bring_up_to_date, self.path))
            meta = self.meta()
        self.engine_id = str(meta["engine_id"])
        self.meta_at_open = meta

    def meta(self) -> dict[str, str]:
        """Facts about the root as a whole, by name: engine_id, version, exec_root."""
        return dict(self._all("SELECT key, value FROM meta"))

    def set_meta(self, key: str, value: str) -> None:
        """Record such a fact; durable on return."""

        def record() -> None:
            self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

        self.atomically(record, durable=True)

    def _link(self) -> Link:
        try:
            link: Link = self._local.link
            return link
        except AttributeError:
            return self._connect()

    def _connect(self) -> Link:
        if self._closed:
            raise System(f"{self.path}: the store is closed")
        db: sqlite3.Connection | None = None

        def open_link() -> Link:
            nonlocal db
            db = connect(self.path)
            for pragma in _PRAGMAS:
                db.execute(pragma)
            link = Link(db)
            self._links.add(link)
            self._local.link = link
            return link

        try:
            return alone(open_link)
        except BaseException:
            if db is not None:
                self._forget(db)
            raise

    def _forget(self, db: sqlite3.Connection) -> None:
        """Close a connection that was not handed out."""
        self._local.__dict__.pop("link", None)
        db.close()

    def close(self) -> None:
        """Close every thread's connection. Idempotent."""
        self._closed = True
        watched.discard(self)
        self._drop_links()

    def _drop_links(self) -> None:
        links = list(self._links)
        self._local = threading.local()
        self._links = weakref.WeakSet()

        def close() -> None:
            for link in links:
                link.db.close()

        alone(close)

    # ---- transactions ----

    def atomically(self, work: Callable[[], _T], *, durable: bool = False) -> _T:
        """Run `work` as one transaction, alone among writers; what it returns.

        All or nothing: an exception out of `work` undoes what it wrote, and passes. Within another
        transaction it joins that one, and then undoes its own part only. `durable`: on disk (fsync)
        when this returns; otherwise it survives any process's death, but not a power cut.

        A function, not a context manager: Python may raise what a signal handler raises before the
        first line of `__exit__`, and the transaction would stay open.
        """
        if self._depth():
            return self._joined(work)

        def transaction() -> _T:
            link = self._hold()
            if durable:
                link.slow = True
                link.db.execute("PRAGMA synchronous=FULL")
            link.cursor.execute("BEGIN IMMEDIATE")
            link.depth = 1
            result = work()
            link.cursor.execute("COMMIT")
            link.depth = 0
            if durable:
                link.db.execute("PRAGMA synchronous=NORMAL")
                link.slow = False
            self._give_back(link)
            return result

        return self._cleanly(transaction)

    def _cleanly(self, work: Callable[[], _T]) -> _T:
        """Run `work`; whatever comes out of it, nothing is open or held afterwards. Said twice, as
        what follows an error may be interrupted itself."""
        try:
            try:
                return work()
            except BaseException:
                self._let_go()
                raise
        except BaseException as error:
            self._let_go()
            self._raise_known(error)
            raise

    def _joined(self, work: Callable[[], _T]) -> _T:
        """`work` as a part of this thread's transaction."""
        link = self._link()
        depth = link.depth
        try:
            link.db.execute(f"SAVEPOINT s{depth}")
            link.depth = depth + 1
            result = work()
            link.db.execute(f"RELEASE s{depth}")
            link.depth = depth
            return result
        except BaseException as error:
            link.depth = depth
            with suppress(sqlite3.Error):  # no such savepoint: SQLite has undone everything
                link.db.execute(f"ROLLBACK TO s{depth}")
                link.db.execute(f"RELEASE s{depth}")
            self._raise_known(error)
            raise

    def _depth(self) -> int:
        """How many transactions of this thread are open."""
        link: Link | None = getattr(self._local, "link", None)
        return 0 if link is None else link.depth

    def _hold(self) -> Link:
        """The connection, for this thread alone and as the only writer of the process."""
        link = self._link()
        self._write_lock.acquire()
        link.lock.acquire()
        return link

    def _give_back(self, link: Link) -> None:
        link.lock.release()
        self._write_lock.release()

    def _let_go(self) -> None:
        """End whatever this thread has begun, from any point in between: no transaction is open
        and no lock held afterwards. Called outside of every transaction."""
        link: Link | None = getattr(self._local, "link", None)
        if link is not None:
            link.depth = 0
            end_transaction(link)
            release(link.lock)
        release(self._write_lock)

    def _raise_known(self, error: BaseException) -> None:
        """Raise an error of SQLite as one of ours. IntegrityError passes, as its meaning is the
        caller's; so does everything else."""
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise translate(error, self.path) from error

    # ---- statements ----

    def _one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The only row, None when there is none. For statements that yield at most one: a row left
        unread would keep the connection on its snapshot."""
        rows = self._all(sql, args)
        return rows[0] if rows else None

    def _all(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """Every row. Where the file system lets SQLite not even read (it wants to write its index
        first), the rows are those of a copy."""
        if self._depth():
            return self._fetch(sql, args)

        def read() -> list[Any]:
            try:
                link = self._link()
                link.lock.acquire()
                rows = link.cursor.execute(sql, args).fetchall()
            except sqlite3.OperationalError as error:
                copied = read_copy(self.path, sql, args) if cannot_write(error) else None
                if copied is None:
                    raise
                self._let_go()
                return copied
            link.lock.release()
            return rows

        return self._cleanly(read)

    def _fetch(self, sql: str, args: Sequence[Any]) -> list[Any]:
        try:
            return self._link().cursor.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _write(self, sql: str, args: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute one writing statement. IntegrityError passes, its meaning is the caller's."""
        if self._depth():
            try:
                return self._link().cursor.execute(sql, args)
            except sqlite3.Error as error:
                self._raise_known(error)
                raise

        def write() -> sqlite3.Cursor:
            link = self._hold()
            cursor = link.cursor.execute(sql, args)
            self._give_back(link)
            return cursor

        return self._cleanly(write)

    # ---- forks ----

    def quiesce(self) -> None:
        """Wait until no thread is inside SQLite, and keep it so."""
        self._write_lock.acquire()
        self._held = []
        self.hold_new()

    def hold_new(self) -> bool:
        """Take the locks of connections that have come since; whether there were any."""
        new = [link for link in list(self._links) if link not in self._held]
        for link in new:
            link.lock.acquire()
            self._held.append(link)
        return bool(new)

    def is_quiet(self) -> bool:
        """Whether every connection's lock is held."""
        return all(link in self._held for link in list(self._links))

    def resume(self) -> None:
        """After a fork: go on."""
        held, self._held = self._held, []
        for link in held:
            link.lock.release()
        self._write_lock.release()

    def reopen(self) -> None:
        """In a forked child: nothing inherited is used; the next call connects anew."""
        self._held = []
        self._write_lock = threading.RLock()
        self._drop_links()
