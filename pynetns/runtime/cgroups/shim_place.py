"""The shim's own cgroup: `<parent>/shim` in every hierarchy.

Owns: making it, the descriptors by which a process enters it, and its removal. There the shim is
outside of whatever its starter is in: neither the starter's limits nor the end of its service,
scope or session reach the shim, nor, in v1 hierarchies that a container has no cgroup of its own
in, the containers. On v2 it is a leaf beside theirs, so that controllers can be handed down.

A hierarchy that cannot be written to is left as it is: the start goes on in the starter's cgroup
there, with a warning in the log, and `pynetns doctor` says so. kernel documents cgroup-v1, cgroup-v2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time

from ...errors import Unavailable
from . import parents, v1
from .files import pids_below
from .hierarchy import Hierarchies

log = logging.getLogger("pynetns")

NAME = "shim"
_END_SECONDS = 5.0  # the shim ends a second after its last task and client


def directories(hierarchies: Hierarchies, parent: str) -> list[str]:
    """Where the shim's cgroup is, in every hierarchy; the unified one first."""
    mounts = [hierarchies.v2, *hierarchies.all_v1]
    return [f"{mount}{parent}/{NAME}" for mount in mounts if mount]


def anchor(hierarchies: Hierarchies, parent: str) -> str:
    """The shim's cgroup in the hierarchy in which each container has one of its own."""
    return f"{hierarchies.anchor}{parent}/{NAME}"


def open_procs(hierarchies: Hierarchies, parent: str) -> list[int]:
    """Make the cgroups; their cgroup.procs files, open for writing, the caller's to close.

    A process that writes "0" to each of them is in them. None for a hierarchy that refuses.
    """
    fds = []
    for mount in filter(None, [hierarchies.v2, *hierarchies.all_v1]):
        try:
            fds.append(_open_one(hierarchies, mount, f"{parent}/{NAME}"))
        except (OSError, Unavailable) as error:
            log.warning("the shim has no cgroup of its own in %s : %s", mount, error)
    return fds


def _open_one(hierarchies: Hierarchies, mount: str, path: str) -> int:
    if mount == hierarchies.v2:
        parents.make_path(mount, path, mark=False)
        directory = f"{mount}{path}"
    else:
        controller = "cpuset" if mount == hierarchies.v1.get("cpuset") else ""
        directory = v1.make(mount, path, controller)
    return v1.open_procs(directory)


def remove(hierarchies: Hierarchies, parent: str) -> list[str]:
    """Remove the cgroups once the shim has ended, which is waited for; their paths.

    One that is still in use after five seconds stays.
    """
    removed = []
    deadline = time.monotonic() + _END_SECONDS
    for directory in directories(hierarchies, parent):
        _wait_unused(directory, deadline)
        with contextlib.suppress(OSError):
            os.rmdir(directory)
            removed.append(directory)
    return removed


def _wait_unused(directory: str, deadline: float) -> None:
    """Until the processes of a cgroup have ended; whoever enters meanwhile is waited for too."""
    # 0: a process of a pid namespace that this one does not see
    while pids := [pid for pid in pids_below(directory) if pid]:
        poll = select.poll()
        pidfds = []
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    pidfds.append(os.pidfd_open(pid))
                    poll.register(pidfds[-1], select.POLLIN)
            while pidfds:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                for fd, _ in poll.poll(left * 1000):
                    poll.unregister(fd)
                    pidfds.remove(fd)
                    os.close(fd)
        finally:
            for fd in pidfds:
                os.close(fd)
        if time.monotonic() >= deadline:
            return
