"""Two engines on one root, one in the middle of something: the other one is told the truth.

Nothing races by chance here: the first engine is stopped at the step that matters, by a wrapper around
it, and the second one acts there.
"""

from __future__ import annotations

import io
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pynetns.client.containers import Container
from pynetns.engine import removal
from pynetns.engine.verbs import create
from pynetns.engine.verbs.inspect import list_json
from pynetns.errors import Conflict, NotFound

from ..conftest import Place

pytestmark = pytest.mark.root


def empty_image(engine: Any, name: str) -> None:
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    archive.seek(0)
    engine.images.import_rootfs(archive, name)


def at(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    act: Callable[[], object],
    *,
    after: bool,
) -> None:
    """Act once, before or after the step `name` of the first engine."""
    step = getattr(module, name)
    left = [act]

    def wrapper(*args: Any, **options: Any) -> Any:
        if left and not after:
            left.pop()()
        result = step(*args, **options)
        if left:
            left.pop()()
        return result

    monkeypatch.setattr(module, name, wrapper)


hooked: list[bool] = []
_opened: list[list[str]] = []  # by whoever listens now; an audit hook cannot be removed


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _opened:
        _opened[-1].append(str(args[0]))


@contextmanager
def opened() -> Iterator[list[str]]:
    """The files that this process opens meanwhile."""
    if not hooked:
        hooked.append(True)
        sys.addaudithook(_hook)
    _opened.append([])
    try:
        yield _opened[-1]
    finally:
        _opened.pop()


READERS: dict[str, Callable[[Container], object]] = {
    "inspect": lambda container: container.attrs,
    "logs": lambda container: container.logs(),
}
VERBS: dict[str, Callable[[Container], object]] = {
    "stop": lambda container: container.stop(timeout=0),
    "kill": lambda container: container.kill(),
    "wait": lambda container: container.wait(timeout=10),
    "exec": lambda container: container.exec_run(["true"]),
    "start": lambda container: container.start(),
    "remove": lambda container: container.remove(),
}
NOT_RUNNING = {"stop", "wait"}  # that it does not run may be all they need to know


