"""The checks of cgroups: which hierarchies and controllers there are, and where the shim is.

Owns: what is said about them. Pure but for the machine it is given. cgroups(7), kernel document
cgroup-v2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .machine import Machine
from .outcome import Check

_CONTROLLERS = ("memory", "cpu", "cpuset", "pids")
_OWN = re.compile(r"/pynetns(-[0-9a-f]{8})?/shim$")


class Mount(NamedTuple):
    """One mounted hierarchy. `names`: as /proc/<pid>/cgroup has them, "" for the unified one."""

    point: str
    names: frozenset[str]
    options: frozenset[str]


def mounts(machine: Machine) -> list[Mount]:
    """Every mounted hierarchy, in the order of /proc/self/mounts."""
    known = _v1_controllers(machine)
    found = []
    for line in (machine.read("/proc/self/mounts") or "").splitlines():
        _, point, kind, words = line.split()[:4]
        options = frozenset(words.split(","))
        if kind == "cgroup":
            named = {option for option in options if option.startswith("name=")}
            found.append(Mount(point, frozenset(known & options | named), options))
        elif kind == "cgroup2":
            found.append(Mount(point, frozenset(("",)), options))
    return found


def _v1_controllers(machine: Machine) -> set[str]:
    lines = (machine.read("/proc/cgroups") or "").splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def check_cgroups(machine: Machine) -> Check:
    """Where limits are kept."""
    hierarchies = mounts(machine)
    unified = next((mount for mount in hierarchies if "" in mount.names), None)
    v1 = {name for mount in hierarchies for name in mount.names if name and "=" not in name}
    layout = "hybrid" if v1 and unified else "v1" if v1 else "v2"
    if not v1 and unified is None:
        fix = "mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup"
        return Check("cgroups", False, "no hierarchy is mounted", fix)
    detail = layout
    have = set(v1)
    if unified is not None:
        have |= set((machine.read(f"{unified.point}/cgroup.controllers") or "").split())
        detail += f" {'with' if 'nsdelegate' in unified.options else 'without'} nsdelegate"
    detail += f", controllers {' '.join(sorted(have)) or 'none'}"
    missing = [name for name in _CONTROLLERS if name not in have]
    if missing:
        fix = "enable them on the kernel's command line or in cgroup.subtree_control"
        detail = f"{detail}; options that need {', '.join(missing)} will be refused"
        return Check("cgroups", None, detail, fix)
    if unified is not None and (kept := _not_handed_down(machine, unified.point, v1)):
        fix = (
            f"move them below: mkdir {unified.point}/init && for p in $(cat {unified.point}"
            f"/cgroup.procs); do echo $p > {unified.point}/init/cgroup.procs; done"
        )
        detail = f"{detail}; processes in {unified.point} itself keep {' '.join(kept)} from others"
        return Check("cgroups", None, detail, fix)
    return Check("cgroups", True, detail)


def _not_handed_down(machine: Machine, point: str, v1: set[str]) -> list[str]:
    """Controllers that cannot be enabled below the unified hierarchy's top: it is not the kernel's
    real root (which has no type), and has processes. cgroup-v2, "No Internal Process Constraint"."""
    if machine.read(f"{point}/cgroup.type") is None or not machine.read(f"{point}/cgroup.procs"):
        return []
    given = (machine.read(f"{point}/cgroup.subtree_control") or "").split()
    return [name for name in _CONTROLLERS if name not in v1 and name not in given]


def check_shim(machine: Machine) -> Check:
    """Whether the shim is, or will be, out of reach of its starter's limits and end."""
    hierarchies = mounts(machine)
    pids = machine.shims()
    for pid in pids:
        if strange := _elsewhere(machine, pid, hierarchies):
            fix = "it moves when it is started anew, after its last container has ended"
            return Check("shim", None, f"process {pid} is not in its own cgroup: {strange}", fix)
    if pids:
        numbers = ", ".join(map(str, sorted(pids)))
        return Check("shim", True, f"in cgroups of its own (process {numbers})")
    writable = {name for mount in hierarchies if "rw" in mount.options for name in mount.names}
    closed = [mount.point for mount in hierarchies if not mount.names & writable]
    if closed:
        detail = f"{', '.join(closed)} read-only: there it will stay in its starter's cgroup"
        fix = f"mount -o remount,bind,rw {closed[0]}; inside a container, give it --privileged"
        return Check("shim", None, detail, fix)
    return Check("shim", True, "none runs; it will have cgroups of its own")


def _elsewhere(machine: Machine, pid: int, hierarchies: list[Mount]) -> str:
    """The hierarchies, of those mounted, in which the process is not in a shim's cgroup."""
    mounted = {name for mount in hierarchies for name in mount.names}
    strange = []
    for line in (machine.read(f"/proc/{pid}/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if mounted & set(names.split(",")) and not _OWN.search(path):
            strange.append(f"{names}:{path}")
    return ", ".join(strange)
