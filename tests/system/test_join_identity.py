"""Joining a container whose recorded pid is another process's by now: refused, nothing entered."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pynetns import errors
from pynetns.kernel import LinuxKernel
from pynetns.kernel.process import start_ticks

pytestmark = [pytest.mark.root, pytest.mark.security]
SLEEP = ["sleep", "1000"]


@pytest.fixture
def impostor() -> Iterator[int]:
    """A process of the host's, which has the pid on record."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture(params=["bridge", "host"])
def joined(request, engine, impostor):
    """A container whose record names the impostor's pid, with the start time of its own process."""
    container = engine.containers.run(
        "host", SLEEP, detach=True, network_mode=request.param, ipc_mode="shareable"
    )
    state = engine.store.container(container.id).state
    assert state.start_ticks != start_ticks(impostor)
    engine.store.set_state(container.id, replace(state, pid=impostor))
    yield container
    engine.store.set_state(container.id, state)


@pytest.mark.parametrize("mode", ["network_mode", "ipc_mode", "pid_mode"])
def test_no_namespace_of_a_stranger_is_joined(engine, joined, mode):
    with pytest.raises(errors.Conflict, match="non running container"):
        engine.containers.run(
            "host", ["readlink", "/proc/self/ns/net"], **{mode: f"container:{joined.id}"}
        )


def test_the_process_that_goes_between_look_up_and_opening(engine, joined, monkeypatch):
    """The look-up found it alive; opening its namespaces compares once more."""
    monkeypatch.setattr(LinuxKernel, "process_lives", staticmethod(lambda identity: True))
    with pytest.raises(errors.Conflict, match="not running"):
        engine.containers.run("host", ["true"], pid_mode=f"container:{joined.id}")


@pytest.mark.parametrize("options", [{}, {"user": "nobody"}])
def test_no_exec_in_a_stranger(engine, joined, options):
    marker = f"/tmp/pynetns-stranger-{os.getpid()}"
    try:
        with pytest.raises(errors.Conflict, match="is not running"):
            joined.exec_run(["touch", marker], **options)
        assert not os.path.exists(marker)
    finally:
        if os.path.exists(marker):
            os.unlink(marker)
