"""Stores of older versions: brought up to date once, whole, and refused when they are newer."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from pynetns.errors import StateDamaged, Unavailable
from pynetns.store import SCHEMA_VERSION, Store, migrations
from pynetns.store.connection import Opening

from ..interrupts import PACKAGE, descriptors, interrupted

DATA = Path(__file__).parents[1] / "data"
STORES = sorted(path.name for path in DATA.glob("root-*.tar.gz"))
MADE, ENDED, LIVE = "made", "ended", "live"


@pytest.fixture(params=STORES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The store of a root that an older version wrote."""
    path = tmp_path / "pynetns.db"
    with tarfile.open(DATA / request.param) as tar:
        member = tar.extractfile("./pynetns.db")
        assert member is not None
        path.write_bytes(member.read())
    return path


@pytest.fixture
def first() -> Iterator[Path]:
    """The store of the first release, as its engine found it while containers ran. In memory: it is
    brought up to date hundreds of times, each with its fsyncs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = Path(directory, "pynetns.db")
        with tarfile.open(DATA / "root-0.1.0.tar.gz") as tar:
            member = tar.extractfile("./pynetns.db")
            assert member is not None
            path.write_bytes(member.read())
        yield path


def execute(path: Path, sql: str, *args: object) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(sql, args).fetchall()
    finally:
        db.close()


def version(path: Path) -> str:
    return str(execute(path, "SELECT value FROM meta WHERE key = 'version'")[0][0])


def definitions(path: Path) -> set[str]:
    """Every table and index, without what says nothing: quotes and white space."""
    rows = execute(path, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {"".join(str(sql).replace('"', "").split()) for (sql,) in rows}


def test_the_first_one_is_of_the_first_schema(first: Path) -> None:
    assert version(first) == "1"
    (sql,) = execute(first, "SELECT sql FROM sqlite_master WHERE name = 'containers'")[0]
    assert "state TEXT NOT NULL, network TEXT NOT NULL" in str(sql) and "summary" not in str(sql)


def test_each_becomes_what_a_new_one_is(old: Path, tmp_path: Path) -> None:
    Store(str(old)).close()
    Store(str(tmp_path / "new.db")).close()
    assert version(old) == str(SCHEMA_VERSION)
    assert definitions(old) == definitions(tmp_path / "new.db")
    assert execute(old, "PRAGMA foreign_key_check") == []


def test_every_schema_has_its_step() -> None:
    assert list(migrations.STEPS) == list(range(1, SCHEMA_VERSION))


def test_nothing_is_lost(first: Path) -> None:
    before = dict(execute(first, "SELECT name, state FROM containers"))
    sandboxes = execute(first, "SELECT * FROM sandboxes")
    store = Store(str(first))
    rows = {row.name: row for row in store.containers()}
    assert set(rows) == {MADE, ENDED, LIVE}
    assert rows[ENDED].state.exit_code == 3
    live = json.loads(str(before[LIVE]))
    assert rows[LIVE].state.status == "running"
    assert store.running() == [
        (rows[LIVE].id, live["pid"], live["start_ticks"], live["boot_id"]),
    ]
    assert rows[LIVE].state.started_at == live["started_at"]
    assert [tuple(row) for row in store.sandboxes()] == sandboxes != []
    assert [row.container_id for row in store.endpoints()] == [rows[LIVE].id]
    assert [row.id for row in store.unsettled()] == sorted(row.id for row in rows.values())
    assert len(store.images()) == 1 and store.image_tags(store.images()[0].id) == ["bb:1"]
    assert len(store.events()) > 0
    store.close()


def test_what_an_older_state_did_not_say_is_its_default(first: Path) -> None:
    execute(first, "UPDATE containers SET state = '{}'")
    store = Store(str(first))
    assert {row.state.status for row in store.containers()} == {"created"}
    store.close()


def test_rows_that_refer_to_nothing_are_left_behind(first: Path) -> None:
    execute(first, "INSERT INTO sandboxes VALUES ('gone', 's', '/k')")
    execute(first, "INSERT INTO image_tags VALUES ('x', 'gone')")
    execute(first, "INSERT INTO ports VALUES ('tcp', '0.0.0.0', 80, 'gone', 'e', '10.0.0.2', 80)")
    store = Store(str(first))
    assert "gone" not in store.sandbox_owners() and store.ports() == []
    assert execute(first, "PRAGMA foreign_key_check") == []
    store.close()


# ---- newer ones, damaged ones ----


def test_a_newer_one_is_refused_and_not_touched(old: Path) -> None:
    newer = SCHEMA_VERSION + 1
    execute(old, "UPDATE meta SET value = ? WHERE key = 'version'", str(newer))
    before = old.read_bytes()
    with pytest.raises(StateDamaged, match=rf"schema {newer}, .*{SCHEMA_VERSION}.*upgrade pynetns"):
        Store(str(old))
    assert old.read_bytes() == before
    assert [path.name for path in old.parent.iterdir()] == ["pynetns.db"]


def test_a_damaged_one_is_refused_and_not_touched(first: Path) -> None:
    execute(first, "UPDATE containers SET state = '{' WHERE name = ?", LIVE)
    before = definitions(first)
    with pytest.raises(StateDamaged, match=f"{first}: cannot be read by this version"):
        Store(str(first))
    assert version(first) == "1" and definitions(first) == before


def test_one_that_cannot_be_written_is_unavailable(first: Path) -> None:
    """Not damaged: it becomes usable with what the message asks for."""
    db = sqlite3.connect(first, isolation_level=None, timeout=0)
    db.execute("BEGIN IMMEDIATE")  # another process keeps it
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pynetns.store.creation.BUSY_SECONDS", 0.0)
            with pytest.raises(Unavailable, match="is locked: another process"):
                Store(str(first))
    finally:
        db.close()
    assert version(first) == "1"


# ---- crashes, interrupts, company ----


def open_and_die(path: str, statements: int) -> None:
    """Killed in the middle of the migration, after so many statements."""
    left = statements

    class Killing(sqlite3.Connection):
        def execute(self, *args):  # type: ignore[no-untyped-def]
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*args)

    migrations.migrate(sqlite3.connect(path, isolation_level=None, factory=Killing))


def test_killed_at_any_statement(first: Path) -> None:
    """The older schema or the newer one, and the next to open it has all."""
    whole = first.read_bytes()
    seen = set()
    statements, killed = 0, True
    while killed:
        statements += 1
        for suffix in ("-wal", "-shm"):
            Path(f"{first}{suffix}").unlink(missing_ok=True)
        first.write_bytes(whole)
        child = get_context("fork").Process(target=open_and_die, args=(str(first), statements))
        child.start()
        child.join()
        killed = child.exitcode == -signal.SIGKILL
        assert killed or child.exitcode == 0
        seen.add(version(first))
        store = Store(str(first))
        assert {row.name for row in store.containers()} == {MADE, ENDED, LIVE}
        assert len(store.endpoints()) == 1
        store.close()
        assert version(first) == str(SCHEMA_VERSION)
    assert seen == {"1", str(SCHEMA_VERSION)} and statements > 20


def test_an_interrupt_at_any_line_leaves_nothing(first: Path) -> None:
    whole = first.read_bytes()
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        path = first.with_name(f"{at}.db")
        path.write_bytes(whole)
        before = descriptors()
        opened: list[Store] = []
        came_as_far = interrupted(
            (f"{PACKAGE}/store/",), at, lambda p=path, o=opened: o.append(Store(str(p)))
        )
        assert Opening.owner == 0
        for store in opened:
            store.close()
        assert descriptors() == before, f"line {at}"
        assert version(path) in ("1", str(SCHEMA_VERSION))
        store = Store(str(path))
        assert len(store.containers()) == 3, f"line {at}"
        store.close()
        path.unlink()
    assert at > 30


def open_together(path: str, start, results) -> None:  # type: ignore[no-untyped-def]
    start.wait()
    try:
        store = Store(path)
        results.put((store.engine_id, len(store.containers())))
        store.close()
    except Exception as error:
        results.put(repr(error))


def test_of_many_processes_one_does_it(first: Path) -> None:
    context = get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=open_together, args=(str(first), start, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert len(set(found)) == 1 and found[0][1] == 3, found


def test_who_comes_second_finds_it_done(first: Path) -> None:
    """It has read the older version, and waits for the lock while another process does the work."""
    step, entered, go = migrations.STEPS[1], threading.Event(), threading.Event()
    steps: list[int] = []

    def slow(db: sqlite3.Connection) -> None:
        steps.append(1)
        entered.set()
        go.wait(10)
        step(db)

    def one() -> None:
        db = sqlite3.connect(first, isolation_level=None)
        migrations.migrate(db)
        db.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(migrations.STEPS, 1, slow)
        threads = [threading.Thread(target=one)]
        threads[0].start()
        entered.wait(10)
        second = sqlite3.connect(first, isolation_level=None, check_same_thread=False)
        begun = threading.Event()
        second.set_trace_callback(lambda sql: begun.set() if sql.startswith("BEGIN") else None)
        threads.append(threading.Thread(target=migrations.migrate, args=(second,)))
        threads[1].start()
        begun.wait(10)
        go.set()
        for thread in threads:
            thread.join()
        second.close()
    assert steps == [1] and version(first) == str(SCHEMA_VERSION)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before
