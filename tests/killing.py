"""Killing a process at a chosen line, or at some moment, of what it does with an engine.

A victim is a fork that opens an engine of its own. SIGKILL comes by a trace function that counts the
lines of what makes and removes things; SIGALRM, whose default is as sudden, by a timer of the kernel.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pynetns
from pynetns.client.containers import Container
from pynetns.errors import Conflict

from . import leaks
from .conftest import Place

PACKAGE = os.path.dirname(pynetns.__file__)
MAKING = tuple(
    f"{PACKAGE}/{name}"
    for name in ("engine/", "network/", "storage/", "runtime/", "store/", "undo.py")
)
Deed = Callable[[pynetns.Engine], object]


class LineCounter:
    """A trace function: the lines of MAKING; at the `at`-th one the process ends."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.lines = at, 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            return self if frame.f_code.co_filename.startswith(MAKING) else None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def in_a_fork(place: Place, deed: Deed) -> int:
    """What waitpid tells of a fork that does the deed with its own engine."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with pynetns.Engine(place.root, place.exec_root) as engine:
                deed(engine)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def killed(place: Place, deed: Deed) -> None:
    """Have a fork do what ends it by SIGKILL."""
    status = in_a_fork(place, deed)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def killed_at_line(place: Place, line: int, deed: Deed) -> bool:
    """Have a fork do it and be killed at the line; whether it came as far."""

    def traced(engine: pynetns.Engine) -> None:
        sys.settrace(LineCounter(line))
        try:
            deed(engine)
        finally:
            sys.settrace(None)

    status = in_a_fork(place, traced)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def killed_after(place: Place, seconds: float, deed: Deed) -> bool:
    """Have a fork do it and be ended by the kernel's timer; whether it was not done before."""

    def timed(engine: pynetns.Engine) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        deed(engine)
        signal.setitimer(signal.ITIMER_REAL, 0)

    status = in_a_fork(place, timed)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def count_lines(place: Place, deed: Deed) -> int:
    """How many lines of MAKING the deed takes."""
    reader, writer = os.pipe()

    def counted(engine: pynetns.Engine) -> None:
        counter = LineCounter()
        sys.settrace(counter)
        deed(engine)
        sys.settrace(None)
        os.write(writer, str(counter.lines).encode())

    try:
        assert in_a_fork(place, counted) == 0
        return int(os.read(reader, 32))
    finally:
        os.close(reader)
        os.close(writer)


def die(*args: object, **options: object) -> None:
    """What a victim has instead of the next step."""
    os.kill(os.getpid(), signal.SIGKILL)


# ---- what must be so afterwards ----


def assert_true_and_whole(engine: pynetns.Engine) -> None:
    """What is listed is what is on record, is whole, and nothing is held for anything else."""
    listed = engine.containers.list(all=True)
    rows = {row.id: row for row in engine.store.containers()}
    assert set(rows) == {container.id for container in listed}
    assert {row.name for row in rows.values()} == {container.name for container in listed}
    running = {id for id, row in rows.items() if row.state.running}
    assert set(os.listdir(f"{engine.exec_root}/locks")) <= set(rows)
    assert set(os.listdir(f"{engine.exec_root}/tasks")) == running
    assert {row.container_id for row in engine.store.sandboxes()} <= running
    for container in listed:
        assert container.attrs["Id"] == container.id
        if container.attrs["Path"] != "sleep":
            continue  # it may end, and go, at any moment
        container.logs()
        if container.id in running and accepts_execs(container):
            for exec_id in exec_records(engine, container):
                engine.shim.wait(exec_id)  # of the victim's, which was still at work
            container.exec_run(["true"])
            assert exec_records(engine, container) == []


def exec_records(engine: pynetns.Engine, container: Container) -> list[str]:
    entries = os.scandir(f"{engine.exec_root}/tasks/{container.id}")
    return [entry.name for entry in entries if entry.is_dir()]


def accepts_execs(container: Container) -> bool:
    """Whether it runs as it is shown to; False where the victim's signal is ending it by now."""
    try:
        assert container.exec_run(["true"])[0] == 0
    except Conflict:
        container.wait(timeout=60.0)
        return False
    return True


def assert_nothing_left(engine: pynetns.Engine, idle: set[str]) -> None:
    """Once every container is removed, all it ever had is; `idle` are the links of before."""
    from pynetns.engine.services import default_cgroup_parent
    from pynetns.kernel import LinuxKernel
    from pynetns.network.mark import Mark
    from pynetns.network.rules import Rules

    store = engine.store
    for rows in (store.containers(), store.sandboxes(), store.endpoints(), store.ports()):
        assert rows == []
    for directory in (f"{engine.root}/containers", f"{engine.root}/overlay2"):
        assert os.listdir(directory) == []
    for name in ("tasks", "locks", "netns", "shm"):
        path = f"{engine.exec_root}/{name}"
        assert not os.path.exists(path) or os.listdir(path) == []
    assert engine.shim.tasks() == {}
    assert Rules(LinuxKernel(), Mark(store.engine_id, "")).published() == []
    parent = default_cgroup_parent(engine.root).strip("/")
    groups = [
        *Path("/sys/fs/cgroup").glob(f"{parent}/*"),
        *Path("/sys/fs/cgroup").glob(f"*/{parent}/*"),
    ]
    assert [str(group) for group in groups if len(group.name) == 64] == []
    leaks.wait_for_links(idle)
    assert leaks.links() <= idle
