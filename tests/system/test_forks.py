"""A fork in the middle of others' work, whose child lives on: nobody waits for it, and it works too.

Short in the suite; PYNETNS_SOAK_SECONDS makes the last ones go on for as long (docs/contributing.md).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pynetns
from pynetns import trace
from pynetns.errors import Conflict

from ..conftest import wait_for_ends
from ..interrupts import PACKAGE
from .forking import (
    PATIENCE,
    SLEEP,
    Children,
    ForkAtSteps,
    execute,
    run_and_remove,
    some_verbs,
    start_and_remove,
)

pytestmark = pytest.mark.root
SOAK = float(os.environ.get("PYNETNS_SOAK_SECONDS", "0"))


@pytest.fixture
def children(leak_check: None) -> Iterator[Children]:
    children = Children()
    try:
        yield children
    finally:
        children.end()


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def within(work: Callable[[], object]) -> None:
    """Run it in a thread; it has to end, and not by an exception."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


def open_engine(engine: pynetns.Engine) -> None:
    pynetns.Engine(engine.root, engine.exec_root).close()
    run_and_remove(engine)


@pytest.mark.parametrize("flow", [run_and_remove, start_and_remove, execute, open_engine])
def test_fork_at_each_step(engine, children, flow):
    """Output ends, exit codes are right, nobody waits for the child, whatever step it came in."""
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        with ForkAtSteps(children, at) as forks:
            within(lambda: flow(engine))
        came_as_far = forks.steps >= at
    assert at > 5
    assert len(children.pids) == at - 1


