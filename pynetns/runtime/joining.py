"""One more process in a running task: from a spec and a process block to an executed program.

Owns: its record directory inside the task's, what it needs of the outside, and the way into a task
that may have no process more. Knows nothing of containers' records: whom it joins is a process
identity. containerd Exec; OCI runtime spec, config.md "process"; docs/child-process.md, "an exec".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Conflict, KernelError, StartFailed
from ..kernel.process import ProcessIdentity
from .creation import Parts
from .plan.handles import Handles
from .plan.render import render_exec_plan
from .task import Attach, Task, delete_bundle, task_directory


@dataclass(frozen=True, slots=True)
class Joining:
    """A process about to join task `owner_key`, whose first process is `owner` and which runs by
    `spec`. `process` is its own process block, `seccomp` the compiled filter (b"" for none)."""

    owner_key: str
    key: str
    spec: dict[str, Any]
    process: dict[str, Any]
    owner: ProcessIdentity
    seccomp: bytes = b""
    flags: int = 0
    attach: Attach = field(default_factory=Attach)


def join(parts: Parts, joining: Joining, scope: ExitStack) -> int:
    """Its pid, once it has been executed. A task that may have no process more is no obstacle: then
    it starts outside and moves in.

    Raises Conflict (the task has ended), ProcessLookupError, StartFailed.
    """
    handles = open_exec_handles(parts, joining, scope)
    directory = f"{task_directory(parts.exec_root, joining.owner_key)}/{joining.key}"
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError as error:
        raise Conflict(f"Container {joining.owner_key} is not running") from error
    try:
        return execute(parts, joining, handles, directory, scope)
    except BaseException:  # nobody will wait for it
        delete_bundle(parts.exec_root, f"{joining.owner_key}/{joining.key}")
        raise


def execute(
    parts: Parts, joining: Joining, handles: Handles, directory: str, scope: ExitStack
) -> int:
    try:
        return exec_task(parts, joining, handles, directory).start()
    except StartFailed as error:
        if not is_crowded(error):
            raise
    crowded = replace(handles, cgroup_joins=moving_in(handles, scope))
    return exec_task(parts, joining, crowded, directory, crowded=True).start()


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


def open_exec_handles(parts: Parts, joining: Joining, scope: ExitStack) -> Handles:
    """What the joining process needs of the outside."""
    pidfd = joining.owner.open()
    scope.callback(os.close, pidfd)
    cgroup = parts.cgroups.open(joining.owner_key)
    scope.callback(cgroup.close)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    scope.callback(os.close, proc)
    return Handles(
        rootfs=-1, cgroup=cgroup.v2_fd, cgroup_joins=cgroup.join_fds, pidfd=pidfd, proc=proc
    )


def exec_task(
    parts: Parts, joining: Joining, handles: Handles, directory: str, *, crowded: bool = False
) -> Task:
    """The task, created."""
    plan = render_exec_plan(
        joining.spec,
        joining.process,
        handles,
        joining.seccomp,
        joining.attach.winsize,
        crowded=crowded,
    )
    task = Task(
        shim=parts.shim,
        key=joining.key,
        directory=directory,
        flags=joining.flags,
        attach=joining.attach,
    )
    task.create(plan)
    return task
