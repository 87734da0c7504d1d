"""One container, or one client, holds up no other: floods, full disks, missing descriptors, silence."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import KernelError, StartFailed, Unavailable
from pynetns.kernel import frame
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWNS
from pynetns.runtime.shim.client import Exit, ShimClient
from pynetns.runtime.task import Attach, Task, read_exit

from .. import leaks
from ..conftest import shim_processes
from .shim_bench import ENV, Bench, run

pytestmark = pytest.mark.root


# ---- floods ----


@pytest.mark.security
def test_a_survivor_that_writes_for_ever_does_not_hang_the_shim(bench):
    """No pid namespace of its own: `yes` outlives the task and keeps its pipe full."""
    bench.task("a", "yes & exit 3", namespaces=0)
    assert bench.wait("a") == 3
    bench.task("b", "exit 4")
    assert bench.wait("b") == 4


@pytest.mark.security
def test_requests_are_answered_beside_floods(bench):
    """What lies there when the shim looks is answered, however much there is of the floods too."""
    for i in range(4):
        bench.task(f"flood{i}", "exec yes ''")
    bench.task("calm", "exec sleep 1000")
    shim = shim_processes(bench)[0]
    connections = [bench.shim.connect() for _ in range(50)]
    os.kill(shim, signal.SIGSTOP)
    for fd in connections:
        frame.send(fd, frame.HELLO, arg=frame.PROTOCOL)
        frame.send(fd, frame.STARTED, key="calm")
    os.kill(shim, signal.SIGCONT)
    answers = []
    for fd in connections:
        assert frame.receive(fd).kind == frame.HELLO
        answers.append(frame.receive(fd).kind)
        os.close(fd)
    assert answers == [frame.SPAWNED] * 50


def test_pages_of_the_list(bench):
    """A frame holds 512 tasks; the rest is asked for."""
    read, write = os.pipe()
    go = Plan(0)
    go.setns(bench.mounts, CLONE_NEWNS)
    go.stdio()
    go.wait(read)
    go.exec(["true"], ENV)
    encoded, keys = go.encode(), [f"t{i}" for i in range(520)]
    pending = [bench.shim.begin_spawn(key, encoded, go.fds, flags=0) for key in keys]
    first = bench.shim.request(frame.LIST)
    assert first.value > 0 and len(frame.parse_tasks(first.payload)) == 512
    assert sorted(bench.shim.tasks()) == sorted(keys)
    os.close(read)
    os.close(write)
    for key, fd in zip(keys, pending, strict=True):
        with pytest.raises(KernelError):
            bench.shim.finish_spawn(fd, key)


def test_more_descriptors_than_one_datagram_takes(bench):
    """300 published ports; they are closed before waiters hear of the end."""
    sockets = [socket.socket() for _ in range(300)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    address = sockets[-1].getsockname()
    bench.task("a", "exec sleep 1000", hold_fds=[each.fileno() for each in sockets])
    for each in sockets:
        each.close()
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(address)
    bench.shim.signal("a", signal.SIGKILL)
    assert bench.wait("a") == 137
    with socket.socket() as other:
        other.bind(address)


# ---- descriptors used up, silence ----


@contextlib.contextmanager
def descriptor_limit(pid: int, limit: int) -> Iterator[None]:
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def cpu_ticks(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


@pytest.mark.security
def test_no_descriptors_left_is_a_clear_error_and_no_busy_loop(bench):
    bench.task("a", "exec sleep 1000")
    shim = shim_processes(bench)[0]
    with descriptor_limit(shim, 64), contextlib.ExitStack() as scope:
        with pytest.raises(Unavailable, match=f"shim of {bench.root}.*descriptors"):
            for _ in range(200):
                scope.callback(os.close, bench.shim.connect(start=False))
        before = cpu_ticks(shim)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            waiting.connect(str(bench.root / "shim.sock"))
            select.select([waiting], [], [], 1)
        assert cpu_ticks(shim) - before < 20
    assert "a" in bench.shim.tasks()


def test_a_shim_that_does_not_answer_is_named(bench):
    bench.task("a", "exec sleep 1000")
    shim = shim_processes(bench)[0]
    patient = ShimClient(str(bench.root), patience=0.2)
    patient.tasks()  # a connection from before
    os.kill(shim, signal.SIGSTOP)
    try:
        for call in (
            patient.tasks,
            patient.alive,
            lambda: patient.signal("a", 0),
            lambda: patient.wait("a"),
            lambda: patient.wait("a", 1),
        ):
            patient.close()
            with pytest.raises(Unavailable, match=str(bench.root)):
                call()
    finally:
        os.kill(shim, signal.SIGCONT)
    assert patient.tasks() == bench.shim.tasks()
    patient.close()


def test_an_unreachable_shim_is_not_an_absent_one(bench):
    bench.task("a", "exec sleep 1000")
    stranger = ShimClient(str(bench.root / "elsewhere"))
    with pytest.raises(Unavailable, match="cannot be reached"):  # not {}: nothing is known
        stranger.tasks()
    (bench.root / "elsewhere").mkdir()
    assert stranger.tasks() == {}


# ---- terminals ----


def test_a_terminal_outlives_the_moment_in_which_nobody_has_it_open(bench):
    out_reader, out_writer = os.pipe()
    script = (
        "tty=$(tty); trap '' HUP; echo one; exec 3>&1 </dev/null >/dev/null 2>&1 3>&-;"
        " sleep 0.2; echo two > $tty; exit 5"
    )
    bench.task("a", script, tty=True, attach=Attach(stdout_fd=out_writer))
    os.close(out_writer)
    with open(out_reader, "rb") as out:
        assert out.read().split() == [b"one", b"two"]
    assert bench.wait("a") == 5


def test_resize_after_close_stdin(bench):
    bench.task("a", "exec sleep 1000", tty=True, flags=frame.SPAWN_STDIN)
    assert bench.shim.close_stdin("a")
    assert bench.shim.resize("a", 33, 111)
    bench.task("b", "exec sleep 1000")
    with pytest.raises(KernelError) as caught:
        bench.shim.resize("b", 33, 111)
    assert caught.value.name == "ENOTTY"


# ---- what a child may do before it executes ----


def test_a_child_killed_before_its_program_is_a_failed_start(bench):
    (bench.root / "w").mkdir()
    reader, writer = os.pipe()
    plan = Plan(0)
    plan.setns(bench.mounts, CLONE_NEWNS)
    plan.stdio()
    plan.wait(reader)
    plan.exec(["true"], ENV)
    task = Task(bench.shim, "w", str(bench.root / "w"), go_fd=writer)
    task.create(plan)
    os.kill(bench.shim.tasks()["w"], signal.SIGKILL)
    with pytest.raises(StartFailed, match="killed before its program was executed"):
        task.start()
    assert bench.shim.tasks() == {} and os.listdir(bench.root / "w") == []
    os.close(reader)


# ---- disks ----


@contextlib.contextmanager
def mounted(kind: str, source: str, target: Path, options: str) -> Iterator[None]:
    target.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, source, str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def fill(directory: Path) -> None:
    with contextlib.suppress(OSError), open(directory / "ballast", "wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def test_a_full_exec_root_loses_no_exit_code(tmp_path):
    """The record's page is there before the program runs; nothing starts without it."""
    with mounted("tmpfs", "tmpfs", tmp_path / "root", "size=1m"):
        bench = Bench(tmp_path / "root")
        try:
            os.mkfifo(tmp_path / "go")
            bench.task("a", f"read x < {tmp_path}/go; exit 7")
            (bench.root / "b").mkdir()
            fill(bench.root)
            (tmp_path / "go").write_text("\n")
            assert bench.wait("a") == 7
            assert read_exit(str(bench.root / "a")).code == 7
            with pytest.raises(StartFailed, match="exit record"):
                run(Task(bench.shim, "b", str(bench.root / "b")), bench.plan("exit 1"))
            assert bench.shim.tasks() == {}
            (bench.root / "ballast").unlink()
        finally:
            bench.close()


