"""Which cgroup hierarchies this machine has mounted: v2, v1 or both.

Owns: reading mountinfo and cgroup.controllers. Knows nothing of limits or containers.
proc(5), cgroups(7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CONTROLLERS = ("cpu", "cpuset", "devices", "memory", "pids")  # those that this package uses

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """`v2` is the mount point of the unified hierarchy, "" for none; `v1` maps a controller to the
    mount point of its hierarchy; `v2_controllers` are those that the unified one has."""

    v2: str = ""
    v1: Mapping[str, str] = field(default_factory=dict)
    v2_controllers: frozenset[str] = frozenset()

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


def parse_mountinfo(text: str) -> Hierarchies:
    """The hierarchies in a mountinfo file, without what only other files tell; pure.

    Of several mounts of one hierarchy the one that shows the largest part counts.
    """
    best: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, super_options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, point = before.split(" ")[3:5]
        rank = (len(root.rstrip("/")), _unescape(point))
        names = ("",) if kind == "cgroup2" else super_options.split(",")
        for name in names:
            if name not in best or rank[0] < best[name][0]:
                best[name] = rank
    v1 = {name: best[name][1] for name in CONTROLLERS if name in best}
    return Hierarchies(best[""][1] if "" in best else "", v1)


def _unescape(path: str) -> str:
    for code, character in _ESCAPES:
        path = path.replace(code, character)
    return path


def detect() -> Hierarchies:
    """The hierarchies of this process's mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        found = parse_mountinfo(file.read())
    if not found.v2:
        return found
    with open(f"{found.v2}/cgroup.controllers", encoding="ascii") as file:
        return Hierarchies(found.v2, found.v1, frozenset(file.read().split()))
