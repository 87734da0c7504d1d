"""Low-level part: run a plan from this process; a pidfd comes back. No engine, no shim, no state.

    >>> import os
    >>> plan = Plan(clone_flags=0)
    >>> plan.stdio()
    >>> plan.exec(["true"], {"PATH": "/usr/bin:/bin"})
    >>> with spawn(plan) as process:
    ...     process.wait()
    0

The program's parent is the calling process. Its address space is shared with the caller until
execve (nothing is copied, however large the caller), the calling thread waits for that moment.
"""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Sequence

from ..kernel.lib import call, ffi, lib
from ..kernel.operations import Plan, child_spans
from ..trace import add_spans, recording

__all__ = ["Plan", "Process", "spawn"]


class Process:
    """A spawned program. Owns its `pidfd`; a context manager closes it (the program goes on)."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    def fileno(self) -> int:
        """The pidfd: readable once the program has ended."""
        return self.pidfd

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Send a signal. ProcessLookupError when the program has ended and was waited for."""
        signals.pidfd_send_signal(self.pidfd, signal)

    def wait(self) -> int:
        """Wait for the end; the exit code, 128 + n after signal n."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | _WALL)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status

    def close(self) -> None:
        """Close the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_WALL = 0x40000000


def spawn(plan: Plan, *, stdio: Sequence[int] = (0, 1, 2)) -> Process:
    """Execute `plan` with the three descriptors `stdio`; returns when the program runs.

    Raises KernelError naming the operation that failed (then no process is left).
    Source: clone(2), execve(2); what may happen in between is docs/child-process.md.
    """
    encoded = plan.encode()
    buffer = ffi.new("uint64_t[]", (len(encoded) + 7) // 8)  # operations are read in place
    ffi.memmove(buffer, encoded, len(encoded))
    table = [*stdio, *plan.fds]
    out = ffi.new("int[2]", [-1, -1])
    trace = ffi.new("struct pn_trace *") if recording() else ffi.NULL
    bytes_of = ffi.cast("uint8_t *", buffer)
    fds = ffi.new("int[]", table)
    call(lib.pn_spawn, bytes_of, len(encoded), fds, len(table), out, out + 1, trace)
    if trace:
        add_spans(child_spans(plan, 0, [trace.end[i] for i in range(trace.count)]))
    return Process(out[1], out[0])
