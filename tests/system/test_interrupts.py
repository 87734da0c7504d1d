"""An interrupt (an exception from a signal handler) at any line of the package, during whole verbs.

Afterwards nobody is locked out, nothing is left, and the container can be started and removed by the
same engine and by others. A sample of the lines in the suite; all of them, each at its first and at
its last execution within the verb, with PYNETNS_EVERY_LINE=1, or every n-th (docs/contributing.md).
"""

from __future__ import annotations

import gc
import os
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

import pynetns
from pynetns.engine.lock import try_container_lock
from pynetns.engine.services import default_cgroup_parent
from pynetns.errors import Conflict, NotFound

from .. import leaks
from ..interrupts import PACKAGE, Interrupt, descriptors, interrupted_at, kept, lines_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
EVERY = int(os.environ.get("PYNETNS_EVERY_LINE", "0"))
SAMPLE = 8  # lines of each verb
SLEEP = ["sleep", "1000"]
PORTS = {"80/tcp": None}


def create(engine: pynetns.Engine) -> None:
    engine.containers.create("host", SLEEP, name="victim", ports=PORTS)


def start(engine: pynetns.Engine) -> None:
    engine.containers.get("victim").start()


def fail_to_start(engine: pynetns.Engine) -> None:
    """Everything that was made is undone."""
    try:
        engine.containers.get("missing").start()
    except pynetns.errors.StartFailed as error:
        raise Conflict(str(error)) from error


def execute(engine: pynetns.Engine) -> None:
    assert engine.containers.get("victim").exec_run(["echo", "a"]) == (0, b"a\n")


def stop(engine: pynetns.Engine) -> None:
    engine.containers.get("victim").stop(timeout=0)


def remove(engine: pynetns.Engine) -> None:
    engine.containers.get("victim").remove(force=True)


def run(engine: pynetns.Engine) -> None:
    assert engine.containers.run("host", ["echo", "a"], name="victim", remove=True) == b"a\n"


def open_engine(engine: pynetns.Engine) -> None:
    pynetns.Engine(engine.root, engine.exec_root).close()


def nothing(engine: pynetns.Engine) -> None:
    pass


def prepare_missing(engine: pynetns.Engine) -> None:
    engine.containers.create("host", ["/missing"], name="missing", network_mode="none")


def prepare_running(engine: pynetns.Engine) -> None:
    create(engine)
    start(engine)


VERBS: dict[Callable[[pynetns.Engine], None], Callable[[pynetns.Engine], None]] = {
    create: nothing,
    start: create,
    fail_to_start: prepare_missing,
    execute: prepare_running,
    stop: prepare_running,
    remove: prepare_running,
    run: nothing,
    open_engine: nothing,
}


def remove_all(engine: pynetns.Engine) -> None:
    for name in ("victim", "missing"):
        try:
            engine.containers.get(name).remove(force=True)
        except NotFound:
            continue


def chosen(lines: list[tuple[str, int, int]], seed: str) -> list[tuple[str, int, int]]:
    if EVERY:
        return lines[random.randrange(EVERY) :: EVERY]
    return random.Random(seed).sample(lines, min(SAMPLE, len(lines)))


def things(engine: pynetns.Engine) -> set[str]:
    """Everything that a container may leave, but for what the engine keeps for all of them."""
    engine.shim.close()
    found = {f"descriptor {entry}" for entry in descriptors()}
    parent = default_cgroup_parent(engine.root).strip("/")
    found |= leaks.links() | leaks.mounts()
    found |= {entry for entry in leaks.cgroups() if f"/{parent}" in entry}
    for place in ("netns", "tasks", "locks", "shm"):
        directory = f"{engine.exec_root}/{place}"
        if os.path.isdir(directory):
            found |= {f"{place}/{name}" for name in os.listdir(directory)}
    for place in ("containers", "overlay2", "tmp"):
        found |= {f"{place}/{name}" for name in os.listdir(f"{engine.root}/{place}")}
    return found


def check_usable(engine: pynetns.Engine, verb: Callable[..., object]) -> None:
    """Others can write; the container is whole, and can be started and removed."""
    with sqlite3.connect(f"{engine.root}/pynetns.db", timeout=0) as other:
        other.execute("UPDATE meta SET value = value")
    other.close()
    for row in engine.store.containers():
        with try_container_lock(engine.exec_root, row.id) as held:
            assert held, "its lock is held"
    # what an ended or half removed container still has is given back by whoever opens the root
    pynetns.Engine(engine.root, engine.exec_root).close()
    try:
        victim = engine.containers.get("victim")
    except NotFound:
        assert verb not in (start, execute, stop), "the container is gone"
        create(engine)
        victim = engine.containers.get("victim")
    victim.start()
    if verb is not run:  # its program ends by itself
        victim.reload()
        assert victim.status == "running"
        assert victim.exec_run(["true"])[0] == 0
    remove_all(engine)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_interrupted_verb_leaves_nothing_and_nobody_out(place: Any, verb: Any) -> None:
    engine = place.engine()
    prepare_running(engine)  # bridge, rules, cgroup and shim are there from here on
    remove_all(engine)
    check_usable(engine, create)
    before = things(engine)

    def again() -> None:
        VERBS[verb](engine)

    again()
    lines = lines_of((PACKAGE,), lambda: verb(engine))
    remove_all(engine)
    failures = Failures()
    tries = chosen(lines, verb.__name__)
    for line in tries:
        again()
        try:
            interrupted_at(*line, lambda: verb(engine))
        except Interrupt:
            pass
        kept.clear()
        gc.collect()
        try:
            check_usable(engine, verb)
        except Exception as error:
            failures.append(f"{where(line)} : {error!r}")
            remove_all(engine)
        leaks.wait_for_links(before)
        left = things(engine) - before
        if left:
            failures.append(f"{where(line)} : left {sorted(left)}")
            before |= left
    print(f"{verb.__name__}: {len(lines)} lines, {len(tries)} tries, {len(failures)} failures")
    assert not failures, "\n".join(failures)
    assert engine.store.sandboxes() == [] and engine.shim.tasks() == {}


class Failures(list[str]):
    """Told at once: a run over every line takes long."""

    def append(self, failure: str) -> None:
        print(failure, flush=True)
        super().append(failure)


def where(line: tuple[str, int, int]) -> str:
    return f"{line[0].removeprefix(PACKAGE)}:{line[1]}#{line[2]}"
