"""Rows that are made of one another: neither goes without the other, whichever process is faster."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue

import pytest

from pynetns.errors import Conflict, NotFound, PynetnsError
from pynetns.model.state import State
from pynetns.model.summary import Summary
from pynetns.store import EndpointRow, NetworkGone, NetworkRow, PortRow, SandboxRow, Store

from .rows import add_container, add_sandbox

ID, OTHER = "ab" * 32, "ac" * 32
IMAGE = "sha256:12"
NETWORK = NetworkRow("n1", "bridge", "bridge", "10.0.0.0/24", "10.0.0.1", "br0", 1500, 0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "pynetns.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


@pytest.fixture
def other(path: str, store: Store) -> Iterator[Store]:
    """The same store, as another process has it open."""
    other = Store(path)
    yield other
    other.close()


def endpoint(container: str, address: int = 5) -> EndpointRow:
    return EndpointRow("e" + container, container, "n1", container, address, "m", "veth0", "s")


def add_image(store: Store) -> None:
    store.add_image(IMAGE, "app", "2024", ("l1",), {}, 1)


# ---- images and containers ----


def test_an_image_that_is_gone_makes_no_container(store: Store, other: Store) -> None:
    add_image(store)
    assert store.image_by_name("app") is not None  # and from here on the other one is faster
    other.remove_image(IMAGE)
    with pytest.raises(NotFound, match=f"No such image: {IMAGE}"):
        store.add_container(ID, "web", "", State(), IMAGE)
    assert store.containers() == []


def test_an_image_in_use_is_not_removed(store: Store, other: Store) -> None:
    add_image(store)
    assert other.image_users(IMAGE) == []
    store.add_container(ID, "web", "", State(), IMAGE)
    with pytest.raises(Conflict, match="is used by a container"):
        other.remove_image(IMAGE)
    assert other.image_tags(IMAGE) == ["app"] and other.image_users(IMAGE) == [ID]
    store.remove_container(ID)
    other.remove_image(IMAGE)
    assert store.images() == [] and store.image_by_name("app") is None


def test_a_summary_keeps_the_image_from_then_on(store: Store) -> None:
    """Of a container whose row was made by a version that did not know of images."""
    add_image(store)
    add_container(store, ID)
    add_container(store, OTHER)
    store.set_summary(ID, Summary("app", IMAGE))
    store.set_summary(OTHER, Summary("host", "sha256:host"))  # which is not on record
    assert store.image_users(IMAGE) == [ID]


def create(path: str, start, results) -> None:  # type: ignore[no-untyped-def]
    store = Store(path)
    start.wait()
    try:
        store.add_container(ID, "web", "", State(), IMAGE)
        results.put("created")
    except NotFound:
        results.put("no image")
    except BaseException as error:
        results.put(repr(error))
    store.close()


def remove(path: str, start, results) -> None:  # type: ignore[no-untyped-def]
    store = Store(path)
    start.wait()
    try:
        store.remove_image(IMAGE)
        results.put("removed")
    except Conflict:
        results.put("in use")
    except BaseException as error:
        results.put(repr(error))
    store.close()


def test_create_and_rmi_in_two_processes(store: Store, path: str) -> None:
    """One of them wins; never both."""
    context = get_context("fork")
    for _ in range(10):
        add_image(store)
        start, results = context.Barrier(2), context.Queue()
        racers = [context.Process(target=r, args=(path, start, results)) for r in (create, remove)]
        for racer in racers:
            racer.start()
        found = {results.get() for _ in racers}
        for racer in racers:
            racer.join()
        assert found in ({"created", "in use"}, {"no image", "removed"})
        store.remove_container(ID)
        store.remove_image(IMAGE)


# ---- networks, sandboxes, endpoints, ports ----


def test_no_endpoint_of_a_network_that_is_gone(store: Store, other: Store) -> None:
    store.add_network(NETWORK)
    add_sandbox(store, ID)
    other.remove_network("n1")
    with pytest.raises(NetworkGone):
        store.add_endpoint(endpoint(ID))
    other.add_network(NETWORK._replace(id="n2"))
    with pytest.raises(NetworkGone):
        store.add_endpoint(endpoint(ID))
    assert store.endpoints() == []


def test_no_endpoint_of_a_network_that_is_about_to_go(store: Store, other: Store) -> None:
    store.add_network(NETWORK)
    add_sandbox(store, ID)
    assert other.retire_network("n1")
    with pytest.raises(NetworkGone):
        store.add_endpoint(endpoint(ID), NETWORK.generation)
    (again,) = store.networks()
    assert again.generation == NETWORK.generation + 1
    store.add_endpoint(endpoint(ID), again.generation)  # it was not taken down after all


def test_a_network_in_use_is_not_retired(store: Store, other: Store) -> None:
    store.add_network(NETWORK)
    add_sandbox(store, ID)
    store.add_endpoint(endpoint(ID))
    assert not other.retire_network("n1")
    with pytest.raises(Conflict, match="active endpoints"):
        other.remove_network("n1")
    assert store.networks() == [NETWORK]
    store.remove_sandbox(ID)
    assert other.retire_network("n1") and other.retire_network("absent")


def test_a_failed_allocation_leaves_nothing(store: Store, other: Store) -> None:
    store.add_network(NETWORK)
    add_container(store, ID)
    other.retire_network("n1")

    def allocate() -> None:
        store.add_sandbox(SandboxRow(ID, "s", "/k"))
        store.set_cursor("n1", 5)
        store.add_endpoint(endpoint(ID))

    with pytest.raises(NetworkGone):
        store.atomically(allocate)
    assert store.sandboxes() == [] and store.networks()[0].cursor == 0


def test_nothing_without_what_it_is_made_of(store: Store) -> None:
    store.add_network(NETWORK)
    with pytest.raises(NotFound, match="No such container"):
        store.add_sandbox(SandboxRow(ID, "s", "/k"))
    add_container(store, ID)
    with pytest.raises(NotFound, match="no network sandbox"):
        store.add_endpoint(endpoint(ID))
    with pytest.raises(NotFound, match="no network sandbox"):
        store.add_ports([PortRow("tcp", "0.0.0.0", 80, ID, "e", "10.0.0.2", 80)])


def test_a_container_keeps_its_name_while_it_has_a_sandbox(store: Store) -> None:
    add_sandbox(store, ID)
    with pytest.raises(Conflict, match="still has a network sandbox"):
        store.remove_container(ID)
    store.remove_sandbox(ID)
    store.remove_container(ID)
    assert store.containers() == []


def test_endpoint_and_ports_go_with_their_sandbox(store: Store) -> None:
    store.add_network(NETWORK)
    for n, id in enumerate((ID, OTHER)):
        add_sandbox(store, id)
        store.add_endpoint(endpoint(id, 5 + n))
        store.add_ports([PortRow("tcp", "0.0.0.0", 80 + n, id, "e", "10.0.0.2", 80)])
    store.remove_sandbox(ID)
    assert [row.container_id for row in store.endpoints()] == [OTHER]
    assert [row.container_id for row in store.ports()] == [OTHER]


def test_every_connection_minds_them(store: Store) -> None:
    """That of a thread of its own, and that of a forked child."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            store.add_sandbox(SandboxRow(ID, "s", "/k"))
        except PynetnsError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [NotFound]
    child = get_context("fork").Process(target=lambda: work() or exit(len(errors) - 2))
    child.start()
    child.join()
    assert child.exitcode == 0


