"""Low-level part: run a program inside the namespaces of a living process (setns + exec).

>>> with join(os.getpid(), ["true"], namespaces=CLONE_NEWUTS) as process:
...     process.wait()
0
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..kernel.operations import Plan
from ..kernel.process import ProcessIdentity
from .spawn import Process, spawn

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ALL = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET


def join_plan(pidfd: int, namespaces: int = ALL) -> Plan:
    """A plan whose first steps enter `namespaces` of the process behind `pidfd`; add the rest.

    Source: setns(2) with a pidfd (Linux 5.8). A pid namespace takes effect in a child, hence a fork.
    """
    plan = Plan(clone_flags=0)
    plan.setns(pidfd, namespaces)
    if namespaces & CLONE_NEWPID:
        plan.fork()
    return plan


def join(
    process: int | ProcessIdentity,
    args: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    namespaces: int = ALL,
    cwd: str = "/",
    stdio: Sequence[int] = (0, 1, 2),
) -> Process:
    """Execute `args` in the namespaces of `process`, with the caller's privileges.

    `process`: a pid, or the identity that was recorded of it, which no other process is mistaken
    for. `namespaces`: CLONE_NEW* bits. Raises KernelError; ProcessLookupError when it has ended.

    Not for namespaces of programs that are not trusted: until it executes, the new process shares
    the caller's memory, and whoever may trace it in there sees that.
    """
    pidfd = os.pidfd_open(process) if isinstance(process, int) else process.open()
    try:
        plan = join_plan(pidfd, namespaces)
        plan.stdio()
        plan.cwd(cwd)
        plan.exec(args, dict(os.environ) if env is None else env)
        return spawn(plan, stdio=stdio)
    finally:
        os.close(pidfd)
