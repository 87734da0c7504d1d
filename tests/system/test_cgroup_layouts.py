"""The other cgroup layouts, for real: in a private mount namespace the machine's hierarchies are
shown as a v1 machine or a v2 machine would have them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from ..devices import forbidden_device

pytestmark = pytest.mark.root

LAYOUTS = {
    # the v1 controllers as they are, the v2 hierarchy not mounted
    "v1": "umount /sys/fs/cgroup/unified",
    # only the v2 hierarchy, at the usual place (its controllers stay with v1 on such a machine)
    "v2": "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup",
}


@pytest.fixture
def in_layout(place):
    """Run the command line with the cgroups of a layout; no shim is there from before."""
    if not os.path.exists("/sys/fs/cgroup/unified/cgroup.procs"):
        pytest.fail("these tests rearrange a hybrid hierarchy; add the layouts of this machine")

    def run(layout: str, *args: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pynetns", "--root", place.root]
        words += ["--exec-root", place.exec_root, *args]
        script = f'{LAYOUTS[layout]} && exec "$@"'
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


@pytest.mark.parametrize("layout", LAYOUTS)
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


def test_limits_of_v1(in_layout):
    eat = "x = bytearray(200 << 20)"
    result = in_layout("v1", "run", "--rm", "-m", "40m", "host", "/usr/bin/python3", "-c", eat)
    assert result.returncode == 137
    clean(in_layout, "v1")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--memory", "64m"), ("--pids-limit", "10"), ("--cpus", "1"), ("--cpuset-cpus", "0")],
)
def test_a_limit_without_its_controller_is_refused(in_layout, option, value):
    result = in_layout("v2", "run", option, value, "host", "true")
    assert result.returncode == 125
    assert option in result.stderr and result.stderr.count("\n") == 1
    assert in_layout("v2", "ps", "-aq").stdout == ""
    clean(in_layout, "v2")
