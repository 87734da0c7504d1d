"""The store: names, states, transactions, damage, many threads and processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from pynetns.errors import Conflict, NotFound, StateDamaged, System, Unavailable
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.model.state import TRANSITIONS, State, rfc3339
from pynetns.store import (
    MAX_EVENTS,
    EndpointRow,
    NetworkRow,
    PortRow,
    SandboxRow,
    Store,
)

from .rows import add_sandbox

ID = "ab" * 32
OTHER = "ac" * 32


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path / "pynetns.db"))
    yield store
    store.close()


def add(store: Store, id: str = ID, name: str = "web") -> None:
    store.add_container(id, name, "2024-01-01T00:00:00Z", State())


# ---- containers ----


def test_container_round_trip(store: Store) -> None:
    add(store)
    state = State(status="running", pid=7, start_ticks=9, started_before=True, boot_id="b")
    endpoint = EndpointSettings("bridge", "n", "e", "172.17.0.1", "172.17.0.2", 16, "m", ("a",))
    settings = NetworkSettings(
        "br", "s", "/k", {"80/tcp": (("0.0.0.0", "8080"),), "90/udp": None}, {"bridge": endpoint}
    )
    store.set_run(ID, state, settings)
    row = store.container(ID)
    assert row is not None
    assert row == store.container_by_name("web")
    assert (row.state, row.network) == (state, settings)


def test_name_in_use_names_the_holder(store: Store) -> None:
    add(store)
    with pytest.raises(Conflict, match=f'name "/web" is already in use by container {ID}'):
        add(store, OTHER)
    assert [row.id for row in store.containers()] == [ID]


def test_ids_by_prefix(store: Store) -> None:
    for n in range(20):
        add(store, f"{n:02x}" + "0" * 62, f"c{n}")
    assert store.ids_by_prefix("0f") == ["0f" + "0" * 62]
    assert len(store.ids_by_prefix("0", limit=3)) == 3
    assert len(store.ids_by_prefix("", limit=99)) == 20
    assert store.ids_by_prefix("a") == []


def test_removing_twice_is_fine(store: Store) -> None:
    add(store)
    store.remove_container(ID)
    store.remove_container(ID)
    assert store.container(ID) is None


# ---- state ----


def test_transition_table_is_closed() -> None:
    assert set().union(*TRANSITIONS.values()) <= set(TRANSITIONS)


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_only_what_the_table_says_may_follow(before: str, after: str) -> None:
    state = State(status=before, pid=3)
    if after in TRANSITIONS[before]:
        assert state.become(after, pid=4) == State(status=after, pid=4)
    else:
        with pytest.raises(System, match=f"{before} cannot become {after}"):
            state.become(after)


def test_docker_state() -> None:
    shown = State(status="running", pid=3).docker_json()
    assert (shown["Status"], shown["Running"], shown["Pid"]) == ("running", True, 3)
    assert State().docker_json()["Running"] is False


def test_rfc3339() -> None:
    assert rfc3339(1_714_564_800_000_000_042) == "2024-05-01T12:00:00.000000042Z"


# ---- transactions ----


def test_transaction_undoes_everything(store: Store) -> None:
    def fail() -> None:
        add(store)
        store.add_event("container", "create", ID)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.atomically(fail)
    assert store.containers() == []
    assert store.events() == []


def test_inner_transaction_undoes_its_own_part(store: Store) -> None:
    def inner() -> None:
        store.add_event("container", "create", ID)
        add(store, OTHER)

    def outer() -> None:
        add(store)
        with pytest.raises(Conflict):
            store.atomically(inner)

    store.atomically(outer)
    assert [row.id for row in store.containers()] == [ID]
    assert store.events() == []


def test_durable_transaction_leaves_the_fast_mode_on(store: Store) -> None:
    store.atomically(lambda: add(store), durable=True)
    assert store._one("PRAGMA synchronous")[0] == 1  # NORMAL, as before
    assert store._one("PRAGMA journal_mode")[0] == "wal"


# ---- network rows ----

NETWORK = NetworkRow("n1", "bridge", "bridge", "10.0.0.0/24", "10.0.0.1", "br0", 1500, 0)


def endpoint(container: str, address: int) -> EndpointRow:
    return EndpointRow("e" + container, container, "n1", container, address, "m", "veth0", "s")


def test_one_sandbox_and_one_address_each(store: Store) -> None:
    store.add_network(NETWORK)
    with pytest.raises(Conflict):
        store.add_network(NETWORK)
    add_sandbox(store, "c1")
    with pytest.raises(Conflict):
        store.add_sandbox(SandboxRow("c1", "s2", "/k"))
    add_sandbox(store, "c2")
    store.add_endpoint(endpoint("c1", 5))
    with pytest.raises(Conflict, match="Address already in use"):
        store.add_endpoint(endpoint("c2", 5))
    with pytest.raises(Conflict, match="already exists"):
        store.add_endpoint(endpoint("c1", 6))
    assert store.network_in_use("n1")
    store.remove_sandbox("c1")
    store.remove_sandbox("c1")
    assert not store.network_in_use("n1")
    assert store.sandbox_owners() == {"c2"}


def test_port_in_use_names_the_holder(store: Store) -> None:
    add(store)
    add_sandbox(store, ID)
    add_sandbox(store, OTHER)
    row = PortRow("tcp", "0.0.0.0", 80, ID, "e", "10.0.0.2", 80)
    store.add_ports([row])
    with pytest.raises(Conflict, match=r"0\.0\.0\.0:80/tcp is already in use by container web"):
        store.add_ports([row._replace(container_id=OTHER)])
    assert store.port_holder("tcp", 80, "127.0.0.1") == "web"
    assert store.port_holder("udp", 80, "127.0.0.1") == ""
    assert store.highest_port("tcp", 70, 90) == 80
    assert store.highest_port("tcp", 81, 90) == 80


# ---- images and events ----


def test_images(store: Store) -> None:
    store.add_image("i1", "base:latest", "2024", ("l1", "l2"), {"Cmd": ["sh"]}, 12)
    store.add_image("i2", "", "2025", ("l1",), {}, 1)
    store.tag_image("i2", "base:latest")
    found = store.image_by_name("base:latest")
    assert found is not None and found.id == "i2"
    assert store.image_tags("i1") == []
    first = store.image_by_id("i1")
    assert first is not None and first.layers == ("l1", "l2") and first.config == {"Cmd": ["sh"]}
    assert [image.id for image in store.images()] == ["i1", "i2"]
    with pytest.raises(NotFound):
        store.tag_image("i9", "x")
    with pytest.raises(Conflict):
        store.add_image("i1", "x", "2024", (), {}, 0)
    store.remove_image("i2")
    assert store.image_by_name("base:latest") is None


def test_events_are_bounded_and_ordered(store: Store) -> None:
    def fill() -> int:
        for n in range(MAX_EVENTS + 200):
            last = store.add_event("container", "start", ID, {"n": str(n)}, time_ns=n)
        return last

    last = store.atomically(fill)
    kept = store.events()
    assert MAX_EVENTS <= len(kept) < MAX_EVENTS + 64
    assert kept[-1].attributes == {"n": str(MAX_EVENTS + 199)}
    assert [event.id for event in store.events(since=last - 2)] == [last - 1, last]


def test_events_of_one_object(store: Store) -> None:
    for n, (actor, action) in enumerate([(ID, "die"), (OTHER, "die"), (ID, "start"), (ID, "die")]):
        store.add_event("container", action, actor, {"n": str(n)})
    assert [event.attributes["n"] for event in store.events_of(ID, "die")] == ["3", "0"]
    assert store.events_of(ID, "destroy") == []


# ---- damage ----


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"x" * 5000])
def test_damaged_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pynetns.db"
    path.write_bytes(content)
    with pytest.raises(StateDamaged, match=str(path)):
        Store(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage", ["status = 'asleep'", "state = '{'", "network = '[]'", "summary = '7'"]
)
def test_damaged_row_is_named(tmp_path: Path, damage: str) -> None:
    path = str(tmp_path / "pynetns.db")
    store = Store(path)
    add(store)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE containers SET {damage}")
    db.close()
    with pytest.raises(StateDamaged, match=f"{path}: container {ID}"):
        store.container(ID)
    store.close()


@pytest.mark.parametrize("version, words", [("999", "newer"), ("x", "no schema version")])
def test_other_version_is_refused(tmp_path: Path, version: str, words: str) -> None:
    path = str(tmp_path / "pynetns.db")
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
    db.close()
    with pytest.raises(StateDamaged, match=words):
        Store(path)


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "pynetns.db")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    with pytest.raises(StateDamaged, match="not made by pynetns"):
        Store(path)


def test_orphaned_wal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pynetns.db-wal").write_bytes(b"x")
    with pytest.raises(StateDamaged, match="missing"):
        Store(str(tmp_path / "pynetns.db"))


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        Store(str(tmp_path / "no" / "pynetns.db"))


def test_creation_leaves_only_the_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "pynetns.db"))
    assert len(store.engine_id) == 32
    again = Store(str(tmp_path / "pynetns.db"))
    assert again.engine_id == store.engine_id
    store.close()
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["pynetns.db"]


def test_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(System, match="closed"):
        store.containers()


# ---- threads, processes, forks ----


def test_threads(store: Store) -> None:
    add(store)
    failures = []

    def one(n: int, k: int) -> None:
        store.add_container(f"{n:02x}{k:02x}" + "0" * 60, f"c{n}-{k}", "", State())
        store.add_event("container", "create", str(n))

    def work(n: int) -> None:
        try:
            for k in range(25):
                store.atomically(lambda k=k: one(n, k))
                store.containers()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.containers()) == 151
    assert len(store.events()) == 150


def test_writers_of_one_process_wait_for_each_other_however_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They queue on a lock of their own: SQLite's waiting, which ends after a time, is for others."""
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: real(*args, **{**options, "timeout": 0.0})
    )
    store = Store(str(tmp_path / "pynetns.db"))
    failures: list[BaseException] = []

    def count(n: int) -> None:
        store.set_meta("count", str(int(store.meta().get("count", 0)) + 1))
        os.sched_yield()  # with the transaction open
        store.add_event("container", "tick", str(n))

    def work(n: int) -> None:
        try:
            store.containers()  # connects
            barrier.wait()
            for _ in range(20):
                store.atomically(lambda: count(n))
                store.add_event("container", "alone", str(n))
        except BaseException as error:
            failures.append(error)

    barrier = threading.Barrier(6)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (store.meta()["count"], len(store.events())) == ("120", 240)
    store.close()