def test_a_code_that_cannot_be_recorded_is_kept_until_it_is_asked_for(bench):
    no_log = frame.log_options(frame.LOG_NONE, "")  # else the end is told when that is written
    bench.task("a", "exec sleep 1000", log_options=no_log)
    (bench.root / "a" / "exit.tmp").unlink()
    (bench.root / "a").rmdir()
    pidfd = os.pidfd_open(bench.shim.tasks()["a"])
    bench.shim.signal("a", signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLHUP)
    poll.poll(5000)
    os.close(pidfd)
    ended = bench.shim.wait("a")
    assert isinstance(ended, Exit) and ended.code == 137
    assert bench.shim.wait("a") is None


FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


def test_a_frozen_log_disk_stalls_only_what_logs_there(bench, tmp_path):
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted("ext4", str(image), tmp_path / "disk", "loop"):
        disk = os.open(tmp_path / "disk", os.O_RDONLY)
        os.mkfifo(tmp_path / "go")
        bench.task("a", f"echo 1; read x < {tmp_path}/go; seq 2 9", logs=tmp_path / "disk")
        fcntl.ioctl(disk, FIFREEZE, 0)
        try:
            (tmp_path / "go").write_text("\n")
            reader, writer = os.pipe()
            bench.task(
                "b", "echo out; exit 4", logs=tmp_path / "disk", attach=Attach(stdout_fd=writer)
            )
            os.close(writer)
            with open(reader, "rb") as out:
                assert out.read() == b"out\n"
            assert bench.wait("b") == 4  # two seconds later: its log is still waiting
            assert bench.wait("a") == 0
        finally:
            fcntl.ioctl(disk, FITHAW, 0)
            os.close(disk)
        bench.task("a2", "true")  # the writer is at work again
        bench.wait("a2")
        end_of_shim(bench)  # it ends when everything is written
        lines = (tmp_path / "disk" / "log").read_text().splitlines()
        assert len(lines) == 10


