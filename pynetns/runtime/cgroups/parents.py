"""Parent cgroups other than the engine's own: remembered, made, and removed when nobody needs them.

Owns: the extended attributes that say which parents containers have named and which directories
were made for them. Both are in the cgroup file systems, so that any process can take over and a
reboot forgets them. Knows nothing of limits.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from collections.abc import Iterable

from ... import files
from ...errors import Conflict, Unavailable
from .files import pids_below

_NAMED = "trusted.pynetns.parent."  # on the engine's own cgroup: a parent that somebody named
_MADE = "trusted.pynetns.made"  # on a directory that was made as a parent, or on the way to one
TRIES = 16  # a parent may be removed as empty between its making and its use


def remember(anchor: str, parent: str) -> None:
    """Note on the engine's own cgroup `anchor` that containers are below `parent`. Unavailable."""
    name = _NAMED + hashlib.sha256(os.fsencode(parent)).hexdigest()[:16]
    try:
        files.make_directories(anchor, 0o755)
        os.setxattr(anchor, name, os.fsencode(parent))
    except OSError as error:
        raise Unavailable(f"--cgroup-parent {parent}: {error.strerror}") from error


def remembered(anchor: str) -> list[str]:
    """The parents noted on `anchor`."""
    parents = []
    with contextlib.suppress(OSError):
        for name in os.listxattr(anchor):
            if name.startswith(_NAMED):
                parents.append(os.fsdecode(os.getxattr(anchor, name)))
    return parents


def make_directory(directory: str, *, mark: bool) -> bool:
    """mkdir, with the mark that lets `prune` remove it; False when it is there. OSError else."""
    try:
        files.make_directory(directory, 0o755)
    except FileExistsError:
        return False
    if mark:
        # best effort: without the mark it stays when it is empty; ENOENT: somebody pruned already
        with contextlib.suppress(OSError):
            os.setxattr(directory, _MADE, b"1")
    return True


def make_path(mount: str, path: str, *, mark: bool) -> bool:
    """Every directory of `path` below `mount`; whether the last one is new. OSError."""
    new = False
    directory = mount
    for part in filter(None, path.split("/")):
        directory = f"{directory}/{part}"
        new = make_directory(directory, mark=mark)
    return new


def prune(mounts: Iterable[str], parent: str) -> list[str]:
    """Remove `parent` in each hierarchy, and what is above it, as far as it is empty and was made
    here; their paths."""
    removed = []
    for mount in mounts:
        parts = [part for part in parent.split("/") if part]
        while parts:
            directory = "/".join([mount, *parts])
            parts.pop()
            try:
                os.getxattr(directory, _MADE)
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:  # not ours, or in use
                break
            removed.append(directory)
    return removed


def check_unused(mounts: Iterable[str], path: str) -> None:
    """Conflict where a process is in the cgroup `path` of one of the hierarchies, or below."""
    for mount in mounts:
        if pids_below(f"{mount}{path}"):
            raise Conflict(f"cgroup {mount}{path}: is in use")


def clean_parent(parent: str) -> str:
    """An absolute path in the hierarchies that no ".." leads out of. moby cleanPath."""
    cleaned = posixpath.normpath(f"/{parent.strip('/')}")
    return "" if cleaned == "/" else cleaned
