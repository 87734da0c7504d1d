"""The client of the shim: requests and their answers.

No call waits for ever for a shim that does not answer; one that was killed and has a successor is asked
again. Connections are connections.py's. The protocol is described in docs/shim-protocol.md.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...errors import KernelError
from ...forks import Descriptors
from ...kernel import frame
from ...kernel.frame import Frame
from .connection import Connection
from .connections import GONE, TIMED_OUT, NoShim, ShimConnections, readable
from .protocol import Exit

__all__ = ["Exit", "NoShim", "ShimClient"]


class ShimClient(ShimConnections):
    """Asks the shim of one exec root."""

    def _receive(
        self, fd: Connection, *, patiently: bool = False, deadline: float | None = None
    ) -> Frame:
        """The next answer. `patiently`: as long as the shim as such answers."""
        while True:
            try:
                if deadline is not None:
                    self._wait_readable(fd, deadline)
                answer = frame.receive(fd.fileno())
                if self.answers(fd, answer):
                    return answer
            except KernelError as error:
                if error.errno not in TIMED_OUT:
                    raise
                if not patiently:
                    raise self.unavailable("no answer") from error
                self.connect(start=False).close()

    def request(
        self,
        kind: int,
        *,
        key: str = "",
        flags: int = 0,
        arg: int = 0,
        value: int = 0,
        fds: Sequence[int] = (),
        patience: float | None = None,
    ) -> Frame:
        """One request and its answer; asked again when the shim is replaced meanwhile. `patience`:
        seconds within which it has to come, else the usual.

        KernelError as the shim reports it (ESRCH: no such task), NoShim, Unavailable.
        """
        while True:
            fd = self.take(start=False, patience=patience)
            try:
                self.ask(fd, kind, key=key, flags=flags, arg=arg, value=value, fds=fds)
                if patience is not None and not readable(fd.fileno(), patience):
                    raise self.unavailable("no answer")
                answer = self._receive(fd)
            except KernelError as error:
                fd.close()
                if error.errno in GONE:
                    continue  # to its successor, or to NoShim
                raise self._timed_out(error) from error
            except BaseException:
                fd.close()
                raise
            self.give(fd)
            if answer.kind == frame.ERROR:
                raise frame.parse_error(answer.payload)
            return answer

    def _timed_out(self, error: KernelError) -> Exception:
        return self.unavailable("no answer") if error.errno in TIMED_OUT else error

    def begin_spawn(
        self,
        key: str,
        plan: bytes,
        plan_fds: Sequence[int],
        *,
        flags: int,
        first_fds: Sequence[int] = (),
        hold_fds: Sequence[int] = (),
    ) -> Connection:
        """Have a plan run as task `key`; what `finish_spawn` takes, exactly once. `plan`: log options
        in front of it as `flags` say; `first_fds`: log directory, record, cgroup, attach in/out/err
        likewise."""
        fds = [*first_fds, *hold_fds, *plan_fds]
        if len(plan) <= frame.FRAME_MAX - 512:
            return self._send_spawn(key, flags, len(hold_fds), plan, fds)
        with Descriptors() as own:
            memfd = own.open(os.memfd_create, "pynetns-plan")
            view = memoryview(plan)
            while view:
                view = view[os.write(memfd, view) :]
            return self._send_spawn(
                key, flags | frame.SPAWN_MEMFD, len(hold_fds), b"", [memfd, *fds]
            )

    def _send_spawn(
        self, key: str, flags: int, hold: int, payload: bytes, fds: Sequence[int]
    ) -> Connection:
        """Send a SPAWN; the connection on which its answer comes. One found dead is replaced: then
        nothing of the request arrived."""
        run = 1 + int.from_bytes(os.urandom(7), "little")
        return self._asked(
            partial(self.take, start=True), frame.SPAWN, run=run,
            key=key, flags=flags, hold=hold, value=run, payload=payload, fds=fds,
        )  # fmt: skip

    def _asked(
        self, connect: Callable[[], Connection], kind: int, *, run: int = 0, **request: Any
    ) -> Connection:
        """The connection on which a request has been sent and its answer will come: one of a successor
        where the shim is replaced meanwhile. `run`: the one it is about. NoShim, Unavailable."""
        while True:
            fd = connect()
            fd.run = run
            try:
                self.ask(fd, kind, **request)
            except KernelError as error:
                fd.close()
                if error.errno in GONE:
                    continue
                raise self._timed_out(error) from error
            except BaseException:
                fd.close()
                raise
            return fd

    def finish_spawn(self, pending: Connection, key: str) -> Frame:
        """Wait until the program of the begun spawn `key` has been executed. KernelError when it was
        not; ECANCELED: the shim was killed before it had begun, nothing has happened."""
        kind, run = frame.SPAWN, pending.run
        while True:
            try:
                if kind == frame.STARTED:
                    self.ask(pending, kind, key=key, value=run)
                answer = self._receive(pending, patiently=True)
                pending.run = 0  # nobody is to wait for that again
                self.give(pending)
            except KernelError as error:
                pending.close()
                if error.errno not in GONE:
                    raise self._timed_out(error) from error
                kind, pending = frame.STARTED, self._successor(error)
                continue
            except BaseException:
                pending.close()
                raise
            if answer.kind != frame.ERROR:
                return answer
            failure = frame.parse_error(answer.payload)
            if kind == frame.STARTED and failure.errno == errno.ESRCH:
                raise KernelError(errno.ECANCELED, "shim", "killed during the start; try again")
            raise failure

    def leave_spawn(self, pending: Connection) -> None:
        """Wait no more for a begun spawn, which goes on."""
        pending.close()

    def resume_spawn(self, key: str, run: int) -> Connection:
        """Wait again for a begun spawn, perhaps another process's; what `finish_spawn` takes. That
        raises KernelError ESRCH where the task has ended without having been started. NoShim."""
        connect = partial(self.take, start=False)
        return self._asked(connect, frame.STARTED, run=run, key=key, value=run)

    def _successor(self, error: KernelError) -> Connection:
        try:
            return self.connect(start=False)
        except NoShim:
            raise error from None

    def wait(self, key: str, timeout: float | None = None, *, pid: int = 0) -> Exit | None:
        """How task `key` ends; None when it is not known here (then its record is written) or
        there is no shim. `pid`: of the run that is meant, 0 for any; another one is not known.
        TimeoutError after `timeout` seconds; Unavailable when the shim, asked now and then, does
        not answer any more."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                fd = self.take(start=False)
            except NoShim:
                return None
            try:
                self.ask(fd, frame.WAIT, key=key, value=pid)
                answer = self._receive(fd, patiently=True, deadline=deadline)
            except NoShim:
                fd.close()
                return None
            except KernelError as error:
                fd.close()
                if error.errno in GONE:
                    continue  # its successor knows
                raise self._timed_out(error) from error
            except BaseException:
                fd.close()
                raise
            self.give(fd)
            if answer.kind == frame.EXITED:
                return Exit(answer.arg, answer.value)
            failure = frame.parse_error(answer.payload)
            if failure.errno != errno.ESRCH:
                raise failure
            return None

    def _wait_readable(self, fd: Connection, deadline: float) -> None:
        while not readable(fd.fileno(), min(self.patience, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise TimeoutError
            self.connect(start=False).close()

    def waiter(self, key: str, *, pid: int = 0) -> Connection | None:
        """A connection that becomes readable when task `key` (`pid` as in `wait`) has ended, is not
        known, or the shim has been replaced (then ask again); the caller's. None when there is no
        shim."""
        try:
            connect = partial(self.connect, start=False)
            return self._asked(connect, frame.WAIT, key=key, value=pid)
        except NoShim:
            return None

    def tasks(self, patience: float | None = None) -> dict[str, int]:
        """Every living task's pid by key; empty when no shim runs.

        Unavailable when one runs and does not answer (within `patience` seconds where given): that
        is no reason to take a task for dead.
        """
        found: dict[str, int] = {}
        at = 0
        while True:
            try:
                page = self.request(frame.LIST, value=at, patience=patience)
            except NoShim:
                return {}
            found.update(frame.parse_tasks(page.payload))
            at = page.value
            if at == 0:
                return found

    def signal(self, key: str, signal: int, *, pid: int = 0) -> bool:
        """Send a signal to the task's process (`pid` as in `wait`); False when there is no such
        task any more."""
        return self._tell(frame.SIGNAL, key, signal, pid=pid)

    def resize(self, key: str, rows: int, columns: int) -> bool:
        """Set the size of the task's terminal, in characters."""
        return self._tell(frame.RESIZE, key, rows << 16 | columns)

    def close_stdin(self, key: str) -> bool:
        """Close the task's standard input."""
        return self._tell(frame.CLOSE_STDIN, key, 0)

    def record(self, key: str, directory: int) -> bool:
        """Have the end of the task recorded in `directory` (a descriptor, the caller's), in place of
        one that was deleted. One that has ended already is recorded when this returns."""
        return self._tell(frame.RECORD, key, 0, fds=[directory])

    def attach(self, key: str, flags: int, fds: Sequence[int]) -> bool:
        """Attach client pipes (SPAWN_ATTACH_* flags, their fds in that order)."""
        return self._tell(frame.ATTACH, key, 0, flags, fds)

    def _tell(
        self,
        kind: int,
        key: str,
        arg: int,
        flags: int = 0,
        fds: Sequence[int] = (),
        *,
        pid: int = 0,
    ) -> bool:
        try:
            self.request(kind, key=key, arg=arg, flags=flags, value=pid, fds=fds)
        except NoShim:
            return False
        except KernelError as error:
            if error.errno == errno.ESRCH:
                return False
            raise
        return True