def end_of_shim(bench: Bench) -> None:
    pidfd = os.pidfd_open(shim_processes(bench)[0])
    bench.replaced = True
    bench.shim.close()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(pidfd)


def test_survivors_die_with_the_task_where_a_cgroup_says_who_they_are(bench, tmp_path):
    unified = next(
        (
            Path(line.split()[1])
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[2] == "cgroup2"
        ),
        None,
    )
    if unified is None:
        pytest.skip("no cgroup2 hierarchy")
    cgroup = unified / leaks.cgroup_name()
    cgroup.mkdir()
    procs = os.open(cgroup / "cgroup.procs", os.O_WRONLY)
    directory = os.open(cgroup, os.O_PATH | os.O_DIRECTORY)
    try:
        plan = Plan(0)
        plan.setns(bench.mounts, CLONE_NEWNS)
        plan.join_cgroup(procs)
        plan.setsid()
        plan.stdio()
        reader, writer = os.pipe()
        plan.exec(["sh", "-c", "setsid sleep 1000 >/dev/null & exit 6"], ENV)
        (bench.root / "a").mkdir()
        run(
            Task(
                bench.shim,
                "a",
                str(bench.root / "a"),
                cgroup_fd=directory,
                attach=Attach(stdout_fd=writer),
            ),
            plan,
        )
        os.close(writer)
        assert bench.wait("a") == 6
        with open(reader, "rb") as out:
            assert out.read() == b""
        events = (cgroup / "cgroup.events").read_text()
        poll = select.poll()
        with open(cgroup / "cgroup.events") as watched:
            poll.register(watched, select.POLLPRI)
            while "populated 1" in events:
                assert poll.poll(5000)
                watched.seek(0)
                events = watched.read()
    finally:
        os.close(procs)
        os.close(directory)
        cgroup.rmdir()
