"""Processes of a fake machine: they live, are signalled and end; a Python callable is their program.

Owns: what a signal does to one, and what ends with it. Time does not pass: a program says its words and
returns its exit code at once, or goes on until it is told to end. signal(7), pid_namespaces(7).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..kernel.process import ProcessIdentity
from .objects import Handle

if TYPE_CHECKING:
    from .network import FakeNetworkNamespace
    from .output import Output
    from .plan import Planned

# An exit code: it ends at once. None: it runs until it is ended. An exception (a KernelError such as
# `not_found`): it cannot be executed. A callable gets the process and says one of the first two.
Program = int | None | Exception | Callable[["FakeProcess"], int | None]
Handler = int | None | Callable[["FakeProcess"], int | None]

# What signal(7) says these do when nobody handles them: nothing that ends a process.
_HARMLESS = frozenset(
    (
        0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSTOP,
        signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    )
)  # fmt: skip
_DIES = 128


class FakeProcess:
    """One process. `planned`: args, env, cwd, user as its plan says; `root`: its layers, top first;
    `leader`: the first process of the pid namespace that it joined, None for one of its own.

    `handlers` says what a signal does: an exit code ends it, None is ignored, a callable gets the
    process and returns either. Without one the first process of a container ignores it, as the
    kernel has it; SIGKILL has none.
    """

    def __init__(self, identity: ProcessIdentity, planned: Planned, output: Output) -> None:
        self.identity = identity
        self.planned = planned
        self.handlers: dict[int, Handler] = {}
        self.signals: list[int] = []  # those that it was sent
        self.stdin = -1  # descriptor to read from, -1 for none
        self.size = (0, 0)  # of its terminal: rows, columns
        self.root: tuple[str, ...] = ()
        self.leader: FakeProcess | None = None
        self.network: FakeNetworkNamespace | None = None  # None: that of the machine
        self.cgroup = (0, 0)  # device and inode of the directory it was born in
        self.exit_code: int | None = None
        self.finished = 0  # ns since the epoch
        self.handle = Handle()
        self.at_end: list[Callable[[FakeProcess], None]] = []
        self._output = output

    @property
    def pid(self) -> int:
        """Its number."""
        return self.identity.pid

    @property
    def args(self) -> tuple[str, ...]:
        """Its command line."""
        return self.planned.args

    @property
    def env(self) -> dict[str, str]:
        """Its environment."""
        return dict(entry.split("=", 1) for entry in self.planned.env)

    @property
    def output(self) -> Output:
        """Where its output goes."""
        return self._output

    def write(self, data: bytes | str, stream: str = "stdout") -> None:
        """Write to its standard output, or to "stderr"."""
        self._output.write(stream, data.encode() if isinstance(data, str) else data)

    def deliver(self, number: int) -> bool:
        """Send it a signal; False when it has ended."""
        if self.exit_code is not None:
            return False
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.exit(_DIES + number)
        elif number in self.handlers:
            handler = self.handlers[number]
            code = handler(self) if callable(handler) else handler
            if code is not None:
                self.exit(code)
        elif self.leader is not None and number not in _HARMLESS:
            self.exit(_DIES + number)
        return True

    def exit(self, code: int) -> None:
        """End it; with the first process of a container all others of it end. Idempotent."""
        if self.exit_code is not None:
            return
        self.exit_code, self.finished = code, time.time_ns()
        self._output.close()
        for step in self.at_end:
            step(self)
        self.handle.announce()
