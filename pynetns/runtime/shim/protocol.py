"""The shim as the engine sees it, as a Protocol.

Owns: the list of what can be asked, with types, and `Exit`. `ShimClient` asks the real one,
`testing.FakeShim` is one without processes; mypy holds both to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...kernel.frame import Frame


class Exit(NamedTuple):
    """How a task ended: exit code (128 + n after signal n) and time, ns since the epoch."""

    code: int
    finished: int


class Shim(Protocol):
    """Runs plans as tasks and knows how they end. What is raised is said in client.py."""

    def begin_spawn(
        self,
        key: str,
        plan: bytes,
        plan_fds: Sequence[int],
        *,
        flags: int,
        first_fds: Sequence[int] = (),
        hold_fds: Sequence[int] = (),
    ) -> int:
        """Have a plan run as task `key`; what `finish_spawn` takes, exactly once."""
        ...

    def finish_spawn(self, pending: int, key: str) -> Frame:
        """Wait until its program has been executed; the frame's `value` is its pid."""
        ...

    def wait(self, key: str, timeout: float | None = None, *, pid: int = 0) -> Exit | None:
        """How a task ends; None when it is not known here. `pid`, here as below: only the run of that
        process. TimeoutError after `timeout` seconds."""
        ...

    def waiter(self, key: str, *, pid: int = 0) -> int:
        """A descriptor that becomes readable when a task has ended, the caller's; -1 without a shim."""
        ...

    def tasks(self, patience: float | None = None) -> dict[str, int]:
        """Every living task's pid by key; `patience`: seconds within which a shim has to greet."""
        ...

    def signal(self, key: str, signal: int, *, pid: int = 0) -> bool:
        """Signal a task's process; False when there is none."""
        ...

    def resize(self, key: str, rows: int, columns: int) -> bool:
        """The size of a task's terminal, in characters."""
        ...

    def record(self, key: str, directory: int) -> bool:
        """Have a task's end recorded in a directory (a descriptor, the caller's), in place of one that
        was deleted; False when there is no such task."""
        ...

    def close(self) -> None:
        """Close the connections; tasks go on."""
        ...