@pytest.mark.parametrize(
    "where", ["engine/verbs/start.py", "client/output.py", "network/sandbox.py"]
)
def test_fork_at_each_line(engine, children, where):
    """As above, in the files where descriptors change hands: at every line that is executed."""
    lines: set[tuple[str, int]] = set()

    def look(frame: Any, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(f"{PACKAGE}/{where}"):
            return None
        if event == "line" and (name, frame.f_lineno) not in lines:
            lines.add((name, frame.f_lineno))
            children.fork()
        return look

    def work() -> None:
        sys.settrace(look)
        try:
            run_and_remove(engine)
        finally:
            sys.settrace(None)

    within(work)
    assert len(children.pids) == len(lines) > 3


def test_the_child_uses_the_engine_too(engine, children):
    """A fork while other threads are in the middle of a start: the child has an engine that works."""
    pids = []
    at, came_as_far = 0, True
    while came_as_far:
        at += 3
        before = len(pids)
        with ForkAtSteps(children, at) as forks:
            children_fork = children.fork
            children.fork = lambda: pids.append(  # type: ignore[method-assign]
                children.work(lambda: (run_and_remove(engine), execute(engine)))
            )
            try:
                within(lambda: start_and_remove(engine))
            finally:
                children.fork = children_fork  # type: ignore[method-assign]
        came_as_far = forks.steps >= at
        assert [code_of(pid) for pid in pids[before:]] == [0] * (len(pids) - before)
    assert len(pids) > 2


def die_in_a_start(place: Any, at: int, told: int) -> None:
    """Start a container; at a step another thread forks, tells the child's pid, and all is over."""
    engine = pynetns.Engine(place.root, place.exec_root)
    container = engine.containers.create("host", SLEEP, name=f"victim{at}", ports={"80/tcp": 8123})
    steps = 0
    enter = trace.step.__enter__

    def fork_and_die() -> None:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        os.write(told, f"{pid}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def entered(span: trace.step) -> trace.step:
        nonlocal steps
        steps += 1
        if steps == at:
            thread = threading.Thread(target=fork_and_die)
            thread.start()
            thread.join()
        return enter(span)

    trace.step.__enter__ = entered
    container.start()


def test_parent_killed_in_the_middle(place, children):
    """What it held is free though its child lives: lock, port, address, name; the start is undone."""
    engine = place.engine()
    at, killed = 0, True
    while killed:
        at += 1
        reader, writer = os.pipe()
        pid = children.work(lambda at=at, w=writer: die_in_a_start(place, at, w))
        os.close(writer)
        killed = code_of(pid) == -signal.SIGKILL
        with open(reader, encoding="ascii") as told:
            orphans = [int(line) for line in told.readline().split()]
        try:

            def use(name: str = f"victim{at}") -> None:
                with place.engine() as engine:
                    victim = engine.containers.get(name)
                    victim.start()  # the port, the lock and the id are free
                    assert victim.exec_run(["true"])[0] == 0
                    victim.remove(force=True)

            within(use)
        finally:
            pidfds = [os.pidfd_open(orphan) for orphan in orphans]
            for pidfd in pidfds:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            wait_for_ends(pidfds)
    assert at > 8
    assert engine.store.sandboxes() == [] and engine.shim.tasks() == {}


# ---- many at once ----


def until(seconds: float, least: int) -> Iterator[int]:
    """0, 1, … for as long as asked for, at least `least` times."""
    end, done = time.monotonic() + seconds, 0
    while done < least or time.monotonic() < end:
        yield done
        done += 1


def test_threads_and_forks(engine, children):
    """16 threads; meanwhile forks whose children live on, and some that work with the engine."""
    failures: list[BaseException] = []
    done: list[int] = []
    stop = threading.Event()

    def work(number: int) -> None:
        rng = random.Random(number)
        try:
            while not stop.is_set():
                some_verbs(engine, rng)
                done.append(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(16)]
    for thread in threads:
        thread.start()
    workers: list[int] = []
    try:
        for number in until(SOAK, 6):
            if number % 50 < 3:
                children.fork()
            workers.append(children.work(lambda: run_and_remove(engine)))
            if len(workers) > 3:
                assert code_of(workers.pop(0)) == 0
            if failures:
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    codes = [code_of(pid) for pid in workers]
    assert failures == []
    assert not any(thread.is_alive() for thread in threads), "one hangs"
    assert set(codes) == {0}
    assert engine.shim.tasks() == {} and engine.store.sandboxes() == []
    print(f"threads and forks: {len(done)} verbs, {number + 1} forks")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(place, method):
    """Pools of every kind, beside a thread of their process that is in the middle of verbs."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.pools", method),
            *(place.root, place.exec_root, str(SOAK / 3)),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3 + SOAK,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_pre_forked_server(engine, children):
    """An engine opened once and used in every one of the children that are forked afterwards."""
    run_and_remove(engine)  # connections and statements are there
    for _ in until(SOAK / 3, 1):
        pids = [children.work(lambda n=n: some_verbs(engine, random.Random(n))) for n in range(6)]
        run_and_remove(engine)
        assert [code_of(pid) for pid in pids] == [0] * len(pids)


def test_fork_while_another_thread_opens_an_engine(place, children):
    place.engine()
    stop = threading.Event()
    failures: list[BaseException] = []

    def opening() -> None:
        try:
            while not stop.is_set():
                pynetns.Engine(place.root, place.exec_root).close()
        except BaseException as error:
            failures.append(error)

    def child() -> None:
        with pynetns.Engine(place.root, place.exec_root) as engine:
            assert engine.containers.list(all=True) == []

    thread = threading.Thread(target=opening)
    thread.start()
    try:
        for _ in until(SOAK / 3, 30):
            assert code_of(children.work(child)) == 0
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert failures == [] and not thread.is_alive()


# ---- the thread that forks is itself in the middle ----


def test_a_child_undoes_nothing_of_its_parents(engine, monkeypatch):
    """A signal handler may fork in the middle of a start, and its child end by an exception."""
    from pynetns.engine.verbs import start as start_module

    real, pids = start_module.record_started, []

    def forking(*args: Any) -> None:
        pid = os.fork()
        if pid == 0:
            raise Conflict("in the child")
        pids.append(pid)
        assert code_of(pid) == 3
        real(*args)

    monkeypatch.setattr(start_module, "record_started", forking)
    container = engine.containers.create("host", SLEEP)
    parent = os.getpid()
    try:
        container.start()
    except Conflict:
        if os.getpid() != parent:
            os._exit(3)
        raise
    assert len(pids) == 1
    assert container.status == "running"
    assert container.exec_run(["true"])[0] == 0
    assert len(engine.store.sandboxes()) == 1
