"""pynetns/runtime/cgroups on this machine's hierarchies: limits that hold, and their end."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter, KernelError
from pynetns.kernel import LinuxKernel
from pynetns.model.config import HostConfig
from pynetns.runtime.cgroups import CgroupManager
from pynetns.runtime.cgroups.files import pids_below
from pynetns.runtime.spec.devices import DEFAULT_RULES
from pynetns.undo import Undo

from .. import leaks
from ..devices import forbidden_node
from ..layouts import only_on

pytestmark = pytest.mark.root
MIB = 1 << 20
EAT = "import sys; x = bytearray(int(sys.argv[1])); print(len(x))"


@pytest.fixture
def cgroups():
    """A manager whose parent is this test's own; nothing of it is left."""
    manager = CgroupManager(LinuxKernel(), f"/{leaks.cgroup_name()}")
    assert manager.layout != "none", "no cgroup hierarchy is mounted here"
    try:
        yield manager
    finally:
        manager.remove_parent()
        left = [mount for mount in manager.mounts if os.path.exists(mount + manager.parent)]
        assert not left


@pytest.fixture
def id(cgroups):
    id = secrets.token_hex(32)
    try:
        yield id
    finally:
        cgroups.remove(id)


@pytest.fixture
def device():
    """One that this machine may open and a container may not."""
    return forbidden_node()


def pids(cgroups, id):
    """The processes of a container's cgroup, in the hierarchy that every container is in."""
    parents = [cgroups.parent, *cgroups._other_parents()]
    return [
        p for parent in parents for p in pids_below(f"{cgroups._hierarchies.anchor}{parent}/{id}")
    ]


@contextlib.contextmanager
def created(cgroups, id, *, parent="", **resources):
    with Undo() as undo:
        cgroup = cgroups.create(id, parent, {"devices": DEFAULT_RULES, **resources}, undo)
        try:
            yield cgroup
        finally:
            cgroup.close()


def start(cgroup, *command, **options):
    """A process that joins every cgroup of the container, then executes `command`."""
    procs = [*(f"{path}/cgroup.procs" for path in cgroup.paths.values())]
    script = "".join(f"echo 0 > {path} && " for path in procs) + 'exec "$@"'
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *command], text=True, stderr=subprocess.PIPE, **options
    )


