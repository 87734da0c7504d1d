"""Somebody deletes what is in the exec root, or the exec root, while containers live.

What a process has open it keeps: nothing is killed, nothing is taken for dead, and whoever opens the
engine next, or has it open, reaches the containers again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

from pynetns.errors import Unavailable
from pynetns.kernel.process import process_lives

from ..conftest import Place, shim_processes

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]
ENDS_WITH_7 = ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"]


def empty(exec_root: str) -> None:
    """As a cleaner of temporary files does, also across what is mounted there."""
    for name in os.listdir(f"{exec_root}/netns"):
        with contextlib.suppress(OSError):
            subprocess.run(["umount", f"{exec_root}/netns/{name}"], check=True)
    for name in os.listdir(exec_root):
        path = f"{exec_root}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    assert os.listdir(exec_root) == []


def drop(exec_root: str, name: str) -> None:
    path = f"{exec_root}/{name}"
    for pin in os.listdir(path) if name == "netns" else ():
        subprocess.run(["umount", f"{path}/{pin}"], check=True)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


LOSSES = {
    "everything": empty,
    "unmounted": lambda exec_root: subprocess.run(["umount", "-l", exec_root], check=True),
    **{
        name: lambda exec_root, name=name: drop(exec_root, name)
        for name in ("shim.sock", "locks", "tasks", "netns", "owner", "image", "shim.lock")
    },
    "emptied, then unmounted": lambda exec_root: (
        empty(exec_root),
        subprocess.run(["umount", "-l", exec_root], check=True),
    ),
}  # fmt: skip


def pid_of(container) -> int:
    return container.attrs["State"]["Pid"]


def check_whole(engine) -> None:
    """Nothing is missing in an exec root, and nothing of a container is left there."""
    assert os.path.ismount(engine.exec_root)
    for name in ("owner", "netns", "tasks", "locks", "image"):
        assert os.path.exists(f"{engine.exec_root}/{name}")
    assert os.listdir(f"{engine.exec_root}/tasks") == []
    assert os.listdir(f"{engine.exec_root}/netns") == []


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("reopen", [True, False], ids=["another engine", "an open engine"])
def test_living_containers_are_reached_again(place: Place, kind: str, reopen: bool) -> None:
    engine = place.engine()
    first = engine.containers.run("host", ENDS_WITH_7, detach=True)
    second = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    assert next(first.logs(stream=True)) == b"ready\n"
    shim = shim_processes(engine)[0]
    pids = [pid_of(first), pid_of(second)]
    LOSSES[kind](place.exec_root)
    if not reopen and "unmounted" in kind:
        with pytest.raises(Unavailable, match="is not mounted any more: open the engine anew"):
            first.remove(force=True)
        place.engine()  # as some command does
    if reopen:
        engine = place.engine()
    first, second = (engine.containers.get(one.id) for one in (first, second))
    assert [first.status, second.status] == ["running", "running"]
    assert [pid_of(first), pid_of(second)] == pids
    assert first.exec_run(["echo", "alive"]) == (0, b"alive\n")
    assert shim_processes(engine)[0] == shim  # and no second one was started
    assert engine.containers.run("host", ["echo", "new"], remove=True) == b"new\n"
    assert first.stop(timeout=10) is None
    assert (first.wait()["StatusCode"], first.status) == (7, "exited")
    second.kill()
    second.reload()
    assert (second.status, second.attrs["State"]["ExitCode"]) == ("exited", 137)
    for container in (first, second):
        container.remove()
    check_whole(engine if reopen else place.engine())


@pytest.mark.parametrize("kind", ["everything", "tasks", "unmounted", "shim.sock"])
def test_ends_that_nobody_saw(place: Place, kind: str) -> None:
    """The container ends after the loss, and before anybody looks: the shim has its exit code."""
    engine = place.engine()
    container = engine.containers.run("host", ENDS_WITH_7, detach=True, network_mode="none")
    assert next(container.logs(stream=True)) == b"ready\n"
    pidfd = os.pidfd_open(pid_of(container))
    engine.shim.close()
    LOSSES[kind](place.exec_root)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        assert wait_for(pidfd)
    finally:
        os.close(pidfd)
    again = place.engine().containers.get(container.id)
    # unmounted: the record lies in a file system that went with the last who had it open
    assert (again.status, again.wait()["StatusCode"]) == (
        "exited", 255 if kind == "unmounted" else 7,
    )  # fmt: skip
    again.remove()


def wait_for(pidfd: int) -> bool:
    from pynetns.kernel.pidfd import ended

    return ended(pidfd, 10)


def test_a_shim_that_was_killed_meanwhile(place: Place) -> None:
    """Its successor has the same directory, and loses nothing of what the first one was told."""
    engine = place.engine()
    container = engine.containers.run("host", ENDS_WITH_7, detach=True, network_mode="none")
    assert next(container.logs(stream=True)) == b"ready\n"
    pidfd = os.pidfd_open(shim_processes(engine)[0])
    empty(place.exec_root)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert wait_for(pidfd)
    os.close(pidfd)
    again = place.engine().containers.get(container.id)
    assert again.exec_run(["echo", "alive"])[1] == b"alive\n"
    again.stop(timeout=10)
    assert again.wait()["StatusCode"] == 7
    again.remove()


def test_a_shim_that_does_not_answer_is_no_dead_one(place: Place) -> None:
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    shim = os.pidfd_open(shim_processes(engine)[0])
    engine.shim.close()
    os.unlink(f"{place.exec_root}/shim.sock")
    try:
        signal.pidfd_send_signal(shim, signal.SIGSTOP)
        engine.shim.patience = 0.2
        with pytest.raises(Unavailable, match="its socket is gone and it makes no other"):
            engine.shim.tasks()
        container.reload()
        assert container.status == "running"
        signal.pidfd_send_signal(shim, signal.SIGCONT)
        assert list(engine.shim.tasks()) == [container.id]
    finally:
        signal.pidfd_send_signal(shim, signal.SIGCONT)
        os.close(shim)


def test_a_network_that_is_shared_is_known_to_be(place: Place) -> None:
    engine = place.engine()
    owner = engine.containers.run("host", SLEEP, detach=True)
    guest = engine.containers.run("host", SLEEP, detach=True, network_mode=f"container:{owner.id}")
    empty(place.exec_root)
    engine = place.engine()
    assert os.path.exists(f"{place.exec_root}/tasks/{owner.id}/shared")
    assert len(os.listdir(f"{place.exec_root}/netns")) == 1
    third = engine.containers.run("host", SLEEP, detach=True, network_mode=f"container:{owner.id}")
    for container in (third, guest, owner):
        engine.containers.get(container.id).remove(force=True)
    check_whole(engine)


def test_a_mount_that_only_another_process_sees(place: Place) -> None:
    """Unmounted here, but not in the mount namespace of somebody who lives: who is named."""
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    engine.close()
    program = "import sys; print('there', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "there\n"
        subprocess.run(["umount", "-l", place.exec_root], check=True)
        with pytest.raises(Unavailable, match=rf"nsenter -m -t {holder.pid}\)") as caught:
            place.engine()
        assert container.name in str(caught.value)
        assert os.listdir(place.exec_root) == []
    finally:
        holder.communicate()
    assert place.engine().containers.get(container.id).status == "running"


# ---- the root is lost ----


def test_gc_ends_what_a_deleted_root_has_left(place: Place) -> None:
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    row = engine.store.container(container.id)
    lost_id = engine.store.engine_id
    engine.close()
    shutil.rmtree(place.root)
    again = place.engine()
    assert again.store.engine_id != lost_id
    assert again.containers.list(all=True) == []
    assert process_lives(row.state)  # to look does not kill
    told = again.gc()
    assert [line for line in told if container.id[:12] in line] == [
        f"container {container.id[:12]}: which ran without its root"
    ]
    assert not process_lives(row.state)
    assert again.gc() == []
    assert os.listdir(f"{place.exec_root}/tasks") == []


def test_gc_all_ends_what_a_deleted_root_and_exec_root_have_left(place: Place) -> None:
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    row = engine.store.container(container.id)
    engine.close()
    shutil.rmtree(place.root)
    subprocess.run(["umount", "-l", place.exec_root], check=True)
    again = place.engine()
    assert process_lives(row.state)
    told = again.gc(all=True)
    assert f"container {container.id[:12]}: 1 processes without a root" in told
    assert not process_lives(row.state)
    assert [line for line in told if line.startswith("cgroup ")]
    assert again.cgroups.populated() == {}
