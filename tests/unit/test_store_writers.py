"""Who may write when, and what is on the disk when a durable transaction returns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from pynetns.model.state import State
from pynetns.store import Store

ID, OTHER = "ab" * 32, "ac" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "pynetns.db"))
    store.add_container(ID, "web", "", State())
    yield store
    store.close()


class Told:
    """A lock that says when somebody comes to it."""

    def __init__(self, lock: Any, came: Callable[[], None]) -> None:
        self.lock, self.came = lock, came

    def acquire(self) -> bool:
        self.came()
        return bool(self.lock.acquire())

    def release(self) -> None:
        self.lock.release()


@pytest.mark.parametrize("writer", ["statement", "transaction"])
def test_writers_of_a_process_wait_for_each_other_and_not_in_sqlite(
    store: Store, writer: str
) -> None:
    """SQLite's own waiting sleeps, ever longer, and gives up after ten seconds: a second writer of
    the process does not even ask it before the first one is done."""
    seen: SimpleQueue[str] = SimpleQueue()
    ready = threading.Event()

    def second() -> None:
        store.meta()  # its connection is open, and says what it is told
        store._link().db.set_trace_callback(lambda sql: seen.put(sql.split()[0]))
        ready.set()
        if writer == "statement":
            store.set_state(ID, State(error="second"))
        else:
            store.atomically(lambda: store.set_state(ID, State(error="second")))
        seen.put("done")

    thread = threading.Thread(target=second)

    def first() -> None:
        thread.start()
        ready.wait(10)
        assert seen.get(timeout=10) == "lock"  # it waits there, and SQLite has heard nothing
        assert seen.empty()
        store.set_state(ID, State(error="first"))

    store.meta()
    lock = store._write_lock

    def came() -> None:
        if threading.current_thread() is thread:
            seen.put("lock")

    store._write_lock = Told(lock, came)  # type: ignore[assignment]
    store.atomically(first)
    thread.join()
    told = [seen.get() for _ in range(seen.qsize())]
    assert told[-1] == "done" and {"BEGIN", "UPDATE"} & set(told)
    row = store.container(ID)
    assert row is not None and row.state.error == "second"


def test_a_reader_does_not_wait_for_a_writer(store: Store) -> None:
    found: list[int] = []

    def work() -> None:
        store.set_state(ID, State(error="unseen"))
        thread = threading.Thread(target=lambda: found.append(len(store.containers())))
        thread.start()
        thread.join(10)

    store.atomically(work)
    assert found == [1]


def synchronous(store: Store) -> int:
    return int(store._all("PRAGMA synchronous")[0][0])


FULL, NORMAL = 2, 1
PROMISES: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.add_container(OTHER, "other", "", State()),
    "image": lambda store: store.add_image("i", "base", "", ("l",), {}, 1),
    "tag": lambda store: store.tag_image("image", "b"),
    "rmi": lambda store: store.remove_image("image"),
    "fact": lambda store: store.set_meta("exec_root", "x"),
}


@pytest.mark.parametrize("promise", PROMISES)
def test_what_a_verb_promises_is_synced(store: Store, promise: str) -> None:
    """At the moment of its COMMIT; what that means for a disk, tests/system/test_power_cut.py tells."""
    store.add_image("image", "a", "", ("l",), {}, 1)
    at_commit: list[int] = []
    link = store._link()

    def told(sql: str) -> None:
        if sql.startswith("PRAGMA synchronous="):
            at_commit.append(FULL if sql.endswith("FULL") else NORMAL)
        elif sql == "COMMIT":
            at_commit.append(0)

    link.db.set_trace_callback(told)
    PROMISES[promise](store)
    link.db.set_trace_callback(None)
    assert at_commit == [FULL, 0, NORMAL]
    assert synchronous(store) == NORMAL
