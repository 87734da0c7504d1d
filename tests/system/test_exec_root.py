"""One root, one exec root: whoever comes with another one is told, and touches nothing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

import pynetns
from pynetns.errors import Unavailable
from pynetns.kernel import LinuxKernel

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


@pytest.fixture
def px(place: Place):
    roots = ["--root", place.root, "--exec-root", place.exec_root]

    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "pynetns", *roots, *words]

    return command


RUN = ("run", "-d", "--name", "svc", "--network", "none", "host", *SLEEP)


def test_private_mount_namespace(place: Place, px) -> None:
    """Started where /run is private; from outside, the exec root looks like an empty directory."""
    script = f"{shlex.join(px(*RUN))} && read line"
    inside = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    holder = subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and len(holder.stdout.readline()) == 65
        listed = subprocess.run(px("ps", "-a"), capture_output=True, text=True, timeout=60)
        assert listed.returncode == 1 and listed.stdout == ""
        assert "container svc" in listed.stderr and f"nsenter -m -t {holder.pid}" in listed.stderr
        os.kill(int(listed.stderr.partition("(pid ")[2].partition(")")[0]), 0)
        assert os.listdir(place.exec_root) == []
    finally:
        holder.communicate()
    # nobody sees the first exec root any more: the container gets another one
    listed = subprocess.run(px("ps", "-a"), capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0 and "Up " in listed.stdout, listed.stderr
    container = place.engine().containers.get("svc")
    assert container.exec_run(["echo", "alive"])[1] == b"alive\n"
    container.kill()
    assert container.wait()["StatusCode"] == 137
    assert os.listdir(f"{place.exec_root}/tasks") == []


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
