"""csrc/shim_home.c: the socket is deleted, a record's directory is deleted, the exec root is another one."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import frame
from pynetns.runtime.task import read_exit

from ..conftest import shim_processes, wait_for_ends
from .shim_bench import Bench

pytestmark = pytest.mark.root


@pytest.fixture
def lost(bench):
    """A bench whose client finds a shim that has lost its socket; the shim runs."""
    bench.task("a", "exec sleep 1000")
    pids = shim_processes(bench)
    bench.shim._shim_pids = lambda: [pid for pid in pids if pid > 1]
    return bench, pids


def test_a_deleted_socket_is_made_again(lost):
    bench, pids = lost
    for _ in range(20):
        bench.shim.close()
        os.unlink(bench.root / "shim.sock")
        assert list(bench.shim.tasks()) == ["a"]
    assert shim_processes(bench) == pids
    assert not (bench.root / "shim.wake").exists()
    assert not (bench.root / "shim.sock.new").exists()
    bench.shim.signal("a", signal.SIGKILL)
    assert bench.wait("a") == 137


def test_a_signal_of_anybody_changes_nothing(lost):
    bench, pids = lost
    for _ in range(50):
        os.kill(pids[0], signal.SIGHUP)
        assert list(bench.shim.tasks()) == ["a"]
    assert shim_processes(bench) == pids


def test_descriptors_do_not_pile_up(lost):
    bench, pids = lost
    bench.shim.close()
    counts = set()
    for _ in range(10):
        bench.shim.close()
        os.unlink(bench.root / "shim.sock")
        assert bench.shim.alive()
        counts.add(len(os.listdir(f"/proc/{pids[0]}/fd")))
    assert len(counts) <= 2  # with and without a connection that is about to be closed


def test_a_shim_killed_while_it_makes_another_socket(bench):
    """Its successor is asked once more; nothing of the task is lost."""
    bench.task("a", "exec sleep 1000")
    bench.replaced = True
    rng = random.Random(1)
    for _ in range(30):
        shim, keeper = shim_processes(bench)
        bench.shim._shim_pids = lambda keeper=keeper: children_of(keeper)
        pidfd = os.pidfd_open(shim)
        bench.shim.close()
        os.unlink(bench.root / "shim.sock")
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
        for _ in range(rng.randrange(2000)):
            pass
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        wait_for_ends([pidfd])
        while not bench.shim.alive():  # the successor is there in a moment
            pass
        assert list(bench.shim.tasks()) == ["a"]
    bench.shim.signal("a", signal.SIGKILL)
    assert bench.wait("a") == 137


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_an_end_that_could_not_be_recorded(lost):
    """Kept until there is a place for it, which may come while the task runs or afterwards."""
    bench, _ = lost
    record = bench.root / "c"
    bench.task("c", "exec sleep 1000")
    shutil.rmtree(record)
    pidfd = os.pidfd_open(bench.shim.tasks()["c"])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait_for_ends([pidfd])
    record.mkdir()
    fd = os.open(record, os.O_RDONLY | os.O_DIRECTORY)
    while "c" in bench.shim.tasks():  # its shim has seen the end
        pass
    try:
        assert bench.shim.record("c", fd)
        ended = read_exit(str(record))
        assert ended is not None and ended.code == 137
        assert not bench.shim.record("nobody", fd)
    finally:
        os.close(fd)


def test_a_request_without_what_it_needs(lost):
    bench, _ = lost
    for kind in (frame.HOME, frame.RECORD):
        with pytest.raises(KernelError) as caught:
            bench.shim.request(kind, key="a")
        assert caught.value.errno == errno.EINVAL
    assert list(bench.shim.tasks()) == ["a"]


def test_another_file_system_in_its_place(tmp_path):
    mount = ["mount", "-t", "tmpfs", "exec", tmp_path]
    subprocess.run(mount, check=True)
    bench = Bench(tmp_path)
    try:
        (tmp_path / "owner").touch()
        bench.task("a", "exec sleep 1000")
        pids = shim_processes(bench)
        bench.shim._shim_pids = lambda: pids
        bench.shim.close()
        for lose_socket in (False, True):
            if lose_socket:
                os.unlink(tmp_path / "shim.sock")
            subprocess.run(["umount", "-l", tmp_path], check=True)
            subprocess.run(mount, check=True)
            (tmp_path / "owner").touch()
            assert list(bench.shim.tasks()) == ["a"]
            assert (tmp_path / "shim.sock").exists()
            assert shim_processes(bench) == pids
            bench.shim.close()
        bench.shim.signal("a", signal.SIGKILL)
        bench.shim.wait("a")
    finally:
        bench.close()
        subprocess.run(["umount", "-l", tmp_path], check=True)
