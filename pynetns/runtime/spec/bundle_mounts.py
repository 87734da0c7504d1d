"""The mounts of a bundle's config.json, in the form that the plan takes.

Owns: which file systems and options are accepted. What an option would have without an effect is
refused: a propagation on what is not a bind mount, a word that is none of the kernel's on one that is.
Pure. Source: OCI runtime spec, config.md "Mounts"; mount(8), mount_setattr(2).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from .checks import check_outside_proc
from .fields import path_inside, refuse, strings, typed
from .mount_options import FLAGS_OF_BINDS, MS_PRIVATE, parse_options

OciMount = dict[str, Any]

TYPES = ("bind", "cgroup", "devpts", "mqueue", "proc", "ramfs", "sysfs", "tmpfs")
# What the specification has words for and no file system takes: they would be its data else.
_NOT_DONE = frozenset(
    "remount unbindable runbindable tmpcopyup idmap ridmap mand nomand iversion noiversion silent "
    "loud lazytime nolazytime nosymfollow symfollow rro rrw rnosuid rsuid rnodev rdev rnoexec rexec "
    "rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime rstrictatime rnostrictatime "
    "rnosymfollow rsymfollow".split()
)


def accept_mounts(mounts: Sequence[Any], bundle: str) -> list[OciMount]:
    """`mounts` with every key, destinations clean, sources of bind mounts absolute (they may be
    given below the directory `bundle`). Raises InvalidParameter."""
    accepted = [
        _mount(f"mounts[{index}]", typed(f"mounts[{index}]", mount, dict), bundle)
        for index, mount in enumerate(mounts)
    ]
    cgroups = [mount for mount in accepted if mount["type"] == "cgroup"]
    if len(cgroups) > 1:
        raise refuse("mounts", "of type cgroup there can be one")
    return accepted


def _mount(where: str, mount: Mapping[str, Any], bundle: str) -> OciMount:
    for key in ("uidMappings", "gidMappings"):
        if mount.get(key):
            raise refuse(f"{where}.{key}", "ID-mapped mounts are not made by this runtime")
    options = strings(
        f"{where}.options", typed(f"{where}.options", mount.get("options") or [], list)
    )
    kind = typed(f"{where}.type", mount.get("type") or "", str)
    if "bind" in options or "rbind" in options or not kind:
        kind = "bind"
    if kind not in TYPES:
        raise refuse(f"{where}.type", f"{kind!r}: accepted: {', '.join(TYPES)}")
    destination = _destination(f"{where}.destination", mount.get("destination"), kind)
    source = typed(f"{where}.source", mount.get("source") or "", str)
    if kind == "bind":
        if not source:
            raise refuse(f"{where}.source", "is missing, of a bind mount")
        source = os.path.join(bundle, source)
    _check_options(f"{where}.options", kind, options)
    return {
        "destination": destination,
        "type": kind,
        "source": source or kind,
        "options": tuple(options),
    }


def _destination(where: str, value: Any, kind: str) -> str:
    path = posixpath.normpath("/" + path_inside(where, value).strip("/"))
    if path == "/":
        raise refuse(where, "cannot be the root")
    if (path, kind) != ("/proc", "proc"):
        check_outside_proc(where, path)
    return path


def _check_options(where: str, kind: str, options: Sequence[str]) -> None:
    for option in options:
        if option in _NOT_DONE:
            raise refuse(where, f"{option!r} is not done by this runtime")
    parsed = parse_options(options)
    if kind != "bind":
        if parsed.propagation not in (0, MS_PRIVATE):
            raise refuse(where, "a propagation is for bind mounts; any other is private")
        if kind == "cgroup" and parsed.data:
            raise refuse(where, f"{parsed.data!r}: the cgroup mount takes flags only")
        return
    if parsed.data:
        raise refuse(where, f"{parsed.data!r}: no option of a bind mount")
    without = [word for word in options if word not in FLAGS_OF_BINDS]
    if without:
        raise refuse(where, f"{without[0]!r} would have no effect on a bind mount")
