"""csrc/child.c: what is open in the child, and when."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.forks import Descriptors
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.spawn import spawn
from pynetns.runtime.task import Task

pytestmark = pytest.mark.root
ENV = {"PATH": "/usr/bin:/bin"}


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def look_at_waiting(plan: Plan, go: int, look: Callable[[int], object]) -> object:
    """Spawn a plan that waits for pipe `go`; what `look` finds of its process meanwhile."""
    codes: list[int] = []
    before = children()

    def work() -> None:
        with spawn(plan) as process:
            codes.append(process.wait())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not (new := children() - before):
            assert thread.is_alive()
        pid = new.pop()
        wait_until_it_waits(pid)
        return look(pid)
    finally:
        os.write(go, b"\n")
        thread.join()
        assert codes == [0]


def wait_until_it_waits(pid: int) -> None:
    """Until the process reads from its pipe."""
    while "pipe_read" not in Path(f"/proc/{pid}/wchan").read_text():
        assert " Z " not in Path(f"/proc/{pid}/stat").read_text()


def open_files(pid: int) -> list[str]:
    links = sorted(int(n) for n in os.listdir(f"/proc/{pid}/fd"))
    return [os.readlink(f"/proc/{pid}/fd/{n}") for n in links]


@pytest.fixture
def secrets(tmp_path):
    """Many descriptors of this process, inheritable or not, low and high."""
    fds = []
    for number in range(60):
        fd = os.open(tmp_path, os.O_RDONLY)
        os.set_inheritable(fd, number % 2 == 0)
        fds.append(fd)
    fds.append(os.dup2(fds[0], 900))
    yield str(tmp_path)
    for fd in fds:
        os.close(fd)


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_the_first_act_is_to_close_what_is_not_the_plans(secrets, pipe):
    named = os.open("/usr", os.O_RDONLY)
    try:
        plan = Plan(0)
        plan.join_cgroup(named)  # never reached: it only puts the descriptor into the table
        plan.fds, plan._parts, plan._names = [named], plan._parts[:1], plan._names[:1]
        plan.wait(pipe[0])
        plan.stdio()
        plan.exec(["true"], ENV)
        found = look_at_waiting(plan, pipe[1], open_files)
    finally:
        os.close(named)
    assert secrets not in found
    assert len(found) == 6  # stdio, the named one, the pipe, the report
    assert "/usr" in found
    assert sum(name.startswith("socket:") for name in found) == 1


def test_from_the_working_directory_on_only_stdio_report_and_go_are_open(secrets, pipe):
    named = os.open("/usr", os.O_RDONLY)
    try:
        plan = Plan(0)
        plan.fd(named)
        plan.stdio()
        plan.cwd("/")
        plan.wait(pipe[0])
        plan.exec(["true"], ENV)
        found = look_at_waiting(plan, pipe[1], open_files)
    finally:
        os.close(named)
    assert len(found) == 5
    assert "/usr" not in found and secrets not in found


def test_the_directory_of_its_cgroup_is_not_kept(engine, tmp_path):
    """It would lead to every other cgroup. Only the spawner needs it, to give birth there."""
    cgroup = next(
        (m.split()[1] for m in Path("/proc/mounts").read_text().splitlines() if "cgroup2" in m),
        None,
    )
    assert cgroup, "a cgroup2 hierarchy is mounted on every machine that is supported"
    reader, writer = os.pipe()
    directory = os.open(cgroup, os.O_RDONLY)
    mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    try:
        plan = Plan(0, directory)
        plan.setns(mounts, 0x00020000)
        plan.wait(reader)
        plan.exec(["true"], ENV)
        task = Task(engine.shim, "t", str(tmp_path), go=Descriptors([writer]))
        task.create(plan)
        pid = engine.shim.tasks()["t"]
        wait_until_it_waits(pid)
        found = open_files(pid)
        task.start()
        engine.shim.wait("t")
    finally:
        for fd in (reader, directory, mounts):
            os.close(fd)
    assert cgroup not in found
    assert len(found) == 9  # stdio twice, the mount namespace, the pipe, the report


@pytest.mark.parametrize("sealing", ["cwd", "ready"])
def test_no_descriptor_may_be_named_after_they_are_closed(sealing):
    plan = Plan(0)
    if sealing == "cwd":
        plan.cwd("/")
    else:
        plan.ready()
    plan.join_cgroup(0)
    plan.exec(["true"], ENV)
    with pytest.raises(KernelError, match="descriptor after the working directory"):
        spawn(plan)


def test_spawning_does_not_copy_a_large_table(secrets, pipe):
    """With descriptors far above the plan's the child's table stays small: FDSize tells."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 5001)), hard))
    high = os.dup2(0, 5000)
    try:
        plan = Plan(0)
        plan.wait(pipe[0])
        plan.exec(["true"], ENV)
        status = look_at_waiting(plan, pipe[1], lambda pid: Path(f"/proc/{pid}/status").read_text())
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    size = next(line for line in status.splitlines() if line.startswith("FDSize"))
    assert int(size.split()[1]) <= 1024