def result(cgroup, *command) -> tuple[int, str]:
    process = start(cgroup, *command)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.strip()


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that says "up"; it does not outlive the test, however that ends."""
    with process:
        try:
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def sleeper(cgroup):
    return ended(start(cgroup, "sh", "-c", "echo up; exec sleep 1000"))


def test_without_limits_only_the_unified_hierarchy(cgroups, id, device):
    with created(cgroups, id) as cgroup:
        if cgroups.layout != "v1":
            assert cgroup.join_fds == ()
            assert list(cgroup.paths) == [""]
        assert result(cgroup, "cat", "/dev/null") == (0, "")
        assert result(cgroup, "sh", "-c", f"exec 3< {device.path}")[0] != 0
        assert cgroup.mounts[-1][1].endswith(f"{cgroups.parent}/{id}")


def test_memory_limit_kills_and_is_told(cgroups, id):
    with created(cgroups, id, memory={"limit": 40 * MIB, "swap": 80 * MIB}) as cgroup:
        assert result(cgroup, sys.executable, "-c", EAT, str(MIB)) == (0, str(MIB))
        assert not cgroups.oom_killed(id)
        assert result(cgroup, sys.executable, "-c", EAT, str(200 * MIB))[0] == -9
        assert cgroups.oom_killed(id)
        directory = cgroup.paths.get("memory", cgroup.paths.get(""))
        file = "memory.limit_in_bytes" if "memory" in cgroup.paths else "memory.max"
        assert int(Path(f"{directory}/{file}").read_text()) == 40 * MIB


def test_pids_limit(cgroups, id):
    fork = (
        "import os\ntry:\n  for i in range(5):\n"
        "    if os.fork() == 0: os.read(0, 1); os._exit(0)\n"
        "except BlockingIOError: print(i)"
    )
    reader, writer = os.pipe()
    with (
        created(cgroups, id, pids={"limit": 4}) as cgroup,
        start(cgroup, sys.executable, "-c", fork, stdin=reader) as process,
    ):
        os.close(reader)
        assert process.stdout.readline() == "3\n"
        os.close(writer)


def test_cpu_settings_are_in_place(cgroups, id):
    cpu = {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"}
    with created(cgroups, id, cpu=cpu) as cgroup:
        code = "import os; print(sorted(os.sched_getaffinity(0)))"
        assert result(cgroup, sys.executable, "-c", code) == (0, "[0]")
        directory = cgroup.paths.get("cpu", cgroup.paths.get(""))
        names = os.listdir(directory)
        if "cpu.cfs_quota_us" in names:
            with open(f"{directory}/cpu.cfs_quota_us") as file:
                assert file.read() == "20000\n"
        else:
            with open(f"{directory}/cpu.max") as file:
                assert file.read() == "20000 50000\n"


def test_refused_value_names_the_option_and_leaves_nothing(cgroups, id):
    with (
        pytest.raises(InvalidParameter, match="--cpuset-cpus"),
        created(cgroups, id, cpu={"cpus": "4000"}),
    ):
        pass
    assert pids(cgroups, id) == []
    assert cgroups._path(id) is None


def test_validate(cgroups):
    cgroups.validate(HostConfig())
    cgroups.validate(HostConfig(memory=64 * MIB, pids_limit=10, nano_cpus=10**9))


def test_remove_kills_what_is_left(cgroups, id):
    with created(cgroups, id, pids={"limit": 10}) as cgroup, sleeper(cgroup) as process:
        assert pids(cgroups, id) == [process.pid]
        cgroups.remove(id)
        assert process.wait(30) == -9
    assert not any(os.path.exists(path) for path in cgroup.paths.values())
    cgroups.remove(id)


def test_remove_takes_cgroups_made_inside(cgroups, id):
    with created(cgroups, id) as cgroup:
        inner = f"{next(iter(cgroup.paths.values()))}/inner"
        os.makedirs(f"{inner}/most")
        with sleeper(cgroup) as process:
            with open(f"{inner}/cgroup.procs", "w") as file:
                file.write(str(process.pid))
            assert pids(cgroups, id) == [process.pid]
            cgroups.remove(id)
            assert process.wait(30) == -9
    assert not os.path.exists(inner)


def test_kill_all(cgroups, id):
    with created(cgroups, id) as cgroup, sleeper(cgroup) as one, sleeper(cgroup) as two:
        cgroups.kill_all(id)
        assert (one.wait(30), two.wait(30)) == (-9, -9)


def test_kill_one_by_one(cgroups, id):
    """What v1 alone has to do."""
    from pynetns.runtime.cgroups.files import kill_one_by_one

    with created(cgroups, id) as cgroup, sleeper(cgroup) as one, sleeper(cgroup) as two:
        kill_one_by_one(next(iter(cgroup.paths.values())))
        assert (one.wait(30), two.wait(30)) == (-9, -9)


def test_open_is_for_one_more_process(cgroups, id):
    with created(cgroups, id, pids={"limit": 9}) as cgroup:
        again = cgroups.open(id)
        try:
            assert again.paths == cgroup.paths
            assert len(again.join_fds) == len(cgroup.join_fds)
            assert again.mounts == cgroup.mounts
        finally:
            again.close()


def test_other_parent_is_found_by_another_manager(cgroups, id, device):
    parent = f"{cgroups.parent}-other"
    try:
        with created(cgroups, id, parent=f"/../{parent}", pids={"limit": 9}) as cgroup:
            assert all(f"{parent}/{id}" in path for path in cgroup.paths.values())
            assert result(cgroup, "sh", "-c", f"exec 3< {device.path}")[0] != 0
            other = CgroupManager(LinuxKernel(), cgroups.parent)
            with sleeper(cgroup) as process:
                assert pids(other, id) == [process.pid]
                other.remove(id)
                process.wait(30)
            assert pids(other, id) == []
        assert not [m for m in cgroups.mounts if os.path.exists(f"{m}{parent}")]
    finally:
        remove_directories(cgroups, parent)


def remove_directories(cgroups, *paths: str) -> None:
    """Those of a failed test, in every hierarchy; the deepest first."""
    for mount in cgroups.mounts:
        for path in paths:
            with contextlib.suppress(OSError):
                os.rmdir(f"{mount}{path}")


def test_parents_that_were_made_go_when_empty_and_no_others(cgroups, id):
    top = f"{cgroups.parent}-top"
    parent, second = f"{top}/made/twice", secrets.token_hex(32)
    try:
        for mount in cgroups.mounts:
            os.mkdir(f"{mount}{top}")
        with created(cgroups, id, parent=parent, pids={"limit": 9}) as cgroup:
            assert all(f"{parent}/{id}" in path for path in cgroup.paths.values())
            with created(cgroups, second, parent=parent):
                cgroups.remove(id)
                assert os.path.isdir(f"{cgroups._hierarchies.anchor}{parent}/{second}")
            cgroups.remove(second)
        for mount in cgroups.mounts:
            assert os.listdir(f"{mount}{top}") and not os.path.exists(f"{mount}{top}/made")
    finally:
        cgroups.remove(second)
        remove_directories(cgroups, parent, f"{top}/made", top)


def test_a_parent_holds_in_every_hierarchy_in_which_it_is(cgroups, id):
    """Also without limits of the container's own: a v1 parent would else be a word only."""
    parent = f"{cgroups.parent}-named"
    mounts = cgroups.mounts
    try:
        for mount in mounts:
            os.mkdir(f"{mount}{parent}")
        with created(cgroups, id, parent=parent) as cgroup, sleeper(cgroup) as process:
            with open(f"/proc/{process.pid}/cgroup") as file:
                places = [line.split(":", 2)[2].strip() for line in file]
            assert sum(place == f"{parent}/{id}" for place in places) == len(mounts)
            cgroups.remove(id)
            assert process.wait(30) == -9
        assert not [m for m in mounts if os.path.exists(f"{m}{parent}/{id}")]
    finally:
        remove_directories(cgroups, parent)


