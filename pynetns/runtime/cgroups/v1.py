"""Cgroups of the v1 hierarchies: only those that a limit of the container needs.

Owns: directories below the mount points of v1 controllers. kernel documents cgroup-v1.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable, Mapping

from ...errors import Unavailable
from . import device_bpf, parents
from .files import kill_one_by_one, read_file, read_key, refused, remove_empty, write_file
from .limits import Setting

_LIMIT = "memory.limit_in_bytes"
_INHERITED = ("cpuset.cpus", "cpuset.mems")  # a new cpuset is empty, and no process can enter it


def make(mount: str, path: str, controller: str, *, mark: bool = False) -> str:
    """Make the cgroup `path` and its parents in one hierarchy; its directory. Existing is fine.

    `mark`: those that are new may be removed by `parents.prune` when they are empty.
    """
    for attempt in range(parents.TRIES):
        try:
            return _make(mount, path, controller, mark)
        except FileNotFoundError as error:  # a parent was removed in between
            if attempt == parents.TRIES - 1:
                raise Unavailable(f"cgroup {mount}{path}: {error.strerror}") from error
        except OSError as error:
            raise Unavailable(f"cgroup {mount}{path}: {error.strerror}") from error
    raise AssertionError("unreachable")


def _make(mount: str, path: str, controller: str, mark: bool) -> str:
    directory = mount
    for part in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{part}"
        parents.make_directory(directory, mark=mark)
        if controller == "cpuset":
            _inherit(parent, directory)
    return directory


def _inherit(parent: str, directory: str) -> None:
    for name in _INHERITED:
        own = read_file(f"{directory}/{name}")
        if own is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not own.strip():
            write_file(f"{directory}/{name}", (read_file(f"{parent}/{name}") or "").strip())


def apply_settings(directory: str, settings: Iterable[Setting]) -> None:
    """Write the limits of one controller. Raises InvalidParameter or Unavailable."""
    late = None
    for setting in settings:
        try:
            write_file(f"{directory}/{setting.file}", setting.value)
        except FileNotFoundError as error:
            if not setting.optional:
                raise refused(setting, error) from error
        except OSError as error:
            if setting.file == _LIMIT and error.errno == errno.EINVAL:
                late = setting  # above the present memory+swap limit: that one first
                continue
            raise refused(setting, error) from error
    if late is not None:
        try:
            write_file(f"{directory}/{late.file}", late.value)
        except OSError as error:
            raise refused(late, error) from error


def apply_devices(directory: str, rules: Iterable[device_bpf.Rule]) -> None:
    """The device rules, where no v2 hierarchy is there to enforce them."""
    for file, line in device_bpf.v1_lines(rules):
        try:
            write_file(f"{directory}/{file}", line)
        except OSError as error:
            raise Unavailable(f"cgroup device rules: {line!r}: {error.strerror}") from error


def open_procs(directory: str) -> int:
    """The descriptor by which a process joins (it writes "0"). OSError."""
    return os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)


def directories(hierarchies: Mapping[str, str], path: str) -> dict[str, str]:
    """Where the cgroup `path` may be in each hierarchy; controllers mounted together come once."""
    places: dict[str, str] = {}
    for controller, mount in hierarchies.items():
        place = posixpath.join(mount, path.strip("/"))
        if place not in places.values():
            places[controller] = place
    return places


def remove(directory: str) -> None:
    """Remove a cgroup; what still runs in it is killed. Absent is fine. Raises System."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        kill_one_by_one(directory)
        remove_empty(directory)


def oom_kills(directory: str) -> int:
    """How many processes the kernel killed for the cgroup's memory limit. Linux 4.13."""
    return read_key(f"{directory}/memory.oom_control", "oom_kill") or 0
