"""The SQLite file below the store: connections, transactions, forks, errors.

Owns: how the file is made, opened, shared and refused. Knows nothing of the tables' meaning.

- One connection per thread. Writers of one process queue on a lock, since SQLite's own waiting
  sleeps; writers of different processes wait for each other by SQLite's busy handler (10 s).
- A fork finds no connection at work (all locks are taken around it) and the child closes what it
  inherited: SQLite's process-wide table of locks would otherwise claim locks the child does not
  hold. https://www.sqlite.org/howtocorrupt.html, section 2.6.
- The file is made whole under another name and linked in place, so an empty or cut file is always
  damage, never a half-made store. It is refused and never overwritten.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..errors import PynetnsError, StateDamaged, System, Unavailable
from .rows import SCHEMA, SCHEMA_VERSION

BUSY_SECONDS = 10.0
# A checkpoint costs an fsync; every 4,000 pages (16 MiB) is once in several hundred starts.
_PRAGMAS = ("PRAGMA synchronous=NORMAL", "PRAGMA wal_autocheckpoint=4000")

_FULL = "free some space on its file system"
# The texts are SQLite's own (sqlite3_errstr); Python 3.10 has no error codes to look at.
_ERRORS: tuple[tuple[str, type[PynetnsError], str], ...] = (
    ("file is not a database", StateDamaged, "restore it from a backup or remove it"),
    ("malformed", StateDamaged, "restore it from a backup or remove it"),
    ("no such table", StateDamaged, "it was not made by pynetns"),
    ("no such column", StateDamaged, "it was not made by this version"),
    ("disk is full", Unavailable, _FULL),
    ("disk I/O error", System, "check the file system and its free space"),
    ("readonly database", Unavailable, "its file system or its permissions allow no writing"),
    ("unable to open", Unavailable, "the directory must exist and be writable"),
    ("is locked", Unavailable, "another process holds it for more than 10 s"),
)


def translate(error: sqlite3.Error, path: str) -> PynetnsError:
    """The exception a caller can understand; it names the file and the remedy."""
    text = str(error)
    for part, kind, remedy in _ERRORS:
        if part in text:
            return kind(f"{path}: {text}: {remedy}")
    return System(f"{path}: {text}")


class _Link:
    """One thread's connection. `lock` is held while it works, so that a fork never meets it half
    way; `depth` counts nested transactions. Closes itself when its thread ends."""

    __slots__ = ("__weakref__", "cursor", "db", "depth", "lock")

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.cursor = db.cursor()  # one for all: a new one per statement costs as much as a look-up
        self.lock = threading.RLock()
        self.depth = 0
        # not __del__: a collector may finalize the connection first, which then complains
        weakref.finalize(self, db.close)


class _Transaction:
    """`with store.transaction():` — see Database.transaction."""

    __slots__ = ("database", "durable", "link")

    def __init__(self, database: Database, durable: bool) -> None:
        self.database = database
        self.durable = durable

    def __enter__(self) -> None:
        self.link = self.database._enter(self.durable)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.database._leave(self.link, kind is None, self.durable)
        if isinstance(error, sqlite3.Error):
            raise translate(error, self.database.path) from error


class Database:
    """The file `path`. Thread-safe, fork-safe, shared by any number of processes.

    Raises StateDamaged (unreadable, from a newer version), Unavailable (not writable, disk full).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = threading.local()
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()
        self._write_lock = threading.RLock()
        self._closed = False
        _databases.add(self)
        try:
            if not os.path.lexists(path):
                self._create()
            if os.path.getsize(path) == 0:
                raise StateDamaged(f"{path}: is empty: restore it from a backup or remove it")
            self._check_version()
        except sqlite3.Error as error:
            raise translate(error, path) from error
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error

    # ---- making and opening ----

    def _create(self) -> None:
        """Make the file whole, then link it in place; whoever links first wins."""
        if os.path.lexists(f"{self.path}-wal") and not os.path.lexists(self.path):
            raise StateDamaged(f"{self.path}: is missing, but {self.path}-wal is there")
        fresh = f"{self.path}.{secrets.token_hex(8)}"
        try:
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(fresh, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(SCHEMA)
                rows = (("version", str(SCHEMA_VERSION)), ("engine_id", secrets.token_hex(16)))
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
            finally:
                db.close()  # folds the WAL back into the file
            os.link(fresh, self.path)
        except FileExistsError:
            pass
        finally:
            for leftover in (fresh, f"{fresh}-wal", f"{fresh}-shm"):
                if os.path.lexists(leftover):
                    os.unlink(leftover)

    def _check_version(self) -> None:
        meta = dict(self._all("SELECT key, value FROM meta"))
        version = str(meta.get("version", ""))
        if not version.isdecimal() or "engine_id" not in meta:
            raise StateDamaged(f"{self.path}: has no schema version: it was not made by pynetns")
        if int(version) > SCHEMA_VERSION:
            raise StateDamaged(
                f"{self.path}: written by a newer pynetns (schema {version}, this one reads "
                f"{SCHEMA_VERSION}): upgrade pynetns"
            )
        self.engine_id = str(meta["engine_id"])

    def _link(self) -> _Link:
        try:
            link: _Link = self._local.link
            return link
        except AttributeError:
            return self._connect()

    def _connect(self) -> _Link:
        if self._closed:
            raise System(f"{self.path}: the store is closed")
        # mode=rw: a file that went away is an error, not a reason to make an empty one.
        uri = (
            f"file:{self.path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=rw"
        )
        db = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                db.execute(pragma)
        except BaseException:
            db.close()
            raise
        link = self._local.link = _Link(db)
        self._links.add(link)
        return link

    def close(self) -> None:
        """Close every thread's connection. Idempotent."""
        self._closed = True
        _databases.discard(self)
        self._drop_links()

    def _drop_links(self) -> None:
        links = list(self._links)
        self._local = threading.local()
        self._links = weakref.WeakSet()
        for link in links:
            link.db.close()

    # ---- transactions ----

    def transaction(self, *, durable: bool = False) -> _Transaction:
        """`with store.transaction():` — all or nothing, alone among writers; nested ones join.

        An inner one that fails undoes its own part only. `durable`: on disk (fsync) when it
        returns; otherwise it survives any process's death, but not a power cut.
        """
        return _Transaction(self, durable)

    def _enter(self, durable: bool) -> _Link:
        self._write_lock.acquire()
        try:
            link = self._link()
            link.lock.acquire()
        except BaseException as error:
            self._write_lock.release()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self.path) from error
            raise
        try:
            if link.depth:
                link.db.execute(f"SAVEPOINT s{link.depth}")
            else:
                if durable:
                    link.db.execute("PRAGMA synchronous=FULL")
                link.cursor.execute("BEGIN IMMEDIATE")
            link.depth += 1
        except BaseException as error:
            link.lock.release()
            self._write_lock.release()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self.path) from error
            raise
        return link

    def _leave(self, link: _Link, commit: bool, durable: bool) -> None:
        link.depth -= 1
        try:
            if link.depth:
                if not commit:
                    link.db.execute(f"ROLLBACK TO s{link.depth}")
                link.db.execute(f"RELEASE s{link.depth}")
            else:
                self._end(link, commit)
                if durable:
                    link.db.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise translate(error, self.path) from error
        finally:
            link.lock.release()
            self._write_lock.release()

    def _end(self, link: _Link, commit: bool) -> None:
        try:
            if commit:
                link.cursor.execute("COMMIT")
        finally:
            # Also after a COMMIT that failed; SQLite may have rolled back itself (disk full).
            if link.db.in_transaction:
                link.db.execute("ROLLBACK")

    # ---- statements ----

    def _one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The only row, None when there is none. For statements that yield at most one: a row left
        unread would keep the connection on its snapshot."""
        try:
            link = self._link()
            with link.lock:
                return link.cursor.execute(sql, args).fetchone()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _all(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        try:
            link = self._link()
            with link.lock:
                return link.cursor.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _write(self, sql: str, args: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute one writing statement. IntegrityError passes, its meaning is the caller's."""
        try:
            with self._write_lock:
                link = self._link()
                with link.lock:
                    return link.cursor.execute(sql, args)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    # ---- forks ----

    def _quiesce(self) -> None:
        self._write_lock.acquire()
        self._held = list(self._links)
        for link in self._held:
            link.lock.acquire()

    def _resume(self) -> None:
        for link in self._held:
            link.lock.release()
        self._held = []
        self._write_lock.release()

    def _reopen(self) -> None:
        """In a forked child: nothing inherited is used; the next call connects anew."""
        self._held = []
        self._write_lock = threading.RLock()
        self._drop_links()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_forking: list[Database] = []


def _before_fork() -> None:
    _forking[:] = list(_databases)
    for database in _forking:
        database._quiesce()


def _after_fork(method: str) -> None:
    for database in _forking:
        getattr(database, method)()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork("_resume"),
    after_in_child=lambda: _after_fork("_reopen"),
)
