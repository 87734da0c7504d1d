"""Device nodes of a container and the device rules of its cgroup.

Owns: Docker's default rules and looking up --device paths on the host. The nodes that every
container has (null, zero, tty, …) are the plan's. Knows nothing of how a rule is enforced.
Source: seed section 1.2.2.1; moby setDevices; OCI runtime-spec config-linux, "Devices".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidParameter
from ...model.config import DeviceMapping

Node = dict[str, Any]
Rule = dict[str, Any]


def _rule(allow: bool, kind: str, major: int, minor: int, access: str = "rwm") -> Rule:
    return {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}


_DENY_ALL: Rule = {"allow": False, "access": "rwm"}
_ALLOW_ALL: Rule = {"allow": True, "access": "rwm"}

DEFAULT_RULES: tuple[Rule, ...] = (
    _DENY_ALL,
    _rule(True, "c", 1, 5),  # zero
    _rule(True, "c", 1, 3),  # null
    _rule(True, "c", 1, 9),  # urandom
    _rule(True, "c", 1, 8),  # random
    _rule(True, "c", 5, 0),  # tty
    _rule(True, "c", 5, 1),  # console
    _rule(False, "c", 10, 229),  # fuse
)

# What every container of a bundle may use, whatever its rules; the other ones that need no rule of
# their own are device_bpf.py's. OCI runtime spec config-linux, "Default Devices".
DEFAULT_DEVICE_RULES: tuple[Rule, ...] = tuple(
    _rule(True, "c", major, minor) for major, minor in ((1, 3), (1, 5), (1, 8), (1, 9), (5, 0))
)

# Below /dev, what belongs to the host's own mounts and sessions.
_SKIPPED_DIRECTORIES = frozenset(
    f"/dev/{name}" for name in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev")
)
_SKIPPED_NODES = frozenset(("/dev/console", "/dev/ptmx"))  # the container has its own


@dataclass(frozen=True, slots=True)
class ResolvedDevices:
    """`linux.devices` and `linux.resources.devices` of a spec."""

    nodes: tuple[Node, ...] = ()
    rules: tuple[Rule, ...] = DEFAULT_RULES


NO_DEVICES = ResolvedDevices()


def resolve_devices(mappings: Iterable[DeviceMapping], privileged: bool = False) -> ResolvedDevices:
    """Looks the host's devices up. Raises InvalidParameter naming --device. moby setDevices."""
    mappings = tuple(mappings)
    if not mappings and not privileged:
        return NO_DEVICES
    if privileged:
        nodes = {node["path"]: node for node in host_devices()}
        for mapping in mappings:
            nodes.update((node["path"], node) for node in devices_from_path(mapping))
        return ResolvedDevices(tuple(nodes.values()), (_ALLOW_ALL,))
    nodes, rules = {}, list(DEFAULT_RULES)
    for mapping in mappings:
        for node in devices_from_path(mapping):
            nodes[node["path"]] = node
            rules.append(
                _rule(True, node["type"], node["major"], node["minor"], mapping.cgroup_permissions)
            )
    return ResolvedDevices(tuple(nodes.values()), tuple(rules))


def devices_from_path(mapping: DeviceMapping) -> list[Node]:
    """The node of one --device, or all nodes below it when it is a directory.
    moby oci.DevicesFromPath."""
    path = os.path.realpath(mapping.path_on_host)
    target = mapping.path_in_container or mapping.path_on_host
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidParameter(f"--device {mapping.path_on_host}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        node = _node(target, status)
        nodes = [node] if node else []
    else:
        nodes = [
            node
            for found, found_status in _walk(path)
            if (node := _node(target + found.removeprefix(path), found_status))
        ]
    if not nodes:
        raise InvalidParameter(
            f"--device {mapping.path_on_host}: not a device and no directory of any"
        )
    return nodes


def host_devices() -> list[Node]:
    """All of this machine's device nodes, for a privileged container. moby HostDevices."""
    return [
        node
        for path, status in _walk("/dev")
        if path not in _SKIPPED_NODES and (node := _node(path, status))
    ]


def _walk(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below that is no directory; links are not followed, what vanishes is left out."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                yield entry.path, status
            elif entry.path not in _SKIPPED_DIRECTORIES:
                yield from _walk(entry.path)
        except FileNotFoundError:
            continue


def _node(path: str, status: os.stat_result) -> Node | None:
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
