"""An exception between any two lines, as a signal handler may raise one: nothing stays open or held.

Every line in turn: tests/interrupts.py.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pynetns.errors import Conflict
from pynetns.model.state import State
from pynetns.model.summary import Summary
from pynetns.store import EndpointRow, NetworkRow, PortRow, SandboxRow, Store
from pynetns.store.connection import Opening
from pynetns.undo import Undo

from ..interrupts import PACKAGE, descriptors, interrupted

STORE, UNDO = f"{PACKAGE}/store/", f"{PACKAGE}/undo.py"
ID, OTHER = "ab" * 32, "cd" * 32


def allocate(store: Store) -> None:
    def work() -> None:
        store.add_sandbox(SandboxRow(ID, "s", "/k"))
        store.add_endpoint(EndpointRow("e", ID, "n", "web", 5, "m", "veth0", "s"))
        store.add_ports([PortRow("tcp", "0.0.0.0", 80, ID, "e", "10.0.0.5", 80)])

    store.atomically(work)


def nested(store: Store) -> None:
    store.atomically(lambda: (store.add_event("container", "a", ID), allocate(store)))


def settle(store: Store) -> None:
    def work() -> None:
        store.set_state(ID, State(status="exited"))
        store.add_event("container", "die", ID, {"exitCode": "0"})

    store.atomically(work)
    store.remove_sandbox(ID)
    store.remove_container(ID)


FLOWS: dict[str, Callable[[Store], object]] = {
    "create": lambda store: store.add_container(OTHER, "other", "", State()),
    "name in use": lambda store: store.add_container(OTHER, "web", "", State()),
    "summary": lambda store: store.set_summary(ID, Summary()),
    "allocate": allocate,
    "nested": nested,
    "settle": settle,
    "read": lambda store: (store.containers(), store.container(ID), store.ports_of(ID)),
    "event": lambda store: store.add_event("container", "start", ID),
    "fact": lambda store: store.set_meta("exec_root", "x"),
    "image": lambda store: (
        store.add_image("i", "base", "", ("l",), {}, 1),
        store.tag_image("i", "b"),
        store.remove_image("i"),
    ),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: hundreds of stores are made, each with its fsyncs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def nobody_opens() -> bool:
    """Whether another thread may open a store: the lock for that is the process's."""
    free: list[bool] = []

    def look() -> None:
        free.append(Opening.lock.acquire(timeout=10))
        if free[0]:
            Opening.lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return free == [True] and Opening.owner == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a finalizer
def test_closing_keeps_nobody_out(memory: Path) -> None:
    for at in range(1, 60):  # more lines than it has
        store = Store(str(memory / f"{at}.db"))
        store.add_container(ID, "web", "", State())
        interrupted((STORE,), at, store.close)
        assert nobody_opens(), f"line {at}"
        store.close()


@pytest.mark.parametrize("flow", FLOWS)
def test_no_transaction_stays_open(memory: Path, flow: str) -> None:
    """After an interrupt at any line of the store, others can write at once."""
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        path = str(memory / f"{at}.db")
        store = Store(path)
        store.add_container(ID, "web", "", State())
        store.add_network(NetworkRow("n", "bridge", "bridge", "", "", "br", 1500, 0))
        open_before = descriptors()
        came_as_far = interrupted((STORE,), at, lambda store=store: FLOWS[flow](store))
        assert descriptors() == open_before
        with sqlite3.connect(path, timeout=0) as other:
            other.execute("UPDATE meta SET value = value")  # "database is locked" if one is open
        other.close()
        thread = threading.Thread(target=store.add_event, args=("container", "t", ID), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), f"line {at}: a lock of the process is held"
        assert nobody_opens(), f"line {at}"
        store.add_event("container", "x", ID)  # and the interrupted thread goes on
        store.close()
    assert at > 5


def test_opening_leaves_nothing(memory: Path) -> None:
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        directory = memory / str(at)
        directory.mkdir()
        before = descriptors()
        opened: list[Store] = []
        came_as_far = interrupted(
            (STORE,), at, lambda d=directory, o=opened: o.append(Store(str(d / "pynetns.db")))
        )
        assert nobody_opens(), f"line {at}"
        for store in opened:
            store.close()
        assert descriptors() == before, f"line {at}"
        assert {path.name for path in directory.iterdir()} <= {"pynetns.db"}, f"line {at}"
        Store(str(directory / "pynetns.db")).close()


# ---- undo ----


def test_an_interrupt_does_not_keep_undo_from_the_rest() -> None:
    done: list[str] = []

    def interrupt() -> None:
        done.append("interrupted")
        if done.count("interrupted") == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Undo() as undo:
        undo.push(done.append, "last")
        undo.push(interrupt)
        undo.push(done.append, "first")
    assert done == ["first", "interrupted", "interrupted", "last"]


def test_an_interrupt_at_any_line_of_undo() -> None:
    """Entered twice, everything pushed is undone, and each descriptor is closed once."""
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        undone: set[str] = set()
        pushed: list[str] = []

        def work(undone: set[str] = undone, pushed: list[str] = pushed) -> None:
            with Undo() as undo, undo:
                for name in "abc":
                    undo.push(undone.add, name)
                    pushed.append(name)
                undo.push(lambda: undone.add("d"))
                raise Conflict("the first failure")

        came_as_far = interrupted((UNDO,), at, work)
        assert undone >= set(pushed), f"line {at}"
