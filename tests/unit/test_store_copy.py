"""store/copy.py: rows from a copy, where SQLite cannot read in place; a full and a read-only disk are in
tests/system/test_exhaustion.py."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from pynetns.errors import Unavailable
from pynetns.model.state import State
from pynetns.store import Store, copy

NAMES = "SELECT name FROM containers WHERE name > ? ORDER BY name"


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "root").mkdir()
    return str(tmp_path / "root/pynetns.db")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are made."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(copy, "_MEMORY", (f"{tmp_path}/missing", str(place)))
    return place


@pytest.fixture
def store(path: str):  # type: ignore[no-untyped-def]
    store = Store(path)
    yield store
    store.close()


def test_it_has_what_is_only_in_the_log_too_and_leaves_nothing(
    store: Store, path: str, memory: Path
) -> None:
    for name in ("a", "b", "c"):
        store.add_container(name * 64, name, "", State())
    assert os.path.getsize(f"{path}-wal") > 0
    assert copy.read_copy(path, NAMES, ("a",)) == [("b",), ("c",)]
    assert os.listdir(memory) == []


def test_what_changes_while_it_is_copied_is_copied_again(
    store: Store, path: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = copy._read, []

    def read(*args: object) -> object:
        rows = real(*args)  # type: ignore[arg-type]
        tries.append(rows)
        if len(tries) == 1:
            store.add_container("a" * 64, "new", "", State())
        return rows

    monkeypatch.setattr(copy, "_read", read)
    assert copy.read_copy(path, NAMES, ("",)) == [("new",)]
    assert tries == [[], [("new",)]]


def test_what_never_stands_still_is_not_told(
    store: Store, path: str, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "_stamp", lambda path: object())
    assert copy.read_copy(path, NAMES, ("",)) is None


def test_damage_is_not_read(path: str, memory: Path) -> None:
    Path(path).write_bytes(b"x" * 5000)
    assert copy.read_copy(path, NAMES, ("",)) is None
    assert os.listdir(memory) == []


@pytest.mark.parametrize(
    "text", ["database or disk is full", "attempt to write a readonly database"]
)
def test_errors_that_are_about_writing(text: str) -> None:
    assert copy.cannot_write(sqlite3.OperationalError(text))
    assert not copy.cannot_write(sqlite3.OperationalError("no such table: containers"))


def test_a_store_whose_directory_is_gone_says_so(store: Store, path: str) -> None:
    """To a thread that opens its connection then; neither SQLite nor the copy finds it."""
    directory = os.path.dirname(path)
    os.rename(directory, f"{directory}-away")
    Path(directory).touch()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            store.containers()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert [type(failure) for failure in failures] == [Unavailable]
    os.unlink(directory)
    os.rename(f"{directory}-away", directory)
