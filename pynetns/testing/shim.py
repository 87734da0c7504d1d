"""A shim without processes: what the engine asks of `Shim`, answered at once.

Owns: the tasks, which program one runs, and what it has of the descriptors it was sent. As the real
one it copies what it is given, writes output and ends where it was told to, and waits for the go of
a plan that waits. Time does not pass: a wait with a time-out for a task that goes on is over at once,
one without waits until another thread ends it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import KernelError
from ..kernel import frame
from ..kernel.frame import Frame
from ..runtime.shim.protocol import Exit
from ..runtime.task import write_exit
from .kernel import FakeKernel
from .objects import Handle
from .output import Output
from .plan import Planned, read_plan, take_log_options
from .process import FakeProcess, Program

_PAGE = "exit.tmp"  # what the end of a task is written into, from its beginning
_ATTACHED = (
    (frame.SPAWN_ATTACH_IN, "stdin"),
    (frame.SPAWN_ATTACH_OUT, "stdout"),
    (frame.SPAWN_ATTACH_ERR, "stderr"),
)


def not_found(program: str = "") -> KernelError:
    """For `FakeShim.programs`: execve(2) finds no such file."""
    return KernelError(errno.ENOENT, "exec", program)


def _echo(process: FakeProcess) -> int:
    process.write(" ".join(process.args[1:]) + "\n")
    return 0


@dataclass
class _Task:
    key: str
    process: FakeProcess
    go: int
    record: int
    held: list[int] = field(default_factory=list)

    def forget_record(self) -> None:
        """Its end is not to be written down."""
        record, self.record = self.record, -1
        if record >= 0:
            with suppress(FileNotFoundError):
                os.unlink(_PAGE, dir_fd=record)
            os.close(record)

    def close(self) -> None:
        """Give back what it was sent."""
        fds, self.held = self.held, []
        for fd in (self.go, self.record, self.process.stdin, *fds):
            if fd >= 0:
                os.close(fd)
        self.go = self.record = self.process.stdin = -1


class FakeShim:
    """The shim of one machine.

    `programs`: what is executed by a command line ("sleep 5"), its first word, or that without its
    directory; see `Program`. Anything else runs until it is ended: `default`. `task(key)` is the
    process of a container's id, or of an exec's.
    """

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.programs: dict[str, Program] = {"true": 0, "false": 1, "echo": _echo}
        self.default: Program = None
        self.alive = False  # it is started by the first spawn
        self._tasks: dict[str, _Task] = {}
        self._pending: dict[int, _Task] = {}
        self._next = 0
        self._changed = threading.Condition(kernel.lock)

    def task(self, key: str) -> FakeProcess:
        """The process of a living task. KeyError."""
        return self._tasks[key].process

    # ---- spawning ----

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
        self.kernel.called("shim.begin_spawn", key)
        with self._changed:
            self.alive = True
            if key in self._tasks:
                raise KernelError(errno.EEXIST, "frame", key)
            task = self._make(key, plan, plan_fds, flags, list(first_fds))
            task.held += map(os.dup, hold_fds)
            self._tasks[key] = task
            self._next += 1
            self._pending[self._next] = task
            return self._next

    def _make(
        self, key: str, plan: bytes, plan_fds: Sequence[int], flags: int, first: list[int]
    ) -> _Task:
        log, place = -1, None
        if flags & frame.SPAWN_LOG:
            place, plan = take_log_options(plan)
            log = os.dup(first.pop(0))
        record = -1
        if flags & frame.SPAWN_RECORD:
            record = os.dup(first.pop(0))
            os.close(os.open(_PAGE, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=record))
        if flags & frame.SPAWN_CGROUP:
            first.pop(0)
        sent = {name: os.dup(first.pop(0)) for bit, name in _ATTACHED if flags & bit}
        stdin = sent.pop("stdin", -1)
        output = Output({name: [fd] for name, fd in sent.items()}, log, place)
        planned = read_plan(plan)
        process = self._process(planned, plan_fds, output)
        process.stdin = stdin
        go = os.dup(plan_fds[planned.go]) if planned.go >= 0 else -1
        task = _Task(key, process, go, record)
        if process.network is not None:
            task.held.append(process.network.handle.open())
        process.at_end.append(lambda ended: self._ended(task))
        return task

    def _process(self, planned: Planned, plan_fds: Sequence[int], output: Output) -> FakeProcess:
        """The process of a plan, in the root, cgroup and namespaces that the descriptors mean."""
        process = FakeProcess(self.kernel.next_identity(), planned, output)
        if planned.cgroup >= 0:
            status = os.fstat(plan_fds[planned.cgroup])
            process.cgroup = status.st_dev, status.st_ino
        for fd in plan_fds:
            process.root = process.root or self.kernel.root_of(fd)
            process.leader = process.leader or self.kernel.process_of(fd)
            process.network = process.network or self.kernel.namespace_of(fd)
        leader = process.leader
        if leader is not None:
            process.root = process.root or leader.root
            process.network = process.network or leader.network
        self.kernel.add_process(process)
        return process

    def finish_spawn(self, pending: int, key: str) -> Frame:
        task = self._pending.pop(pending)
        try:
            self.kernel.called("shim.finish_spawn", key)
            code = self._execute(task)
        except (KernelError, OSError):
            task.forget_record()  # what never ran did not end
            task.process.exit(137)
            raise
        if code is not None:
            task.process.exit(code)
        return Frame(frame.SPAWNED, 0, 0, task.process.pid, time.monotonic_ns(), key, b"")

    def _execute(self, task: _Task) -> int | None:
        """Wait for the go, run the program; its exit code, None while it goes on."""
        process = task.process
        if task.go >= 0 and os.read(task.go, 1) == b"":
            raise KernelError(errno.ECANCELED, "wait")
        if process.leader is not None and process.leader.exit_code is not None:
            raise KernelError(errno.ESRCH, "setns")
        program = self._program(process.args)
        if isinstance(program, Exception):
            raise program
        return program(process) if callable(program) else program

    def lose(self) -> None:
        """It is killed, with its keeper: its tasks run on, but nobody knows of them, nor writes down
        how they end. The next spawn finds another one, which knows nothing."""
        for task in list(self._tasks.values()):
            task.process.output.close()
            task.close()
        self._tasks.clear()
        self.alive = False

    def _program(self, args: Sequence[str]) -> Program:
        for name in (" ".join(args), args[0], os.path.basename(args[0])):
            if name in self.programs:
                return self.programs[name]
        return self.default

    def _ended(self, task: _Task) -> None:
        process = task.process
        with self._changed:
            if task.record >= 0:
                ended = Exit(process.exit_code or 0, process.finished)
                with suppress(FileNotFoundError):
                    write_exit(f"/proc/self/fd/{task.record}", ended)
                task.forget_record()
            task.close()
            if self._tasks.get(task.key) is task:
                del self._tasks[task.key]
            self._changed.notify_all()

    # ---- asking ----

    def _find(self, key: str, pid: int) -> _Task | None:
        """The task of that key; of the run of `pid` where one is given."""
        task = self._tasks.get(key)
        return task if task is not None and pid in (0, task.process.pid) else None

    def wait(self, key: str, timeout: float | None = None, *, pid: int = 0) -> Exit | None:
        self.kernel.called("shim.wait", key)
        with self._changed:
            task = self._find(key, pid)
            if task is None:
                return None
            if timeout is not None:
                raise TimeoutError
            if threading.active_count() == 1:
                raise AssertionError(f"nobody would ever end {' '.join(task.process.args)}")
            self._changed.wait_for(lambda: self._tasks.get(key) is not task)
            return Exit(task.process.exit_code or 0, task.process.finished)

    def waiter(self, key: str, *, pid: int = 0) -> int:
        self.kernel.called("shim.waiter", key)
        if not self.alive:
            return -1
        task = self._find(key, pid)
        if task is not None:
            return task.process.handle.open()
        ended = Handle()
        fd = ended.open()
        ended.close()
        return fd

    def tasks(self, patience: float | None = None) -> dict[str, int]:
        self.kernel.called("shim.tasks")
        return {key: task.process.pid for key, task in self._tasks.items()}

    def signal(self, key: str, signal: int, *, pid: int = 0) -> bool:
        self.kernel.called("shim.signal", key, signal)
        task = self._find(key, pid)
        return task is not None and task.process.deliver(signal)

    def resize(self, key: str, rows: int, columns: int) -> bool:
        self.kernel.called("shim.resize", key, rows, columns)
        task = self._tasks.get(key)
        if task is not None:
            task.process.size = rows, columns
        return task is not None

    def record(self, key: str, directory: int) -> bool:
        self.kernel.called("shim.record", key)
        task = self._tasks.get(key)
        if task is not None:
            task.forget_record()
            task.record = os.dup(directory)
        return task is not None

    def close(self) -> None:
        self.kernel.called("shim.close")
