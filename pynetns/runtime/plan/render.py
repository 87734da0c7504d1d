"""An OCI spec as a plan: what the child executes is what the bundle's config.json says.

Owns: the order of the child's steps. Pure but for the descriptors it is handed (handles.py). Knows
nothing of containers, networks or images.

Privileges go as early as they can. Without no_new_privs a filter needs CAP_SYS_ADMIN, which stays
for it alone; execve(2) drops that too, since the bounding set does not have it. The filter is loaded
while there is still something to wait for, unless it would refuse what the child has left to do.
A joining process does all this before it forks into the pid namespace: those inside never see it
with privileges, or with a descriptor, that are not theirs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import Any

from ...errors import StartFailed
from ...kernel.operations import CREATE, NO_SYMLINK, Plan
from ..security import own_calls
from ..security.capabilities import to_mask
from ..spec.mount_options import (
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REMOUNT,
    parse_options,
)
from ..spec.rlimits import RLIMITS
from .handles import Handles, mount_options

CLONE_NAMESPACES = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
_NEW_CGROUP = CLONE_NAMESPACES["cgroup"]

# What every runtime provides in /dev. OCI runtime spec config-linux, "Default Devices".
DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
DEV_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
)
_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_EXACT = CREATE | NO_SYMLINK  # for what must be where it is said, whatever the image holds
_KERNELS = ("/proc/", "/sys/", "/dev/")
_SYS_ADMIN = to_mask(("CAP_SYS_ADMIN",))
# net.ipv4.conf.eth0.rp_filter: there only once the interface is
_PER_INTERFACE = re.compile(r"net\.ipv[46]\.(?:conf|neigh)\.(?!all\.|default\.)")


def new_namespaces(spec: dict[str, Any]) -> int:
    """CLONE_NEW* bits of the namespaces that `spec` wants new, without cgroup (unshared late)."""
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        if not namespace.get("path"):
            flags |= CLONE_NAMESPACES[namespace["type"]]
    return flags & ~_NEW_CGROUP


def render_plan(
    spec: dict[str, Any], handles: Handles, seccomp: bytes, winsize: tuple[int, int] = (0, 0)
) -> Plan:
    """The plan of a container's first process. `seccomp` is the compiled filter, b"" for none."""
    process, linux = spec["process"], spec["linux"]
    sysctls = linux.get("sysctl") or {}
    go, joins = handles.go, "pid" in handles.namespaces
    plan = Plan(new_namespaces(spec), handles.cgroup)
    if joins and process.get("oomScoreAdj") is not None:
        plan.oom_score_adj(process["oomScoreAdj"], handles.proc)
    for kind, fd in handles.namespaces.items():
        plan.setns(fd, CLONE_NAMESPACES[kind])
    plan.keyring()
    if spec.get("hostname"):
        plan.hostname(spec["hostname"])
    plan.root(handles.rootfs)
    propagation = parse_options((linux.get("rootfsPropagation") or "private",)).propagation
    if propagation != MS_PRIVATE:
        plan.root_attr(0, propagation)
    _render_mounts(plan, spec, handles)
    if go >= 0 > handles.told and any(map(_PER_INTERFACE.match, sysctls)):
        plan.wait(go)
        go = -1
    for key, value in sysctls.items():
        plan.sysctl(key, value)
    if not joins and process.get("oomScoreAdj") is not None:
        plan.oom_score_adj(process["oomScoreAdj"])
    for path in linux.get("readonlyPaths") or ():
        plan.readonly(path)
    for path in linux.get("maskedPaths") or ():
        plan.mask(path)
    _render_stdio(plan, process, winsize, console=True, socket=handles.console)
    if not joins:
        plan.setsid(terminal=bool(process.get("terminal")))
    if process["cwd"] != "/":
        plan.mkdir(process["cwd"])
    if spec["root"].get("readonly"):
        plan.root_attr(1)
    _render_limits(plan, process)
    for procs in handles.cgroup_joins:  # late: what came before is not the container's memory
        plan.join_cgroup(procs)
    if wants_new_cgroup(spec):
        plan.unshare(_NEW_CGROUP)
    plan.cwd(process["cwd"])
    _check_filter(linux, seccomp)
    calls = own_calls.JOIN_INIT if joins else own_calls.INIT
    early = not seccomp or own_calls.allows(linux["seccomp"], seccomp, calls)
    _render_privileges(plan, process, bool(seccomp))
    if early:
        plan.ready()
        _render_filter(plan, spec, process, seccomp)
    if go >= 0:
        plan.wait(go, handles.told)
    if joins:  # last, as an exec: those inside see it with nothing that is not theirs
        plan.fork()
        plan.setsid(terminal=bool(process.get("terminal")))
    if not early:
        plan.ready(final=True)
        plan.seccomp(seccomp)
    plan.exec(process["args"], process["env"])
    return plan


