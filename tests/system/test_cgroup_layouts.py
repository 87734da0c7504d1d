"""Every cgroup layout that this machine has or can show, for real: in a private mount namespace the
machine's hierarchies are arranged as another machine would have them."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pynetns import doctor
from pynetns.engine.services import default_cgroup_parent
from pynetns.runtime.cgroups.hierarchy import detect

from .. import layouts, leaks
from ..devices import forbidden_device

pytestmark = pytest.mark.root


@pytest.fixture
def in_layout(place):
    """Run the command line with the cgroups of a layout; no shim is there from before."""

    def run(layout: str, *args: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pynetns", "--root", place.root]
        words += ["--exec-root", place.exec_root, *args]
        script = " && ".join(filter(None, [layouts.commands(layout), 'exec "$@"']))
        unshare = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "bash"]
        return subprocess.run([*unshare, *words], capture_output=True, text=True, timeout=60)

    yield run
    for pid in shims_of(place.exec_root):  # each ends a second after its last client
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # the keeper, with its shim
            continue
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(10_000)
        os.close(pidfd)


def shims_of(exec_root: str) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"pynetns-shim", exec_root.encode()]:
            found.append(int(pid))
    return found


def clean(run, layout: str) -> None:
    assert run(layout, "gc", "--all").returncode == 0


@pytest.mark.parametrize("layout", layouts.shown())
def test_a_container_runs_confined(in_layout, layout):
    """Device rules hold in each layout: by BPF with v2, by the devices hierarchy with v1 alone."""
    kind, major, minor = forbidden_device()
    node = f"mknod /tmp/device {kind} {major} {minor}"
    read = "(head -c 0 < /tmp/device) 2>&1; cat /dev/null && echo null"
    script = f"{node} && {read}; ls /sys/fs/cgroup"
    result = in_layout(layout, "run", "--rm", "host", "sh", "-c", script)
    assert result.returncode == 0, result.stderr
    assert "Operation not permitted" in result.stdout
    assert "null" in result.stdout
    assert ("devices" in result.stdout) == (layout == "v1")
    clean(in_layout, layout)


@pytest.mark.parametrize("layout", layouts.shown("hybrid", "v1", "v2"))
def test_a_memory_limit_kills(in_layout, layout):
    eat = "x = bytearray(200 << 20)"
    result = in_layout(layout, "run", "--rm", "-m", "40m", "host", "/usr/bin/python3", "-c", eat)
    assert result.returncode == 137
    clean(in_layout, layout)


@pytest.mark.parametrize("layout", layouts.shown())
@pytest.mark.parametrize("privileged", [False, True], ids=["plain", "privileged"])
def test_cgroup_namespace(in_layout, layout, privileged):
    """A private one with v2 alone, privileged or not; beside v1 a privileged container sees the
    host's, as Docker has it. moby adaptContainerSettings."""
    options = ["--privileged"] if privileged else []
    result = in_layout(layout, "run", "--rm", *options, "host", "readlink", "/proc/self/ns/cgroup")
    assert result.returncode == 0, result.stderr
    shared = result.stdout.strip() == os.readlink("/proc/self/ns/cgroup")
    assert shared == (layout == "v1" or (privileged and layout == "hybrid"))
    clean(in_layout, layout)


@pytest.mark.parametrize("layout", layouts.shown("v2 without controllers"))
@pytest.mark.parametrize(
    ("option", "value"),
    [("--memory", "64m"), ("--pids-limit", "10"), ("--cpus", "1"), ("--cpuset-cpus", "0")],
)
def test_a_limit_without_its_controller_is_refused(in_layout, layout, option, value):
    result = in_layout(layout, "run", option, value, "host", "true")
    assert result.returncode == 125
    assert option in result.stderr and result.stderr.count("\n") == 1
    assert in_layout(layout, "ps", "-aq").stdout == ""
    clean(in_layout, layout)


# ---- a machine inside: a cgroup namespace with our own processes in its root ----


@pytest.fixture
def inside(place):
    """Run a shell command as inside a container: its cgroup is the root of all it sees of v2.

    Mounting cgroup2 changes no options here: the kernel takes them from its first namespace only.
    """
    place.engine().close()  # mounts the exec root, so that it is the same one in each mount namespace
    top = Path(detect().v2, leaks.cgroup_name())
    top.mkdir()
    enter = (
        f"echo 0 > {top}/cgroup.procs && exec unshare --cgroup --mount --propagation private "
        "sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && "
        'eval "$1"\' sh "$1"'
    )
    words = [sys.executable, "-m", "pynetns", "--root", place.root, "--exec-root", place.exec_root]

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", enter, "sh", script.replace("pynetns ", f"{shlex.join(words)} ")]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    try:
        yield run
        assert run("pynetns gc --all").returncode == 0
        assert [entry.name for entry in top.iterdir() if entry.is_dir()] == []
    finally:
        for path, _, _ in os.walk(top, topdown=False):  # fails, telling so, if anything is left
            os.rmdir(path)


@layouts.only_on("hybrid", "v2")
def test_inside_a_cgroup_namespace(inside):
    """The shim leaves the namespace's root, containers are beside it."""
    result = inside(
        "pynetns run -d --name one host sleep 1000 > /dev/null && pynetns exec one echo in && "
        "pynetns run --rm host cat /proc/self/cgroup | grep ^0: && ls /sys/fs/cgroup/*/ -d && "
        "cat /sys/fs/cgroup/pynetns-*/shim/cgroup.procs | wc -w"
    )
    removed = inside("pynetns rm -f one")
    assert result.returncode == 0 and removed.returncode == 0, result.stderr + removed.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == ["in", "0::/"]
    assert len(lines) == 4 and int(lines[3]) >= 1


