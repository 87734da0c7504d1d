"""What a plan refers to: descriptors of the outside, opened before the child is made.

Owns: the record of them, and opening the bind sources of a spec. Which operation takes which is
render.py's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from ...errors import StartFailed
from ...kernel import Kernel
from ...undo import Descriptors
from ..spec.mount_options import MountOptions, parse_options


@dataclass(frozen=True, slots=True)
class OpenMount:
    """A bind mount, opened: a detached mount and whether it is a directory."""

    fd: int
    is_dir: bool


@dataclass(frozen=True, slots=True)
class Handles:
    """The descriptors a plan refers to; all stay the caller's."""

    rootfs: int
    namespaces: dict[str, int] = field(default_factory=dict)  # type -> fd, for those with a path
    binds: dict[int, OpenMount] = field(default_factory=dict)  # index in spec["mounts"] -> mount
    cgroup: int = -1  # v2 directory
    cgroup_joins: Sequence[int] = ()  # v1 cgroup.procs
    cgroup_mounts: Sequence[tuple[str, int]] = ()  # name below /sys/fs/cgroup -> detached mount
    go: int = -1  # pipe whose first byte lets a prepared child execute; -1: it need not wait
    told: int = -1  # socket that the child tells when it is prepared
    console: int = -1  # socket that gets the terminal's master; -1: the shim has it
    pidfd: int = -1  # of the container's first process, for one that joins it
    proc: int = -1  # a procfs in which a process that joins a pid namespace sees itself
    joined_proc: int = -1  # detached /proc of the pid namespace that is joined


@lru_cache(maxsize=512)
def mount_options(options: tuple[str, ...]) -> MountOptions:
    """`parse_options`, remembered: most containers have the same mounts."""
    return parse_options(options)


def open_mounts(kernel: Kernel, spec: dict[str, Any], fds: Descriptors) -> dict[int, OpenMount]:
    """Open every bind source of `spec` as a detached mount, in `fds`; StartFailed when one is
    missing."""
    opened = {}
    for index, mount in enumerate(spec["mounts"]):
        if mount["type"] != "bind":
            continue
        options = mount_options(tuple(mount["options"]))
        source = mount["source"]
        try:
            is_dir = stat.S_ISDIR(os.stat(source).st_mode)
        except OSError as error:
            raise StartFailed(f"bind source {source}: {error.strerror}", 128) from error
        clone = partial(kernel.tree_clone, source, recursive=options.recursive)
        fds.append(clone(attr_set=options.attr, propagation=options.propagation))
        opened[index] = OpenMount(fds[-1], is_dir)
    return opened


def cgroup_mount_attributes(spec: dict[str, Any]) -> int:
    """MOUNT_ATTR_* bits that `spec` asks for its cgroup mount."""
    for mount in spec["mounts"]:
        if mount["type"] == "cgroup":
            return mount_options(tuple(mount["options"])).attr
    return 0