def render_exec_plan(
    spec: dict[str, Any],
    process: dict[str, Any],
    handles: Handles,
    seccomp: bytes,
    winsize: tuple[int, int] = (0, 0),
    *,
    crowded: bool = False,
) -> Plan:
    """The plan of one more process in the container that `spec` describes.

    It is born in the container's cgroup, unless that is `crowded` (no process more may be made
    there): then it moves in, which no limit forbids. All namespaces are entered after the birth in
    the cgroup, since a cgroup namespace forbids what crosses its root.
    """
    plan = Plan(0, -1 if crowded else handles.cgroup)
    if not crowded:
        _join_cgroups(plan, handles)
    if process.get("oomScoreAdj") is not None:
        plan.oom_score_adj(process["oomScoreAdj"], handles.proc)
    plan.setns(handles.pidfd, joined_namespaces(spec))
    plan.keyring()
    _render_stdio(plan, process, winsize, console=False)
    _render_limits(plan, process)
    if not crowded:
        plan.cwd(process["cwd"])
    _render_privileges(plan, process, bool(seccomp))
    _check_filter(spec["linux"], seccomp)
    calls = own_calls.JOIN_CROWDED if crowded else own_calls.JOIN
    early = not seccomp or own_calls.allows(spec["linux"]["seccomp"], seccomp, calls)
    if early:
        _render_filter(plan, spec, process, seccomp)
    plan.fork()
    if crowded:
        _join_cgroups(plan, handles)
        plan.cwd(process["cwd"])
    plan.setsid(terminal=bool(process.get("terminal")))
    plan.ready(final=not early)
    if not early:
        plan.seccomp(seccomp)
    plan.exec(process["args"], process["env"])
    return plan


def joined_namespaces(spec: dict[str, Any]) -> int:
    """CLONE_NEW* bits of the namespaces in which the container of `spec` lives."""
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        flags |= CLONE_NAMESPACES[namespace["type"]]
    return flags


def has_own_pids(spec: dict[str, Any]) -> bool:
    """Whether `spec` asks for a pid namespace of its own, whose processes all die with the first."""
    return any(n["type"] == "pid" and not n.get("path") for n in spec["linux"]["namespaces"])


def wants_new_cgroup(spec: dict[str, Any]) -> bool:
    """Whether `spec` asks for a cgroup namespace of its own."""
    return any(n["type"] == "cgroup" and not n.get("path") for n in spec["linux"]["namespaces"])


def _render_mounts(plan: Plan, spec: dict[str, Any], handles: Handles) -> None:
    devices = spec["linux"].get("devices") or ()
    if not any(mount["destination"] == "/dev" for mount in spec["mounts"]):
        _render_devices(plan, devices)  # in the root itself
    for index, mount in enumerate(spec["mounts"]):
        destination, kind = mount["destination"], mount["type"]
        mode = _EXACT if is_kernels(destination) else CREATE
        if kind == "bind":
            bind = handles.binds[index]
            source = mount["source"]
            plan.attach(bind.fd, destination, is_dir=bind.is_dir, mode=mode, source=source)
            continue
        if kind == "cgroup":
            _render_cgroup_mount(plan, mount, handles)
            continue
        if kind == "proc" and handles.joined_proc >= 0:
            plan.attach(handles.joined_proc, destination, mode=mode)
            continue
        options = mount_options(tuple(mount["options"]))
        plan.mount(kind, mount["source"], destination, options.flags, options.data, mode)
        if destination == "/dev":
            _render_devices(plan, devices)


