"""A task that one process creates and another one starts: OCI's two commands.

Owns: how the second finds what the first has begun, which waits for it under the shim. An engine, which
does both itself, needs none of this. OCI runtime spec, "create" and "start".
"""

from __future__ import annotations

import os
import select
import socket
import struct

from ..errors import StartFailed
from .shim.client import ShimClient
from .task import Task

_CREDENTIALS = struct.Struct("=iII")  # struct ucred


def prepared(task: Task, shim: ShimClient, told: socket.socket) -> tuple[int, int]:
    """Wait until the process of a plan with `wait(…, told)` waits for its start. `told` is the other
    end of that socket (`told_socket`), whose own end the caller has closed. Its pid, and the run
    by which another process can `resume` it. StartFailed."""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while not poll.poll(shim.patience * 1000):
        shim.alive()  # Unavailable where it does not answer
    message, control, _, _ = told.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
    if message:
        pid: int = _CREDENTIALS.unpack(control[0][2])[0]
        return pid, shim.run_of(task.pending)
    task.start()  # it has ended: the answer says why
    raise StartFailed("the process has ended before it was prepared", 128)


def resume(task: Task, shim: ShimClient, run: int) -> None:
    """Take over a task that another process has created; `go_fd` is set."""
    task.pending = shim.resume_spawn(task.key, run)


def leave(task: Task, shim: ShimClient) -> None:
    """Let go of a task that was created and not started: it goes on waiting."""
    go, task.go_fd = task.go_fd, -1
    if go >= 0:
        os.close(go)
    pending, task.pending = task.pending, -1
    if pending >= 0:
        shim.leave_spawn(pending)
