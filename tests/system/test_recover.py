"""An engine that has been open all the time, and what a process that was killed has left: every verb
makes that true first.

Each state is made by a fork that is killed at that very step; then one verb comes from an engine that
was open before, with a Container that nobody has looked at since.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest

import pynetns
from pynetns.client.containers import Container
from pynetns.errors import Conflict, NotFound

from ..conftest import Place
from ..killing import die, killed

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]
NAME = "victim"


# ---- what a killed process leaves ----


def ghost(engine: pynetns.Engine) -> None:
    """A name, and no files."""
    from pynetns.engine.verbs import create

    create.create_files_of = die
    engine.containers.create("host", SLEEP, name=NAME)


def half_start(engine: pynetns.Engine, name: str = NAME) -> None:
    """Its program runs, and nobody was ever told so."""
    from pynetns.engine.verbs import start

    start.record_started = die
    engine.containers.create("host", SLEEP, name=name, ports={"80/tcp": None}).start()


def half_prepared(engine: pynetns.Engine) -> None:
    """Its namespace and address are there, its process is not."""
    from pynetns.engine.verbs import start

    start.create_task = die
    engine.containers.create("host", SLEEP, name=NAME, ipc_mode="shareable").start()


def ended(engine: pynetns.Engine) -> None:
    """It has ended by itself, and nobody has noticed."""
    container = engine.containers.run("host", ["sh", "-c", "exit 7"], detach=True, name=NAME)
    engine.shim.wait(container.id)
    die()


def half_ended(engine: pynetns.Engine) -> None:
    """Its end is on record, what it had is not given back."""
    from pynetns.engine import ending

    ending.release_resources = die
    engine.containers.run("host", ["sh", "-c", "exit 7"], detach=True, name=NAME).wait()


def half_removed(engine: pynetns.Engine) -> None:
    """Its removal has begun."""
    from pynetns.engine import removal

    removal.remove_files = die
    engine.containers.create("host", SLEEP, name=NAME).remove()


def half_forgotten(engine: pynetns.Engine) -> None:
    """Its files are removed, its name is not."""
    from pynetns.engine import removal

    removal.strike_off = die
    engine.containers.create("host", SLEEP, name=NAME).remove()


def unwanted(engine: pynetns.Engine) -> None:
    """Its end is on record; it was to be removed then."""
    from pynetns.engine import ending

    ending.release_resources = die
    options = {"detach": True, "remove": True, "name": NAME}
    engine.containers.run("host", ["sh", "-c", "exit 7"], **options).wait()


GONE = (ghost, half_removed, half_forgotten, unwanted)
NOT_STARTED = (half_start, half_prepared)
ENDED = (ended, half_ended)


# ---- verbs, and what they are to say of a container that never ran, and of one that has ended ----


def create(container: Container) -> str:
    return container._engine.containers.create("host", ["true"], name=NAME).name


def start(container: Container) -> str:
    container.start()
    return container.status


def stop(container: Container) -> str:
    container.stop(timeout=0)
    return container.status


def listed(container: Container) -> list[str]:
    return [c.status for c in container._engine.containers.list(all=True)]


def pruned(container: Container) -> int:
    return len(container._engine.containers.prune()["ContainersDeleted"])


def collected(container: Container) -> int:
    container._engine.gc()
    return len(container._engine.store.containers())


def inspected(container: Container) -> str:
    container.reload()
    return container.attrs["State"]["Status"]


# verb: (never ran, has ended with 7, gone)
VERBS: dict[Callable[[Container], object], tuple[object, object, object]] = {
    create: (Conflict, Conflict, NAME),
    start: ("running", "running", NotFound),
    stop: ("created", "exited", NotFound),
    lambda c: c.kill(): (Conflict, Conflict, NotFound),
    lambda c: c.wait()["StatusCode"]: (0, 7, NotFound),
    lambda c: c.exec_run(["true"]): (Conflict, Conflict, NotFound),
    lambda c: c.remove(): (None, None, None),
    inspected: ("created", "exited", NotFound),
    lambda c: c.logs(): (b"", b"", NotFound),
    listed: (["created"], ["exited"], []),
    pruned: (1, 1, 0),
    collected: (1, 1, 0),
}
NAMES = "create start stop kill wait exec rm inspect logs ps prune gc".split()


@pytest.fixture
def open_engine(place: Place) -> pynetns.Engine:
    engine = place.engine()
    engine.images.get("host")
    engine.containers.run("host", ["true"], remove=True)
    return engine


@pytest.mark.parametrize("state", [*NOT_STARTED, *ENDED, *GONE], ids=lambda state: state.__name__)
def test_every_verb_of_an_open_engine(place: Place, open_engine: pynetns.Engine, state) -> None:
    column = 0 if state in NOT_STARTED else 1 if state in ENDED else 2
    wrong = []
    for name, (verb, expected) in zip(NAMES, VERBS.items(), strict=True):
        killed(place, state)
        row = open_engine.store.container_by_name(NAME)
        container = Container(open_engine, row)
        try:
            result: object = verb(container)
        except (Conflict, NotFound) as error:
            result = type(error)
        right = (expected[column],)
        if name == "rm" and state in (ghost,):
            right = (NotFound,)
        if result not in right:
            wrong.append(f"{name} : {result!r} instead of {right}")
        wrong += [f"{name} : {left}" for left in left_over(open_engine)]
        for other in open_engine.containers.list(all=True):
            other.remove(force=True)
    assert wrong == []


def left_over(engine: pynetns.Engine) -> list[str]:
    """What is there in the exec root beside what runs, and in the store."""
    rows = {row.id: row.state.running for row in engine.store.containers()}
    running = {id for id, runs in rows.items() if runs}
    left = [f"task {key}" for key in engine.shim.tasks() if key not in running]
    for name, allowed in (("tasks", running), ("locks", set(rows)), ("shm", running)):
        path = f"{engine.exec_root}/{name}"
        entries = set(os.listdir(path)) if os.path.exists(path) else set()
        left += [f"{name} {entry}" for entry in entries - allowed]
    left += [f"sandbox {s.id}" for s in engine.store.sandboxes() if s.container_id not in running]
    if len(os.listdir(f"{engine.exec_root}/netns")) > len(running):
        left.append("a namespace")
    return left


def test_readers_do_not_wait_for_a_lock(place: Place, open_engine: pynetns.Engine) -> None:
    """What cannot be made true without waiting is shown as it is known."""
    from pynetns.engine.lock import container_lock

    for state, status in ((half_start, "created"), (ended, "running"), (half_removed, "removing")):
        killed(place, state)
        row = open_engine.store.container_by_name(NAME)
        with container_lock(open_engine.exec_root, row.id):
            container = open_engine.containers.get(NAME)
            assert container.status == status
            assert [c.status for c in open_engine.containers.list(all=True)] == [status]
            assert container.attrs["Name"] == f"/{NAME}"
        for other in open_engine.containers.list(all=True):
            other.remove(force=True)
    assert open_engine.store.containers() == []


def test_opening_is_not_kept_from_by_anything(place: Place, open_engine, monkeypatch) -> None:
    from pynetns.engine import recover

    class Odd(Exception):
        """Of a kind that nobody expects."""

    def resist(engine, container_id):
        if engine.store.container(container_id).name == "stubborn":
            raise Odd
        return release(engine, container_id)

    release = recover.release_half_start
    monkeypatch.setattr(recover, "release_half_start", resist)
    for name in ("stubborn", "other"):
        killed(place, partial(half_start, name=name))
    second = place.engine()
    left = os.listdir(f"{second.exec_root}/tasks")
    assert left == [second.store.container_by_name("stubborn").id]
    monkeypatch.undo()
    assert [c.status for c in second.containers.list(all=True)] == ["created", "created"]


def test_locks_of_nobody_are_removed_by_whoever_looks(place: Place, open_engine) -> None:
    from pynetns.engine import removal

    def half_unlocked(engine: pynetns.Engine) -> None:
        removal.remove_lock = die
        engine.containers.create("host", SLEEP, name=NAME).remove()

    for look in (lambda: open_engine.containers.list(), place.engine, open_engine.gc):
        killed(place, half_unlocked)
        assert len(os.listdir(f"{open_engine.exec_root}/locks")) == 1
        look()
        assert os.listdir(f"{open_engine.exec_root}/locks") == []


def test_a_crowd_is_looked_at_by_one_question(place: Place, open_engine, monkeypatch) -> None:
    """With many living containers nobody's /proc is read one by one, unless the shim does not say."""
    from pynetns.engine import recover
    from pynetns.errors import Unavailable

    monkeypatch.setattr(recover, "_FEW", 1)
    for _ in range(3):
        open_engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    gone = open_engine.containers.run("host", ["true"], detach=True, network_mode="none")
    open_engine.shim.wait(gone.id)
    looked_at: list[str] = []
    real = recover.process_has_ended

    def look(engine, container_id, process):
        looked_at.append(container_id)
        return real(engine, container_id, process)

    monkeypatch.setattr(recover, "process_has_ended", look)
    second = place.engine()
    assert looked_at == [gone.id]
    assert second.store.container(gone.id).state.status == "exited"

    def unavailable(patience):
        raise Unavailable("it does not answer")

    looked_at.clear()
    monkeypatch.setattr(second.shim, "tasks", unavailable)
    assert len(second.containers.list()) == 3
    assert len(looked_at) == 3
