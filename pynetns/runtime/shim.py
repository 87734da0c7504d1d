"""The client of the shim: requests and answers over its socket; starts it where none runs.

Owns: connections. Thread-safe (a connection is used by one thread at a time) and fork-safe (a forked
child opens its own). The protocol is described in docs/shim-protocol.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import KernelError, System, Unavailable, remedy_of
from ..kernel import frame
from ..kernel.frame import Frame
from ..kernel.lib import shim_path
from ..trace import step

_NO_SHIM = {errno.ENOENT, errno.ECONNREFUSED}
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}


class NoShim(Unavailable):
    """No shim runs: nobody listens. Everything else that keeps from asking it (no descriptor left,
    no permission, another protocol) says nothing about its tasks and is another exception."""


class Exit(NamedTuple):
    """How a task ended: exit code (128 + n after signal n) and time, ns since the epoch."""

    code: int
    finished: int


class ShimClient:
    """Talks to the shim of one exec root.

    `cgroup_procs` is asked when one is started: cgroup.procs files, open for writing, of the
    cgroups that it shall enter before its first task; they are closed here.
    """

    def __init__(
        self, exec_root: str, cgroup_procs: Callable[[], Sequence[int]] = lambda: ()
    ) -> None:
        self.exec_root = exec_root
        self._cgroup_procs = cgroup_procs
        self._lock = threading.Lock()
        self._idle: list[int] = []
        self._pid = os.getpid()

    # ---- connections ----

    def _socket(self) -> int:
        """A connected socket. NoShim, or Unavailable where it cannot be told."""
        try:
            return self._connected()
        except (OSError, KernelError) as error:
            if isinstance(error, OSError) and error.errno in _NO_SHIM:
                raise NoShim(f"no shim runs in {self.exec_root}") from error
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Unavailable(
                f"the shim of {self.exec_root} cannot be reached: {why}{remedy_of(error.errno)}"
            ) from error

    def _connected(self) -> int:
        """The path is short whatever the exec root's length."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        root = os.open(self.exec_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{root}/shim.sock")
            fd = sock.detach()
        finally:
            os.close(root)
            sock.close()
        try:
            frame.send(fd, frame.HELLO, arg=frame.PROTOCOL)
            hello = frame.receive(fd)
        except BaseException:
            os.close(fd)
            raise
        if hello.kind != frame.HELLO or hello.arg != frame.PROTOCOL:
            os.close(fd)
            raise System(
                f"the shim of {self.exec_root} speaks another version of the protocol: "
                "stop its containers first"
            )
        return fd

    def connect(self, *, start: bool = True) -> int:
        """A new connection, the caller's to close. NoShim when `start` is false and none runs;
        Unavailable when it cannot be reached."""
        try:
            return self._socket()
        except NoShim:
            if not start:
                raise
        with step("start_shim"), self._start_lock():
            try:
                return self._socket()  # another process was faster
            except NoShim:
                self._start()
            return self._socket()

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        fd = os.open(f"{self.exec_root}/shim.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _start(self) -> None:
        """Run the shim; it listens when its first process has ended."""
        complaint, child_end = os.pipe2(os.O_CLOEXEC)
        procs = sorted(self._cgroup_procs())  # so that no target is a later one's source
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, child_end, 2),
            *((os.POSIX_SPAWN_DUP2, fd, 3 + at) for at, fd in enumerate(procs)),
        ]
        words = ["pynetns-shim", self.exec_root, str(len(procs))]
        try:
            pid = os.posix_spawn(shim_path(), words, {}, file_actions=actions)
            os.close(child_end)
            child_end = -1
            status = 0
            try:
                status = os.waitpid(pid, 0)[1]
            except ChildProcessError:  # the program around us reaps its children itself
                os.read(complaint, 1)
            if status:
                text = os.read(complaint, 4096).decode("utf-8", "replace").strip()
                raise Unavailable(text or f"the shim did not start (status {status})")
        except OSError as error:
            raise Unavailable(f"shim {shim_path()} : {error.strerror}") from error
        finally:
            os.close(complaint)
            if child_end >= 0:
                os.close(child_end)
            for fd in procs:
                os.close(fd)

    def _take(self, start: bool) -> int:
        with self._lock:
            if self._pid != os.getpid():  # forked: these are the parent's
                for fd in self._idle:
                    os.close(fd)
                self._idle, self._pid = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        return self.connect(start=start)

    def _give(self, fd: int) -> None:
        with self._lock:
            self._idle.append(fd)

    def alive(self) -> bool:
        """Whether the shim is there. Cheap: a look at a connection that is open anyway."""
        try:
            fd = self._take(start=False)
        except NoShim:
            return False
        if _readable(fd, 0):  # nobody asked anything: this is its end
            os.close(fd)
            return self._replaced()
        self._give(fd)
        return True

    def _replaced(self) -> bool:
        """After a dead connection: is there another shim by now?"""
        with self._lock:
            stale, self._idle = self._idle, []
        for fd in stale:
            os.close(fd)
        try:
            self._give(self.connect(start=False))
        except NoShim:
            return False
        return True

    def close(self) -> None:
        """Close the idle connections. Tasks go on."""
        with self._lock:
            while self._idle:
                os.close(self._idle.pop())

    # ---- requests ----

    def request(
        self, kind: int, *, key: str = "", flags: int = 0, arg: int = 0, fds: Sequence[int] = ()
    ) -> Frame:
        """One request and its answer. KernelError as the shim reports it (ESRCH: no such task)."""
        return self._answer(self._send(kind, key=key, flags=flags, arg=arg, fds=fds))

    def _send(
        self,
        kind: int,
        *,
        key: str,
        flags: int,
        arg: int = 0,
        hold: int = 0,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        start: bool = False,
    ) -> int:
        """Send a request; the connection on which its answer comes. One found dead is replaced
        once, since then nothing of the request arrived."""
        for attempt in (1, 2):
            fd = self._take(start)
            try:
                frame.send(
                    fd, kind, key=key, flags=flags, arg=arg, hold=hold, payload=payload, fds=fds
                )
            except KernelError as error:
                os.close(fd)
                if error.errno in _GONE and attempt == 1:
                    continue
                raise
            return fd
        raise AssertionError("unreachable")

    def _answer(self, fd: int) -> Frame:
        try:
            answer = frame.receive(fd)
        except BaseException:
            os.close(fd)
            raise
        self._give(fd)
        if answer.kind == frame.ERROR:
            raise frame.parse_error(answer.payload)
        return answer

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
        """Have a plan run as task `key`; what `finish_spawn` takes, exactly once. `first_fds`: log,
        record, attach in/out/err as `flags` say."""
        if len(plan) <= frame.FRAME_MAX - 512:
            return self._send(
                frame.SPAWN,
                key=key,
                flags=flags,
                hold=len(hold_fds),
                payload=plan,
                fds=[*first_fds, *hold_fds, *plan_fds],
                start=True,
            )
        memfd = os.memfd_create("pynetns-plan")
        try:
            os.write(memfd, plan)
            return self._send(
                frame.SPAWN,
                key=key,
                flags=flags | frame.SPAWN_MEMFD,
                hold=len(hold_fds),
                fds=[memfd, *first_fds, *hold_fds, *plan_fds],
                start=True,
            )
        finally:
            os.close(memfd)

    def finish_spawn(self, pending: int) -> Frame:
        """Wait until the program of a begun spawn has been executed. KernelError when it was not."""
        return self._answer(pending)

    def wait(self, key: str, timeout: float | None = None) -> Exit | None:
        """How task `key` ends; None when it is not known here (then its record is written) or
        there is no shim. TimeoutError after `timeout` seconds."""
        try:
            fd = self._take(start=False)
        except NoShim:
            return None
        try:
            frame.send(fd, frame.WAIT, key=key)
            if timeout is not None and not _readable(fd, timeout):
                raise TimeoutError
            answer = frame.receive(fd)
        except KernelError as error:
            os.close(fd)
            if error.errno in _GONE:
                return None
            raise
        except BaseException:
            os.close(fd)
            raise
        self._give(fd)
        return Exit(answer.arg, answer.value) if answer.kind == frame.EXITED else None

    def waiter(self, key: str) -> int:
        """A socket that becomes readable when task `key` has ended (or is not known); the
        caller's. -1 when there is no shim."""
        try:
            fd = self.connect(start=False)
        except NoShim:
            return -1
        try:
            frame.send(fd, frame.WAIT, key=key)
        except KernelError as error:
            os.close(fd)
            if error.errno in _GONE:
                return -1
            raise
        return fd

    def tasks(self) -> dict[str, int]:
        """Every living task's pid by key; empty when no shim runs, Unavailable when it cannot be
        asked."""
        try:
            fd = self.connect(start=False)
        except NoShim:
            return {}
        found: dict[str, int] = {}
        try:
            frame.send(fd, frame.LIST)
            while True:
                answer = frame.receive(fd)
                if answer.kind != frame.TASK:
                    return found
                found.update(frame.parse_tasks(answer.payload))
        finally:
            os.close(fd)

    def signal(self, key: str, signal: int) -> bool:
        """Send a signal to the task's process; False when there is no such task any more."""
        return self._tell(frame.SIGNAL, key, signal)

    def resize(self, key: str, rows: int, columns: int) -> bool:
        """Set the size of the task's terminal, in characters."""
        return self._tell(frame.RESIZE, key, rows << 16 | columns)

    def close_stdin(self, key: str) -> bool:
        """Close the task's standard input."""
        return self._tell(frame.CLOSE_STDIN, key, 0)

    def attach(self, key: str, flags: int, fds: Sequence[int]) -> bool:
        """Attach client pipes (SPAWN_ATTACH_* flags, their fds in that order)."""
        return self._tell(frame.ATTACH, key, 0, flags, fds)

    def _tell(self, kind: int, key: str, arg: int, flags: int = 0, fds: Sequence[int] = ()) -> bool:
        try:
            self.request(kind, key=key, arg=arg, flags=flags, fds=fds)
        except KernelError as error:
            if error.errno == errno.ESRCH or error.errno in _GONE:
                return False
            raise
        except NoShim:
            return False
        return True


def _readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout * 1000 + 0.999))))