def _render_cgroup_mount(plan: Plan, mount: dict[str, Any], handles: Handles) -> None:
    mounts, destination = handles.cgroup_mounts, mount["destination"]
    flags = mount_options(tuple(mount["options"])).flags
    if len(mounts) == 1 and mounts[0][0] in ("", "unified"):
        plan.attach(mounts[0][1], destination, mode=_EXACT)
    elif mounts:
        writable = flags & ~MS_RDONLY  # until the mount points are made
        plan.mount("tmpfs", "tmpfs", destination, writable, "mode=755,size=64k", _EXACT)
        for name, fd in mounts:
            plan.attach(fd, f"{destination}/{name}", mode=_EXACT)
        plan.mount("", "", destination, MS_REMOUNT | MS_BIND | flags, "", NO_SYMLINK)


def _render_devices(plan: Plan, devices: Sequence[dict[str, Any]]) -> None:
    named = {device["path"] for device in devices}
    for path, major, minor in DEFAULT_DEVICES:
        if path not in named:
            plan.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for device in devices:
        mode = _DEVICE_TYPES[device["type"]] | (device.get("fileMode", 0o666) & 0o7777)
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        plan.mknod(device["path"], mode, number, device.get("uid") or 0, device.get("gid") or 0)
    for target, path in DEV_LINKS:
        plan.symlink(target, path)


def is_kernels(path: str) -> bool:
    """Whether a path is in /proc, /sys or /dev: what belongs there is mounted there exactly."""
    return f"{path}/".startswith(_KERNELS)


def _join_cgroups(plan: Plan, handles: Handles) -> None:
    for procs in handles.cgroup_joins:
        plan.join_cgroup(procs)


def _render_stdio(
    plan: Plan,
    process: dict[str, Any],
    winsize: tuple[int, int],
    *,
    console: bool,
    socket: int = -1,
) -> None:
    user = process["user"]
    if process.get("terminal"):
        plan.tty(*winsize, user["uid"], console, lead=False, socket=socket)
    else:
        plan.stdio(user["uid"], user["gid"], own_null=True)


def _render_limits(plan: Plan, process: dict[str, Any]) -> None:
    for limit in process.get("rlimits") or ():
        plan.rlimit(RLIMITS[limit["type"]], limit["soft"], limit["hard"], limit["type"])
    plan.umask(process["user"].get("umask", 0o022))


def _check_filter(linux: dict[str, Any], seccomp: bytes) -> None:
    """A filter that kills at execve(2) would pass for a program that was killed."""
    if seccomp and own_calls.never_allows(linux["seccomp"], seccomp, "execve"):
        raise StartFailed("the seccomp profile refuses execve: no program can start with it", 126)


def _render_filter(
    plan: Plan, spec: dict[str, Any], process: dict[str, Any], seccomp: bytes
) -> None:
    """The filter, and the capability that was there for it only."""
    if not seccomp:
        return
    plan.seccomp(seccomp)
    if not process.get("noNewPrivileges") and own_calls.allows(
        spec["linux"]["seccomp"], seccomp, own_calls.CAPSET
    ):
        masks = capability_masks(process)
        plan.capset(masks["effective"], masks["permitted"], masks["inheritable"])


def _render_privileges(plan: Plan, process: dict[str, Any], filtered: bool) -> None:
    """Identity and capabilities, down to those of the program. runc finalizeNamespace."""
    user, masks = process["user"], capability_masks(process)
    plan.bounding(masks["bounding"])
    plan.groups(user.get("additionalGids") or ())
    plan.user(user["uid"], user["gid"])
    late = process.get("noNewPrivileges", False)
    keep = _SYS_ADMIN if filtered and not late else 0
    plan.capset(
        masks["effective"] | keep,
        masks["permitted"] | keep,
        masks["inheritable"],
        masks["ambient"],
    )
    if late:
        plan.no_new_privs()


def capability_masks(process: dict[str, Any]) -> dict[str, int]:
    """The five sets as masks. capabilities(7)."""
    capabilities = process.get("capabilities") or {}
    return {
        kind: to_mask(capabilities.get(kind) or ())
        for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
