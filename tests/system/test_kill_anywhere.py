"""Whoever works with a container may be killed at any line: what an engine shows afterwards is true.

Each try: a container in some state, a fork that does one thing to it and is killed, then a judge, which
is an engine that was open all the time, or a new one, in turn. A seeded sample of lines, and of moments
of a kernel timer, goes with the suite; PYNETNS_KILL_EACH_LINE=1 tries every line, =7 every seventh.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest

import pynetns
from pynetns.errors import PynetnsError

from .. import leaks
from ..conftest import Place
from ..killing import (
    Deed,
    assert_nothing_left,
    assert_true_and_whole,
    count_lines,
    killed_after,
    killed_at_line,
)

pytestmark = pytest.mark.root
EACH = int(os.environ.get("PYNETNS_KILL_EACH_LINE", "0"))  # every line, every 2nd …; 0: a sample
LINES, MOMENTS = 5, 2  # tries of each deed in the sample
LONGEST = 0.03  # seconds to the latest moment; what is done by then is done
SLEEP = ["sleep", "1000"]
NAME = "victim"
OPTIONS = {"name": NAME, "ports": {"80/tcp": None}, "ipc_mode": "shareable"}


class Case(NamedTuple):
    """What there is before, and what the victim does."""

    prepare: Deed
    deed: Deed


def nothing(engine: pynetns.Engine) -> None:
    engine.images.get("host")


def created(engine: pynetns.Engine) -> None:
    engine.containers.create("host", SLEEP, **OPTIONS)


def running(engine: pynetns.Engine) -> None:
    engine.containers.run("host", SLEEP, detach=True, **OPTIONS)


def exited(engine: pynetns.Engine) -> None:
    engine.containers.run("host", SLEEP, detach=True, **OPTIONS).kill()


def ended(engine: pynetns.Engine) -> None:
    """It has ended, and nobody has noticed."""
    container = engine.containers.run("host", ["true"], detach=True, **OPTIONS)
    engine.shim.wait(container.id)


def ended_and_unwanted(engine: pynetns.Engine) -> None:
    container = engine.containers.run("host", ["true"], detach=True, remove=True, **OPTIONS)
    engine.shim.wait(container.id)


def with_owner(engine: pynetns.Engine) -> None:
    """One whose network the victim's container joins."""
    owner = engine.containers.run("host", SLEEP, detach=True, ipc_mode="shareable", name="owner")
    modes = {f"{kind}_mode": f"container:{owner.id}" for kind in ("network", "ipc")}
    engine.containers.create("host", SLEEP, name=NAME, **modes)


def on_victim(verb: Callable[[pynetns.client.containers.Container], object]) -> Deed:
    return lambda engine: verb(engine.containers.get(NAME))


CASES = {
    "create": Case(nothing, created),
    "run": Case(nothing, running),
    "run --rm": Case(
        nothing,
        lambda engine: engine.containers.run(
            "host", ["true"], detach=True, remove=True, **OPTIONS
        ).wait(),
    ),
    "start": Case(created, on_victim(lambda c: c.start())),
    "start again": Case(exited, on_victim(lambda c: c.start())),
    "start joined": Case(with_owner, on_victim(lambda c: c.start())),
    "stop": Case(running, on_victim(lambda c: c.stop(timeout=0))),
    "kill": Case(running, on_victim(lambda c: c.kill())),
    "restart": Case(running, on_victim(lambda c: c.restart(timeout=0))),
    "exec": Case(running, on_victim(lambda c: c.exec_run(["true"]))),
    "exec -d": Case(running, on_victim(lambda c: c.exec_run(["true"], detach=True))),
    "rm": Case(exited, on_victim(lambda c: c.remove())),
    "rm -f": Case(running, on_victim(lambda c: c.remove(force=True))),
    "rm of an owner": Case(with_owner, lambda e: e.containers.get("owner").remove(force=True)),
    "prune": Case(exited, lambda engine: engine.containers.prune()),
    "wait": Case(ended, on_victim(lambda c: c.wait())),
    "ps": Case(ended, lambda engine: engine.containers.list(all=True)),
    "ps of an unwanted one": Case(
        ended_and_unwanted, lambda engine: engine.containers.list(all=True)
    ),
    "gc": Case(ended, lambda engine: engine.gc()),
}


def judge(engine: pynetns.Engine, idle: set[str]) -> None:
    """What is there is true and works, can be removed, and then the name is free and nothing left."""
    assert_true_and_whole(engine)
    for container in engine.containers.list(all=True):
        if (
            container.status != "running"
            and container.attrs["HostConfig"]["NetworkMode"] == "default"
        ):
            container.start()
        container.remove(force=True)
    engine.containers.create("host", ["true"], name=NAME).remove()
    assert_nothing_left(engine, idle)


def attempt(place: Place, case: Case, kill: Callable[[Deed], bool], judge_: int) -> bool:
    """One try; whether the victim was killed before it was done."""
    engine = place.engines[0]
    case.prepare(engine)
    came = kill(case.deed)
    if judge_ % 2:
        judge(engine, place.idle)
    else:
        with pynetns.Engine(place.root, place.exec_root) as fresh:
            judge(fresh, place.idle)
    return came


@pytest.fixture
def prepared(place: Place) -> Place:
    """A place with an engine that stays open, a shim and a bridge."""
    engine = place.engine()
    engine.containers.run("host", ["true"], remove=True)
    idle = {link for link in leaks.links() if not link.startswith("link veth")}
    leaks.wait_for_links(idle)
    place.idle = idle  # type: ignore[attr-defined]
    return place


@pytest.mark.parametrize("name", CASES)
def test_killed_at_a_line(prepared: Place, name: str) -> None:
    case = CASES[name]
    case.prepare(prepared.engines[0])
    count = count_lines(prepared, case.deed)
    judge(prepared.engines[0], prepared.idle)  # type: ignore[attr-defined]
    assert count > 20
    lines = range(1, count + 1, EACH) if EACH else random.Random(name).sample(range(count), LINES)
    failures = []
    for line in lines:
        try:
            attempt(prepared, case, partial(killed_at_line, prepared, line), line)
        except (AssertionError, PynetnsError, OSError) as error:
            failures.append(f"line {line} of {count} : {error!r}")
            clean(prepared)
    if EACH:
        print(f"\n{name}: {len(lines)} of {count} lines, {len(failures)} failures", flush=True)
    assert failures == []


@pytest.mark.parametrize("name", CASES)
def test_killed_at_a_moment(prepared: Place, name: str) -> None:
    moments = random.Random(name)
    for number in range(200 // EACH if EACH else MOMENTS):
        after = moments.uniform(1e-6, LONGEST)
        attempt(prepared, CASES[name], partial(killed_after, prepared, after), number)


def clean(place: Place) -> None:
    """For the next try, whatever this one left."""
    for container in place.engines[0].containers.list(all=True):
        container.remove(force=True)
    place.engines[0].gc()
