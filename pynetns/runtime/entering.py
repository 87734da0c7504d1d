"""One more process in a running task: from a spec and a process block to an executed program.

Owns: what it needs of the outside, and the way into a task that may have no process more. Knows
nothing of containers' records: whom it joins is a process identity. containerd Exec; OCI runtime spec,
config.md "process"; docs/child-process.md, "an exec".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import KernelError, StartFailed
from ..kernel.process import ProcessIdentity
from .creation import Parts
from .plan.handles import Handles
from .plan.render import render_exec_plan
from .task import Attach, Task


@dataclass(frozen=True, slots=True)
class Entering:
    """A process about to enter task `owner_key`, whose first process is `owner` and which runs by
    `spec`. `directory` is where its end is put on record ("": nowhere), `process` its own process
    block, `seccomp` the compiled filter (b"" for none)."""

    owner_key: str
    key: str
    directory: str
    spec: dict[str, Any]
    process: dict[str, Any]
    owner: ProcessIdentity
    seccomp: bytes = b""
    flags: int = 0
    attach: Attach = field(default_factory=Attach)


def enter(parts: Parts, entering: Entering, scope: ExitStack) -> int:
    """Its pid, once it has been executed. A task that may have no process more is no obstacle: then
    it starts outside and moves in.

    Raises Conflict (the task has no cgroup any more), ProcessLookupError, StartFailed.
    """
    handles = open_exec_handles(parts, entering, scope)
    try:
        return exec_task(parts, entering, handles).start()
    except StartFailed as error:
        if not is_crowded(error):
            raise
    crowded = replace(handles, cgroup_joins=moving_in(handles, scope))
    return exec_task(parts, entering, crowded, crowded=True).start()


def is_crowded(error: StartFailed) -> bool:
    """Whether the task's pids limit was in the way of the very first step."""
    cause = error.__cause__
    return (
        isinstance(cause, KernelError)
        and cause.errno == errno.EAGAIN
        and cause.step in ("clone", "fork")
    )


def moving_in(handles: Handles, scope: ExitStack) -> Sequence[int]:
    """The files through which a process moves into each of the task's cgroups."""
    if handles.cgroup < 0:
        return handles.cgroup_joins
    procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=handles.cgroup)
    scope.callback(os.close, procs)
    return (procs, *handles.cgroup_joins)


def open_exec_handles(parts: Parts, entering: Entering, scope: ExitStack) -> Handles:
    """What the entering process needs of the outside."""
    pidfd = parts.kernel.process_open(entering.owner)
    scope.callback(os.close, pidfd)
    cgroup = parts.cgroups.open(entering.owner_key)
    scope.callback(cgroup.close)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    scope.callback(os.close, proc)
    return Handles(
        rootfs=-1, cgroup=cgroup.v2_fd, cgroup_joins=cgroup.join_fds, pidfd=pidfd, proc=proc
    )


def exec_task(parts: Parts, entering: Entering, handles: Handles, *, crowded: bool = False) -> Task:
    """The task, created."""
    plan = render_exec_plan(
        entering.spec,
        entering.process,
        handles,
        entering.seccomp,
        entering.attach.winsize,
        crowded=crowded,
    )
    task = Task(
        shim=parts.shim,
        key=entering.key,
        directory=entering.directory,
        flags=entering.flags,
        attach=entering.attach,
    )
    task.create(plan)
    return task