def _grow(path: str, name: str) -> None:
    store = Store(path)
    for n in range(20):
        store.add_container(
            f"{name}{n:02x}".encode().hex().ljust(64, "0"), f"{name}{n}", "", State()
        )
    store.close()


def test_processes_race_to_create(tmp_path: Path) -> None:
    path = str(tmp_path / "pynetns.db")
    context = get_context("spawn")
    processes = [context.Process(target=_grow, args=(path, f"p{n}-")) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = Store(path)
    assert len(store.containers()) == 60
    store.close()


def _in_child(work) -> int:  # type: ignore[no-untyped-def]
    """Fork, run work in the child; the exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process")
def test_forked_child_reopens(store: Store) -> None:
    add(store)
    assert _in_child(lambda: add(store, OTHER, "child")) == 0
    assert store.container(OTHER) is not None
    store.set_state(OTHER, replace(State(), error="parent"))


@pytest.mark.filterwarnings("ignore:This process")
def test_fork_while_other_threads_work(store: Store) -> None:
    stop = threading.Event()

    def work() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            store.atomically(lambda n=n: store.add_event("container", "tick", str(n)))
            store.events(limit=10)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(10):
            id = f"{n:02x}" + "0" * 62
            assert _in_child(lambda id=id, n=n: add(store, id, f"c{n}")) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(store.containers()) == 10


@pytest.mark.filterwarnings("ignore:This process")
def test_parent_closing_takes_nothing_from_the_child(tmp_path: Path) -> None:
    """The last one to close folds the log into the file; a child's open store must survive that."""
    path = str(tmp_path / "pynetns.db")
    store = Store(path)
    add(store)
    read, write = os.pipe()

    def work() -> None:
        add(store, OTHER, "child")
        os.close(write)
        os.read(read, 1)  # until the parent has closed its store
        add(store, "ff" * 32, "late")

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    os.close(read)
    store.close()
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    again = Store(path)
    assert len(again.containers()) == 3
    again.close()


def test_ended_thread_closes_its_connection(store: Store) -> None:
    thread = threading.Thread(target=store.containers)
    thread.start()
    thread.join()
    assert len(store._links) == 1
