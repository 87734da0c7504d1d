"""Started from services of systemd: what binds the service does not bind the container, unless it is
named as its parent. For machines that systemd runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pynetns.runtime.cgroups.hierarchy import detect

from .. import leaks

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not os.path.isdir("/run/systemd/system"), reason="systemd does not run this machine"
    ),
]
EAT = ["/usr/bin/python3", "-c", "print(len(bytearray(200 << 20)) >> 20)"]
LITTLE = ("MemoryMax=90M", "MemorySwapMax=0", "TasksMax=30")


class Services:
    """Transient services; those of a test end with it."""

    def __init__(self, place) -> None:
        self.place = place
        self.started: list[str] = []

    def command(self, *args: str) -> list[str]:
        words = [sys.executable, "-m", "pynetns", "--root", self.place.root]
        return [*words, "--exec-root", self.place.exec_root, *args]

    def start(self, *properties: str, command: list[str]) -> str:
        """A service that has executed `command` (a oneshot) or runs it; its unit's name."""
        name = f"{leaks.cgroup_name()}.service"
        self.started.append(name)
        options = [word for value in properties for word in ("-p", value)]
        path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
        subprocess.run(
            ["systemd-run", "-q", "--unit", name, "-E", f"PYTHONPATH={path}", "-E",
             f"PATH={os.environ['PATH']}", *options, *command],
            check=True, timeout=120,
        )  # fmt: skip
        return name

    def stop(self, name: str) -> None:
        subprocess.run(["systemctl", "stop", name], check=True, timeout=120)

    def cgroup(self, name: str) -> str:
        show = ["systemctl", "show", "-P", "ControlGroup", name]
        return subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def services(place):
    services = Services(place)
    try:
        yield services
    finally:
        place.clean_engine()
        for name in services.started:
            subprocess.run(["systemctl", "stop", name], capture_output=True)
            subprocess.run(["systemctl", "reset-failed", name], capture_output=True)


def test_a_container_outlives_the_service_that_started_it_and_its_limits(services, place):
    command = services.command("run", "-d", "--name", "first", "host", "sleep", "1000")
    name = services.start("Type=oneshot", "RemainAfterExit=yes", *LITTLE, command=command)
    engine = place.engine()
    assert engine.containers.run("host", EAT, remove=True) == b"200\n"
    services.stop(name)
    container = engine.containers.get("first")
    assert container.status == "running"
    assert container.exec_run(["echo", "here"]) == (0, b"here\n")
    container.kill()
    assert container.wait()["StatusCode"] == 137


def test_a_named_service_binds(services, place):
    """Its own processes sit in it, so that it gives its children no controllers: no limits there,
    and the service's own holds and is told."""
    name = services.start("Delegate=yes", *LITTLE, command=["sleep", "1000"])
    parent = services.cgroup(name)
    refused = subprocess.run(
        services.command("run", "--cgroup-parent", parent, "-m", "50m", "host", "true"),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 125
    assert "--memory" in refused.stderr and "Delegate=yes" in refused.stderr
    container = place.engine().containers.create("host", EAT, cgroup_parent=parent)
    container.start()
    assert container.wait()["StatusCode"] == 137
    container.reload()
    assert container.attrs["State"]["OOMKilled"] is True


def test_a_service_with_its_processes_in_a_leaf_takes_limits(services, place):
    script = (
        "own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); mkdir $own/leaf && "
        "echo 0 > $own/leaf/cgroup.procs && echo up > $1 && exec sleep 1000"
    )
    told = Path(place.top, "told")
    os.mkfifo(told)
    name = services.start("Delegate=yes", command=["sh", "-c", script, "sh", str(told)])
    assert told.read_text() == "up\n"
    parent = services.cgroup(name)
    limits = ["sh", "-c", "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max"]
    out = place.engine().containers.run(
        "host", limits, cgroup_parent=parent, mem_limit="64m", pids_limit=20,
        nano_cpus=500_000_000, remove=True,
    )  # fmt: skip
    assert out.split() == [b"67108864", b"20", b"50000", b"100000"]
    assert sorted(p.name for p in Path(detect().v2 + parent).iterdir() if p.is_dir()) == ["leaf"]


def test_a_parent_below_a_slice_is_made_and_goes(services, place):
    """What is above it is systemd's and stays."""
    parent = f"/system.slice/{leaks.cgroup_name()}"
    limits = ["cat", "/sys/fs/cgroup/memory.max"]
    options = {"cgroup_parent": parent, "mem_limit": "64m", "remove": True}
    assert place.engine().containers.run("host", limits, **options) == b"67108864\n"
    assert not os.path.exists(f"{detect().v2}{parent}")
    assert os.path.isdir(f"{detect().v2}/system.slice")
