"""One root, one exec root: whoever comes with another one is told, and touches nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pynetns
from pynetns.errors import Unavailable
from pynetns.kernel import LinuxKernel
from pynetns.kernel.pidfd import ended

from ..conftest import Place, end_shim

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def test_root_refuses_another_exec_root(place: Place) -> None:
    """`sudo` has dropped PYNETNS_EXEC_ROOT, say: the listing must not take the container for dead."""
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True)
    other = str(place.top / "other")
    with pytest.raises(Unavailable, match=f"root {place.root} uses exec root {place.exec_root}"):
        pynetns.Engine(place.root, other)
    assert not os.path.ismount(other)
    container.reload()
    assert container.status == "running"
    assert container.exec_run(["echo", "alive"])[1] == b"alive\n"


def test_exec_root_refuses_another_root(place: Place) -> None:
    place.engine()
    with pytest.raises(Unavailable, match=f"belongs to root {place.root}"):
        pynetns.Engine(str(place.top / "second"), place.exec_root)


def test_exec_root_may_change_once_it_is_gone(place: Place) -> None:
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True)
    container.kill()
    end_shim(engine)
    engine.close()
    LinuxKernel.umount(place.exec_root)
    first, place.exec_root = place.exec_root, str(place.top / "other")
    again = place.engine()
    assert again.containers.get(container.id).status == "exited"
    assert not os.path.exists(f"{first}/owner")


def test_exec_root_may_change_after_a_reboot(place: Place, monkeypatch) -> None:
    engine = place.engine()
    container = engine.containers.create("host", SLEEP)
    monkeypatch.setattr(LinuxKernel, "boot_id", staticmethod(lambda: "the next boot"))
    other = str(place.top / "other")
    try:
        with pynetns.Engine(place.root, other) as second:
            assert second.containers.get(container.id).status == "created"
    finally:
        LinuxKernel.umount(other)
        monkeypatch.undo()
        LinuxKernel.umount(place.exec_root)


def shims_of(exec_root: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0] == b"pynetns-shim" and exec_root.encode() in words:
                found.append(int(pid))
    return found


def test_private_mount_namespace(place: Place) -> None:
    """Started where /run is private; from outside, the exec root looks like an empty directory."""
    roots = ["--root", place.root, "--exec-root", place.exec_root]
    run = [sys.executable, "-m", "pynetns", *roots]
    inside = ["unshare", "-m", "--propagation", "private"]
    started = subprocess.run(
        [*inside, *run, "run", "-d", "--name", "svc", "--network", "none", "host", *SLEEP],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert started.returncode == 0, started.stderr
    pid = 0
    try:
        listed = subprocess.run([*run, "ps", "-a"], capture_output=True, text=True, timeout=60)
        assert listed.returncode == 1 and listed.stdout == ""
        assert "container svc" in listed.stderr and "mount namespace" in listed.stderr
        pid = int(listed.stderr.partition("(pid ")[2].partition(")")[0])
        os.kill(pid, 0)
        assert os.listdir(place.exec_root) == []
    finally:
        shims = [os.pidfd_open(shim) for shim in shims_of(place.exec_root)]
        if pid:
            os.kill(pid, signal.SIGKILL)
        for shim in shims:
            assert ended(shim, 10)  # a second after its last task
            os.close(shim)
    # nothing lives any more: the exec root that was seen only there is given up
    engine = place.engine()
    container = engine.containers.get("svc")
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 255)


@pytest.mark.parametrize("errno_name", ["EACCES", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT"])
def test_unreachable_is_not_dead(engine, monkeypatch, errno_name: str) -> None:
    """Whatever keeps from asking the shim says nothing about its containers."""
    import errno
    import socket

    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    engine.shim.close()

    def refuse(*args: object) -> None:
        raise OSError(getattr(errno, errno_name), os.strerror(getattr(errno, errno_name)))

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        container.reload()
        assert container.status == "running"
        with pytest.raises(Unavailable, match="cannot be reached"):
            engine.shim.tasks()
        # an end that cannot be looked into is not made up either
        row = engine.store.container(container.id)
        engine.store.set_state(container.id, replace(row.state, start_ticks=1))
        container.reload()
        assert container.status == "running"
        engine.store.set_state(container.id, row.state)
        with pytest.raises(Unavailable, match="cannot be reached"):
            container.exec_run(["true"])
    assert container.exec_run(["echo", "alive"])[1] == b"alive\n"