# ---- what is looked for ----


def test_running_and_unsettled(store: Store) -> None:
    for n, id in enumerate(("a", "b", "c", "d")):
        store.add_container(id, f"c{n}", "", State())
        store.set_summary(id, Summary())
    store.add_container("e", "being-made", "", State())
    store.set_state("a", State(status="running", pid=7, start_ticks=8, boot_id="boot"))
    store.set_state("b", State(status="running", pid=9, start_ticks=8, boot_id="boot"))
    store.set_state("c", State(status="removing"))
    assert store.running() == [("a", 7, 8, "boot"), ("b", 9, 8, "boot")]
    assert [row.id for row in store.containers(running=True)] == ["a", "b"]
    assert [row.id for row in store.unsettled()] == ["c", "e"]
    assert store.count_by_status() == {"created": 2, "running": 2, "removing": 1}
    store.set_state("a", State(status="exited", started_before=True))
    assert [row.id for row in store.running()] == ["b"]


READS: dict[str, Callable[[Store], object]] = {
    "running": Store.running,
    "containers(running)": partial(Store.containers, running=True),
    "unsettled": Store.unsettled,
    "container": partial(Store.container, id=ID),
    "container_by_name": partial(Store.container_by_name, name="web"),
    "ids_by_prefix": partial(Store.ids_by_prefix, prefix="ab"),
}


@pytest.mark.parametrize("read", READS)
def test_none_of_these_walks_along_all_containers(store: Store, path: str, read: str) -> None:
    """However many there are, what is looked for is found by an index: one statement each."""
    statements: SimpleQueue[str] = SimpleQueue()
    store.meta()  # the connection is open
    store._link().db.set_trace_callback(statements.put)
    READS[read](store)
    store._link().db.set_trace_callback(None)
    sql = statements.get()
    assert statements.empty()
    db = sqlite3.connect(path)
    plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))
    db.close()
    assert "USING" in plan and "INDEX" in plan, plan
    assert "SCAN containers" not in plan or "containers_unsettled" in plan, plan