@layouts.only_on("v2")
def test_limits_inside_a_cgroup_namespace(inside):
    """Not while processes are in its root, which doctor says as well; then they are."""
    refused = inside("pynetns run -m 64m --rm host true")
    assert refused.returncode == 125
    assert (
        "--memory" in refused.stderr and "processes are in /sys/fs/cgroup itself" in refused.stderr
    )
    assert "cgroup.procs); do echo" in inside("pynetns doctor").stdout
    limited = inside(
        "cd /sys/fs/cgroup && mkdir init && echo 0 > init/cgroup.procs && "
        "pynetns run -m 64m --rm host cat /sys/fs/cgroup/memory.max; "
        # and back, so that the next one can enter
        "pynetns gc --all > /dev/null; "
        "for c in $(cat cgroup.subtree_control); do echo -$c > cgroup.subtree_control; done; "
        "echo 0 > cgroup.procs && rmdir init"
    )
    assert (limited.stdout, limited.returncode) == ("67108864\n", 0), limited.stderr


# ---- whoever starts the first container ----


STARTERS_LIMITS = {
    "memory": {"memory.limit_in_bytes": "60M", "memory.max": "60M", "memory.swap.max": "0"},
    "pids": {"pids.max": "20"},
}


class Starter:
    """Cgroups of a caller that has little: 60 MB and 20 processes."""

    def __init__(self) -> None:
        self.found = detect()
        self.name = leaks.cgroup_name()
        mounts = {self.found.v1.get(name, self.found.v2) for name in STARTERS_LIMITS}
        self.directories = [Path(mount, self.name) for mount in {*mounts, self.found.v2} - {""}]
        for directory in self.directories:
            directory.mkdir()
        for controller, files in STARTERS_LIMITS.items():
            if controller not in self.found.v1:
                Path(self.found.v2, "cgroup.subtree_control").write_text(f"+{controller}")
            directory = Path(self.found.v1.get(controller, self.found.v2), self.name)
            for name, value in files.items():
                if (directory / name).exists():
                    (directory / name).write_text(value)

    def run(self, place, *args: str) -> str:
        enter = "".join(f"echo 0 > {path}/cgroup.procs && " for path in self.directories)
        words = [sys.executable, "-m", "pynetns", "--root", place.root]
        words += ["--exec-root", place.exec_root, *args]
        command = ["sh", "-c", f'{enter} exec "$@"', "sh", *words]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def processes(self) -> list[str]:
        return [p for d in self.directories for p in (d / "cgroup.procs").read_text().split()]

    def remove(self) -> None:
        for directory in self.directories:
            directory.rmdir()


@pytest.fixture
def starter(place):
    starter = Starter()
    try:
        yield starter
    finally:
        place.clean_engine()
        starter.remove()


def cgroups_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return dict(line.split(":", 2)[1:] for line in lines)


def test_the_starters_limits_are_not_the_containers(starter, place):
    first = starter.run(place, "run", "-d", "host", "sleep", "1000")
    engine = place.engine()
    container = engine.containers.get(first)
    shims = shims_of(place.exec_root)
    assert starter.processes() == []
    for pid in (*shims, container.attrs["State"]["Pid"]):
        assert not [place for place in cgroups_of(pid).values() if starter.name in place]
    said = {one.name: one for one in doctor.check(place.root, place.exec_root)}["shim"]
    assert said.ok and all(str(pid) in said.detail for pid in shims)
    shown = {f"{engine.cgroups.parent}/shim", "/"}  # "/": a hierarchy that is not mounted
    assert shims and {place for pid in shims for place in cgroups_of(pid).values()} <= shown
    eat = ["/usr/bin/python3", "-c", "print(len(bytearray(150 << 20)) >> 20)"]
    fork = ["sh", "-c", "for i in $(seq 40); do sleep 60 & done; echo all"]
    assert engine.containers.run("host", eat, remove=True) == b"150\n"
    assert container.exec_run(eat) == (0, b"150\n")
    assert engine.containers.run("host", fork, remove=True) == b"all\n"


@layouts.only_on("hybrid", "v2")
def test_the_end_of_the_starters_cgroup_is_not_the_containers(starter, place):
    """What ends with a service, a scope or a session is what is in its cgroup."""
    first = starter.run(place, "run", "-d", "host", "sleep", "1000")
    for directory in starter.directories:
        if (directory / "cgroup.kill").exists():
            (directory / "cgroup.kill").write_text("1")
    container = place.engine().containers.get(first)
    assert container.status == "running"
    assert container.exec_run(["echo", "here"]) == (0, b"here\n")
    container.kill()
    assert container.wait()["StatusCode"] == 137


def test_gc_all_waits_for_the_shims_end(starter, place):
    starter.run(place, "run", "--rm", "host", "true")
    parent = default_cgroup_parent(place.root)
    left = [mount for mount in every_mount() if os.path.exists(f"{mount}{parent}/shim")]
    assert left == every_mount()
    starter.run(place, "gc", "--all")
    assert not [mount for mount in every_mount() if os.path.exists(f"{mount}{parent}")]


def every_mount() -> list[str]:
    found = detect()
    return [mount for mount in (found.v2, *found.all_v1) if mount]