def outcome(verb: Callable[[Container], object], container: Container) -> object:
    try:
        verb(container)
        return "done"
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("reader", READERS)
def test_reading_in_the_middle_of_a_removal(
    place: Place, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """Its files are gone, its name is not: it is no container any more, and nothing is damaged. Who
    reads does not wait for the end of it."""
    first, second = place.engine(), place.engine()
    container = first.containers.run("host", ["true"], detach=True, name="web")
    container.wait()
    seen = second.containers.get("web")
    said: list[object] = []

    def act() -> None:
        said.append(outcome(READERS[reader], seen))

    at(monkeypatch, removal, "remove_files", act, after=True)
    container.remove()
    assert said == [NotFound]


@pytest.mark.parametrize("verb", VERBS)
def test_acting_in_the_middle_of_a_removal(
    place: Place, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Who acts may wait for the end of it, and is told that it is gone, or does not run."""
    first, second = place.engine(), place.engine()
    container = first.containers.run("host", ["true"], detach=True, name="web")
    container.wait()
    seen = second.containers.get("web")
    said: list[object] = []
    other = threading.Thread(target=lambda: said.append(outcome(VERBS[verb], seen)))
    at(monkeypatch, removal, "remove_files", other.start, after=True)
    container.remove()
    other.join()
    assert said[0] in {NotFound, Conflict, *({"done"} if verb in NOT_RUNNING else set())}
    assert first.store.containers() == []


def test_lists_in_the_middle_of_a_removal(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = place.engine(), place.engine()
    container = first.containers.create("host", ["true"], name="web")
    first.containers.create("host", ["true"], name="other")
    seen: list[tuple[str, str]] = []

    def act() -> None:
        rows = [list_json(c.row) for c in second.containers.list(all=True)]
        seen.extend((row["Names"][0], row["Status"]) for row in rows)

    at(monkeypatch, removal, "remove_files", act, after=True)
    container.remove()
    assert seen == [("/other", "Created"), ("/web", "Removal In Progress")]


def test_lists_look_at_no_files_and_ask_once(place: Place) -> None:
    """However many containers there are: no file of theirs is opened, and no statement is added."""
    engine = place.engine()
    other = place.engine()
    asked: dict[int, int] = {}
    for n in range(6):
        engine.containers.create("host", ["echo", str(n)], name=f"c{n}", labels={"n": str(n)})
        with opened() as files:
            statements: list[str] = []
            other.store._link().db.set_trace_callback(statements.append)
            found = other.containers.list(all=True, filters={"label": "n"})
            shown = {list_json(container.row)["Command"] for container in found}
            other.store._link().db.set_trace_callback(None)
        assert shown == {f"echo {k}" for k in range(n + 1)}
        assert [file for file in files if f"{other.root}/containers" in file] == []
        asked[n] = len(statements)
    assert len(set(asked.values())) == 1, asked


def test_prune_beside_another_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another one removes first, or starts, is passed over; the rest is removed."""
    first, second = place.engine(), place.engine()
    for name in ("c1", "c2", "c3"):
        first.containers.create("host", ["sleep", "60"], name=name)
    ids = {c.name: c.id for c in first.containers.list(all=True)}

    def act() -> None:
        second.containers.get("c2").remove()
        second.containers.get("c1").start()

    # newest first: c3 is being pruned when the others change
    at(monkeypatch, removal, "remove_files", act, after=True)
    assert first.containers.prune() == {"ContainersDeleted": [ids["c3"]]}
    assert [c.name for c in second.containers.list()] == ["c1"]


def test_two_prunes(place: Place) -> None:
    engines = [place.engine(), place.engine()]
    ids = {engines[0].containers.create("host", ["true"]).id for _ in range(12)}
    deleted: list[list[str]] = []
    threads = [
        threading.Thread(
            target=lambda e=engine: deleted.append(e.containers.prune()["ContainersDeleted"])
        )
        for engine in engines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deleted) == 2 and set(deleted[0]) | set(deleted[1]) == ids
    assert not set(deleted[0]) & set(deleted[1])


# ---- images ----


def test_an_image_removed_under_a_create(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = place.engine(), place.engine()
    empty_image(first, "app")
    at(monkeypatch, create, "make_record", lambda: second.images.remove("app"), after=True)
    with pytest.raises(NotFound, match="No such image"):
        first.containers.create("app", ["true"], name="web")
    assert first.store.containers() == []
    empty_image(first, "app")
    first.containers.create("app", ["true"], name="web").remove()


def test_a_container_created_under_a_removal_of_its_image(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place.engine(), place.engine()
    empty_image(first, "app")
    store = first.image_store._store

    class Hook:
        def remove_image(self, image_id: str) -> None:
            second.containers.create("app", ["true"], name="web")
            store.remove_image(image_id)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    monkeypatch.setattr(first.image_store, "_store", Hook())
    with pytest.raises(Conflict, match="image app: is used by container"):
        first.images.remove("app")
    assert [image.tags for image in second.images.list()] == [["host:latest"], ["app:latest"]]
    second.containers.get("web").remove()
    second.images.remove("app")


# ---- networks ----


def test_the_network_removed_between_two_starts_of_an_engine(place: Place) -> None:
    """`gc --all` of another process, which can have another subnet: this engine knew the old one."""
    first = place.engine()
    assert b"172.30." not in first.containers.run("host", ["ip", "-4", "addr"], remove=True)
    with place.engine() as second:
        assert second.network.remove_all()
    with place.engine(bip="172.30.0.1/16") as third:
        assert b"172.30." in third.containers.run("host", ["ip", "-4", "addr"], remove=True)
    container = first.containers.run("host", ["sleep", "60"], detach=True)
    shown = container.attrs["NetworkSettings"]
    assert shown["IPAddress"].startswith("172.30.")
    (network,) = first.store.networks()
    assert shown["Networks"]["bridge"]["NetworkID"] == network.id
    code, said = container.exec_run(["busybox", "ping", "-c", "1", "-W", "5", shown["Gateway"]])
    assert code == 0, said