@pytest.mark.parametrize("crowded", [False, True], ids=["empty parent", "processes in the parent"])
def test_out_of_memory_by_the_parents_limit_is_told(cgroups, id, crowded):
    """No limit of its own: the kernel kills for the parent's. With processes in the parent itself
    v2 gives its children no controllers; then the parent's own count tells."""
    parent = f"{cgroups.parent}-small"
    root = cgroups._hierarchies.v1.get("memory") or cgroups._hierarchies.v2
    on_v1 = "memory" in cgroups._hierarchies.v1
    try:
        os.mkdir(f"{root}{parent}")
        if not on_v1:
            with open(f"{root}/cgroup.subtree_control", "w") as file:
                file.write("+memory")
        limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        for name in limits if on_v1 else ("memory.max", "memory.swap.max"):
            with (
                contextlib.suppress(FileNotFoundError),
                open(f"{root}{parent}/{name}", "w") as file,
            ):
                file.write("0" if "swap" in name else str(40 * MIB))
        with contextlib.ExitStack() as held:
            if crowded:
                there = subprocess.Popen(["sleep", "1000"])
                held.callback(there.wait)
                held.callback(there.kill)
                with open(f"{root}{parent}/cgroup.procs", "w") as file:
                    file.write(str(there.pid))
            cgroup = held.enter_context(created(cgroups, id, parent=parent))
            assert result(cgroup, sys.executable, "-c", EAT, str(MIB)) == (0, str(MIB))
            assert not cgroups.oom_killed(id)
            assert result(cgroup, sys.executable, "-c", EAT, str(200 * MIB))[0] == -9
            assert cgroups.oom_killed(id)
            cgroups.remove(id)
    finally:
        remove_directories(cgroups, parent)


@only_on("hybrid", "v2")  # v1 freezes in a hierarchy of its own
def test_frozen_processes_end_too(cgroups, id):
    with created(cgroups, id) as cgroup, sleeper(cgroup) as process:
        with open(f"{cgroup.paths['']}/cgroup.freeze", "w") as file:
            file.write("1")
        cgroups.remove(id)
        assert process.wait(30) == -9


# ---- the shim's own ----


def entered(fds: list[int]):
    """A process that has entered the cgroups behind `fds`, as the shim does."""
    numbers = " ".join(f"echo 0 >&{fd};" for fd in fds)
    command = ["bash", "-c", f"{numbers} echo up; exec sleep 1000"]
    return ended(subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True))


def test_the_shim_has_a_cgroup_in_every_hierarchy(cgroups):
    fds = cgroups.open_shim_procs()
    try:
        with open("/proc/self/cgroup") as file:
            hierarchies = [line.split(":", 2)[1] for line in file]
        assert len(fds) == len(cgroups.mounts)
        with entered(fds) as process:
            with open(f"/proc/{process.pid}/cgroup") as file:
                places = dict(line.strip().split(":", 2)[1:] for line in file)
            assert places.keys() == set(hierarchies)
            inside = [name for name, place in places.items() if place == f"{cgroups.parent}/shim"]
            assert len(inside) == len(fds)
            process.kill()
            assert len(cgroups.remove_parent()) == 2 * len(fds)  # the shim's and their parents
    finally:
        for fd in fds:
            os.close(fd)


def test_limits_of_containers_beside_the_shim(cgroups, id):
    """It is in a leaf: on v2 its parent may hand controllers down."""
    fds = cgroups.open_shim_procs()
    try:
        with entered(fds) as process, created(cgroups, id, pids={"limit": 9}) as cgroup:
            assert result(cgroup, "true") == (0, "")
            process.kill()
    finally:
        for fd in fds:
            os.close(fd)


def test_own_device_rules(cgroups, id, device):
    number = {"type": device.kind, "major": device.major, "minor": device.minor}
    rules = (*DEFAULT_RULES, {"allow": True, **number, "access": "r"})
    with created(cgroups, id, devices=rules) as cgroup:
        assert result(cgroup, "sh", "-c", f"exec 3< {device.path}")[0] == 0
        assert result(cgroup, "sh", "-c", f"exec 3> {device.path}")[0] != 0


@only_on("hybrid", "v2")  # v1 has no programs
def test_failing_policy_makes_nothing(cgroups, id, monkeypatch):
    def refuse(*_):
        raise KernelError(1, "bpf", "load")

    monkeypatch.setattr(cgroups._policy._kernel, "bpf_device_load", refuse, raising=False)
    from pynetns.errors import Unavailable

    with pytest.raises(Unavailable, match="device rules"), created(cgroups, id):
        pass
    assert cgroups._path(id) is None
