"""Single kernel calls and pure steps under pytest-benchmark: for watching a change, not for claims.

    pytest benchmarks/test_micro.py --benchmark-only --override-ini addopts=

Nothing is asserted about time. What a call makes is undone outside the measured part.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pynetns.kernel import LinuxKernel

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
_serial = itertools.count()
ROUNDS = 100


@pytest.fixture
def kernel() -> LinuxKernel:
    return LinuxKernel()


@pytest.fixture
def host_netlink(kernel: LinuxKernel) -> Iterator[int]:
    """An rtnetlink socket in a network namespace that stands for the host's."""
    namespace, netlink = kernel.netns_create()
    yield netlink
    os.close(netlink)
    os.close(namespace)


@pytest.fixture
def layer(tmp_path: Path) -> dict[str, str]:
    paths = {name: tmp_path / name for name in ("lower", "upper", "work")}
    for path in paths.values():
        path.mkdir()
    return {name: str(path) for name, path in paths.items()}


def test_netns_create(benchmark: Any, kernel: LinuxKernel) -> None:
    made: list[int] = []

    def close() -> None:
        while made:
            os.close(made.pop())

    benchmark.pedantic(
        lambda: made.extend(kernel.netns_create()), setup=close, rounds=ROUNDS, warmup_rounds=5
    )
    close()


def test_veth_create(benchmark: Any, kernel: LinuxKernel, host_netlink: int) -> None:
    """One pair, its peer in a new namespace each time; that namespace's end deletes it."""
    made: list[int] = []

    def new_peer() -> tuple[tuple[str, int], dict[str, Any]]:
        close()
        made.extend(kernel.netns_create())
        return (f"mb{next(_serial)}", made[0]), {}

    def close() -> None:
        while made:
            os.close(made.pop())

    def create(name: str, namespace: int) -> None:
        kernel.veth_create(host_netlink, name, "eth0", peer_netns=namespace, mtu=1500)

    benchmark.pedantic(create, setup=new_peer, rounds=ROUNDS, warmup_rounds=5)
    close()


def test_link_configure(benchmark: Any, kernel: LinuxKernel, host_netlink: int) -> None:
    made: list[int] = []

    def new_link() -> tuple[tuple[int], dict[str, Any]]:
        close()
        made.extend(kernel.netns_create())
        name = f"mc{next(_serial)}"
        kernel.veth_create(host_netlink, name, "eth0", peer_netns=made[0], mtu=1500)
        return (made[1],), {}

    def close() -> None:
        while made:
            os.close(made.pop())

    def configure(netlink: int) -> None:
        kernel.link_configure(netlink, "eth0", "10.88.0.2", 16, "10.88.0.1", "10.88.255.255")

    benchmark.pedantic(configure, setup=new_link, rounds=ROUNDS, warmup_rounds=5)
    close()


def test_overlay_mount(benchmark: Any, kernel: LinuxKernel, layer: dict[str, str]) -> None:
    made: list[int] = []

    def close() -> None:
        while made:
            os.close(made.pop())

    def mount() -> None:
        made.append(kernel.overlay_mount([layer["lower"]], layer["upper"], layer["work"]))

    benchmark.pedantic(mount, setup=close, rounds=ROUNDS, warmup_rounds=5)
    close()


def test_tree_clone(benchmark: Any, kernel: LinuxKernel, layer: dict[str, str]) -> None:
    benchmark(lambda: os.close(kernel.tree_clone(layer["lower"])))


def test_render_plan(benchmark: Any) -> None:
    """The plan of a default container, from its spec: what Python does before each clone."""
    from pynetns.runtime.plan.render import Handles, render_plan

    spec: dict[str, Any] = {
        "hostname": "micro",
        "root": {"readonly": False},
        "process": {
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "oomScoreAdj": 0,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ("nosuid",)},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ("nosuid",)},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ("ro",)},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
        },
    }
    benchmark(lambda: render_plan(spec, Handles(rootfs=3), b"\0" * 8))
