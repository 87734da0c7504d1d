"""A create that was killed at any line leaves a whole container or nothing that stands in the way."""

from __future__ import annotations

import os
import signal
import sys

import pytest

import pynetns
import pynetns.errors

from ..conftest import Place

pytestmark = pytest.mark.root
PACKAGE = os.path.dirname(pynetns.__file__)
# Where a create makes things; what it only computes may be killed anywhere without a trace.
MAKING = tuple(
    f"{PACKAGE}/{name}"
    for name in (
        "engine/verbs/create.py",
        "engine/record.py",
        "engine/lock.py",
        "store/containers.py",
        "store/database.py",
        "storage/rootfs.py",
        "storage/layers.py",
        "network/host_files.py",
        "undo.py",
    )
)


def killed_at(place: Place, line: int) -> bool:
    """Create a container in a child that kills itself at the n-th line of what makes things; whether
    it came as far."""
    pid = os.fork()
    if pid == 0:
        left = line

        def trace(frame, event, arg):  # type: ignore[no-untyped-def]
            nonlocal left
            if not frame.f_code.co_filename.startswith(MAKING):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            with pynetns.Engine(place.root, place.exec_root) as engine:
                engine.images.get("host")
                sys.settrace(trace)
                engine.containers.create("host", ["true"], name="victim")
                sys.settrace(None)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def assert_usable(engine: pynetns.Engine) -> None:
    """The name can be had, or is that of a whole container."""
    for container in engine.containers.list(all=True):
        assert container.name == "victim" and container.attrs["Args"] == []
        container.remove()
    again = engine.containers.create("host", ["true"], name="victim")
    again.remove()
    assert engine.store.containers() == []
    assert os.listdir(f"{engine.root}/containers") == []
    assert os.listdir(f"{engine.root}/overlay2") == []


def test_killed_at_each_line(place: Place) -> None:
    open_before = place.engine()  # sees it only when somebody wants the name
    line, came_as_far = 0, True
    while came_as_far:
        line += 3 if line % 2 else 2  # every second or third line, in turn: a line takes 50 ms
        came_as_far = killed_at(place, line)
        if line % 4 < 2:
            assert_usable(open_before)
        else:
            with pynetns.Engine(place.root, place.exec_root) as engine:
                names = {row.name for row in engine.store.containers()}
                assert names == {c.name for c in engine.containers.list(all=True)}
                assert_usable(engine)
    assert line > 60


def test_ghost_is_removed_by_opening_and_left_alone_while_made(place: Place) -> None:
    from pynetns.engine.lock import container_lock
    from pynetns.model.state import State

    engine = place.engine()
    engine.store.add_container("a" * 64, "being-made", "2024-01-01T00:00:00Z", State())
    engine.store.add_container("b" * 64, "ghost", "2024-01-01T00:00:00Z", State())
    with container_lock(engine.exec_root, "a" * 64):
        second = place.engine()
        assert [row.name for row in second.store.containers()] == ["being-made"]
        with pytest.raises(pynetns.errors.Conflict, match="being-made"):
            second.containers.create("host", ["true"], name="being-made")
    second.containers.create("host", ["true"], name="being-made").remove()
    assert second.store.containers() == []
