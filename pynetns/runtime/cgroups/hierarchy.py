"""Which cgroup hierarchies this machine has mounted: v2, v1 or both.

Owns: reading mountinfo and cgroup.controllers. Knows nothing of limits or containers.
proc(5), cgroups(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

CONTROLLERS = ("cpu", "cpuset", "devices", "memory", "pids")  # those that this package uses

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """`v2` is the mount point of the unified hierarchy, "" for none; `v1` maps a controller to the
    mount point of its hierarchy; `v2_controllers` are those that the unified one has; `all_v1` are
    the mount points of every v1 hierarchy, once each, also of those without any of our controllers
    (blkio, freezer, systemd's own)."""

    v2: str = ""
    v1: Mapping[str, str] = field(default_factory=dict)
    v2_controllers: frozenset[str] = frozenset()
    all_v1: tuple[str, ...] = ()

    @property
    def layout(self) -> str:
        """ "v2", "v1", "hybrid" or "none"."""
        if self.v2:
            return "hybrid" if self.v1 else "v2"
        return "v1" if self.v1 else "none"

    @property
    def anchor(self) -> str:
        """The mount point of the hierarchy that every container is in; "" where there is none."""
        return self.v2 or self.v1.get("devices", "")


def parse_mountinfo(
    text: str, visible: Callable[[str, str], bool] = lambda point, device: True
) -> Hierarchies:
    """The hierarchies in a mountinfo file, without what only other files tell; pure.

    Of several mounts of one hierarchy the one that shows the largest part counts; none does for
    whose point and device ("0:30") `visible` is false.
    """
    best: dict[str, tuple[int, str]] = {}  # by controller, "" for v2
    v1_best: dict[str, tuple[int, str]] = {}  # by device number: one hierarchy, one super block
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, super_options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        device, root, point = before.split(" ")[2:5]
        rank = (len(root.rstrip("/")), _unescape(point))
        if not visible(rank[1], device):
            continue
        if kind == "cgroup":
            _keep_best(v1_best, device, rank)
        for name in ("",) if kind == "cgroup2" else super_options.split(","):
            _keep_best(best, name, rank)
    v1 = {name: best[name][1] for name in CONTROLLERS if name in best}
    all_v1 = tuple(point for _, point in v1_best.values())
    return Hierarchies(best[""][1] if "" in best else "", v1, all_v1=all_v1)


def _keep_best(best: dict[str, tuple[int, str]], name: str, rank: tuple[int, str]) -> None:
    if name not in best or rank[0] < best[name][0]:
        best[name] = rank


def _unescape(path: str) -> str:
    for code, character in _ESCAPES:
        path = path.replace(code, character)
    return path


def _is_visible(point: str, device: str) -> bool:
    """Whether the mount is what its point leads to: another one may lie on it, or above it."""
    try:
        number = os.stat(point).st_dev
    except OSError:
        return False
    return device == f"{os.major(number)}:{os.minor(number)}"


def detect() -> Hierarchies:
    """The hierarchies of this process's mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        found = parse_mountinfo(file.read(), _is_visible)
    if not found.v2:
        return found
    with open(f"{found.v2}/cgroup.controllers", encoding="ascii") as file:
        return replace(found, v2_controllers=frozenset(file.read().split()))
