"""The way to the shim of an exec root: connections that are open, made anew, or to a shim just started.

Owns: sockets, the greeting, the start lock. Thread-safe (a connection is used by one thread at a time)
and fork-safe (a forked child opens its own). What is asked on a connection is shim.py's. Starting, and
what "nobody is there" means, is described in docs/shim-protocol.md.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ...errors import KernelError, System, Unavailable, remedy_of
from ...kernel import frame
from ...kernel.lib import shim_path
from ...trace import step
from .lost import LostShim, find_lost, wake

log = logging.getLogger("pynetns")

# A shim answers within a fraction of a millisecond; what takes longer is looked into.
PATIENCE = 10.0
GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}
TIMED_OUT = {errno.EAGAIN, errno.ETIMEDOUT}
_NO_SHIM = {errno.ENOENT, errno.ECONNREFUSED}


class NoShim(Unavailable):
    """There is no shim: nothing listens at the exec root's socket. Whatever else keeps from asking it
    (no descriptor left, no permission, another protocol) says nothing about its tasks."""


class ShimConnections:
    """Connections to the shim of one exec root.

    `cgroup_procs` opens the `cgroup.procs` files that a newly started shim moves itself into (one
    of each hierarchy), so that it does not stay in its starter's cgroups; the client closes them.
    `shim_pids`: the processes among which a shim is whose socket has been deleted.
    `patience`: seconds after which a shim that does not answer is Unavailable.
    """

    def __init__(
        self,
        exec_root: str,
        *,
        cgroup_procs: Callable[[], Sequence[int]] | None = None,
        shim_pids: Callable[[], Sequence[int]] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.exec_root = exec_root
        self.patience = patience
        self._cgroup_procs = cgroup_procs
        self._shim_pids = shim_pids
        self._lock = threading.Lock()
        self._idle: list[int] = []
        self._pid = os.getpid()
        self._serials = itertools.count(1)
        self._asked: dict[int, int] = {}  # connection -> serial of its last request
        self._runs: dict[int, int] = {}  # connection -> the run that was begun on it

    def unavailable(self, why: str) -> Unavailable:
        """The error that says what is wrong with the shim, and what helps."""
        return Unavailable(
            f"the shim of {self.exec_root} cannot be reached: it does not answer, {why}; its containers "
            "run on. Look at the "
            "processes pynetns-shim and pynetns-keeper (stopped, frozen, out of descriptors?): when "
            "the shim is killed (SIGKILL), the keeper starts another that takes over"
        )

    def _socket(self, directory: str = "", patience: float | None = None) -> int:
        """A connected socket, to the shim that listens in the exec root, or else in `directory`. The
        path is short whatever the exec root's length.

        NoShim when nobody listens; Unavailable when somebody does and does not answer, or when
        that cannot be told.
        """
        try:
            return self._greeted_socket(directory or self.exec_root, patience)
        except OSError as error:
            raise Unavailable(
                f"the shim of {self.exec_root} cannot be reached: {error.strerror}{remedy_of(error.errno)}"
            ) from error

    def _greeted_socket(self, directory: str, patience: float | None) -> int:
        with ExitStack() as scope:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            scope.callback(sock.close)
            root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            scope.callback(os.close, root)
            limit = struct.pack("ll", int(self.patience), int(self.patience % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            try:
                sock.connect(f"/proc/self/fd/{root}/shim.sock")
            except OSError as error:
                if error.errno in _NO_SHIM:
                    raise NoShim(f"no shim at {self.exec_root}") from error
                if error.errno in TIMED_OUT:
                    raise self.unavailable("it accepts no connection") from error
                raise
            self._greet(sock.fileno(), patience)
            return sock.detach()

    def _greet(self, fd: int, patience: float | None) -> None:
        try:
            frame.send(fd, frame.HELLO, arg=frame.PROTOCOL)
            if patience is not None and not readable(fd, patience):
                raise self.unavailable("no greeting")
            hello = frame.receive(fd)
        except KernelError as error:
            if error.errno in TIMED_OUT:
                raise self.unavailable("no greeting") from error
            if error.errno in GONE:  # it ended while we came
                raise NoShim(f"no shim at {self.exec_root}") from error
            raise
        if hello.kind == frame.ERROR:
            raise self.unavailable(frame.parse_error(hello.payload).detail)
        if hello.kind != frame.HELLO or hello.arg != frame.PROTOCOL:
            raise System(
                f"the shim of {self.exec_root} speaks another version of the protocol: "
                "stop its containers first"
            )

    def connect(self, *, start: bool = True, patience: float | None = None) -> int:
        """A new connection, the caller's to close. NoShim when `start` is false and none runs;
        Unavailable when one runs and does not answer, or none can be started. `patience`: seconds
        in which it has to greet, else the usual."""
        try:
            return self._connect_again(patience)
        except NoShim:
            pids = self._shim_pids() if self._shim_pids is not None else ()
            if not start and not pids:
                raise
        with step("start_shim"), self._start_lock():
            try:
                return self._connect_again()  # another process was faster
            except NoShim:
                if not self._find_again(pids):
                    if not start:
                        raise
                    self._start()
            return self._connect_again()

    def _find_again(self, pids: Sequence[int]) -> bool:
        """Whether a shim that had lost its socket listens in the exec root again. Unavailable when
        there is one that does not answer. The start lock is held."""
        with ExitStack() as scope:
            for lost in find_lost(self.exec_root, pids, scope):
                log.warning(
                    "the socket of the shim of %s is gone: it makes another", self.exec_root
                )
                if not lost.moved:
                    return self._wake(lost)
                with suppress(NoShim):
                    self._bring_home(lost)
                    return True
                if self._wake(lost):
                    self._bring_home(lost)
                    return True
        return False

    def _wake(self, lost: LostShim) -> bool:
        try:
            return wake(lost, self.patience)
        except TimeoutError:
            raise self.unavailable("its socket is gone and it makes no other") from None

    def _bring_home(self, lost: LostShim) -> None:
        """Another file system is mounted in the exec root's place: the shim moves there."""
        root = os.open(self.exec_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = self._socket(f"/proc/self/fd/{lost.home}")
            try:
                self.ask(fd, frame.HOME, fds=[root])
                answer = frame.receive(fd)
            finally:
                os.close(fd)
        finally:
            os.close(root)
        if answer.kind == frame.ERROR:
            raise frame.parse_error(answer.payload)

    def _connect_again(self, patience: float | None = None) -> int:
        """A shim that was killed while it greeted us has a successor on the same socket."""
        for _ in range(20):
            try:
                return self._socket(patience=patience)
            except NoShim as error:
                if not isinstance(error.__cause__, KernelError):
                    raise
                gone = error
        raise gone

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
        procs: list[int] = []
        try:
            if self._cgroup_procs is not None:
                procs = list(self._cgroup_procs())
            pid = self._spawn_shim(child_end, procs)
            os.close(child_end)
            child_end = -1
            status = 0
            with suppress(ChildProcessError):  # the program around us reaps its children itself
                status = os.waitpid(pid, 0)[1]
            text = os.read(complaint, 4096).decode("utf-8", "replace").strip()
            if status or text:
                raise Unavailable(text or f"the shim did not start (status {status})")
        except OSError as error:
            raise Unavailable(f"shim {shim_path()} : {error.strerror}") from error
        finally:
            os.close(complaint)
            for fd in [*procs, *([child_end] if child_end >= 0 else [])]:
                os.close(fd)

    def _spawn_shim(self, complaint: int, procs: Sequence[int]) -> int:
        """The shim's descriptors: 0 and 1 /dev/null, 2 for complaints, from 3 on `procs`."""
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16 + len(procs)) for fd in procs]
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, complaint, 2),
            *((os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(high)),
        ]
        try:
            return os.posix_spawn(
                shim_path(),
                ["pynetns-shim", self.exec_root, str(len(procs))],
                {},
                file_actions=actions,
                setsigmask=(),
            )
        finally:
            for fd in high:
                os.close(fd)

    def take(self, start: bool, patience: float | None = None) -> int:
        """An idle connection, or a new one; `connect`'s exceptions. `patience`: as `connect`'s."""
        with self._lock:
            if self._pid != os.getpid():  # forked: these are the parent's
                for fd in self._idle:
                    os.close(fd)
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                fd = self._idle.pop()
                if not readable(fd, 0):
                    return fd
                os.close(fd)  # nobody asked anything: this is its end
        return self.connect(start=start, patience=patience)

    def ask(self, fd: int, kind: int, **fields: Any) -> None:
        """Send a request (`frame.send`'s fields), to which `answers` tells the answer."""
        self._asked[fd] = serial = next(self._serials) & 0xFFFFFFFF
        frame.send(fd, kind, serial=serial, **fields)

    def answers(self, fd: int, answer: frame.Frame) -> bool:
        """Whether `answer` is to the last request on `fd`. A shim that is killed after an answer, and
        before it has noted that, has a successor that gives the answer again: perhaps when we have
        taken the first one and asked for something else on the same connection."""
        return answer.serial == self._asked.get(fd)

    def give(self, fd: int) -> None:
        """Keep a connection on which nothing is awaited for the next request."""
        with self._lock:
            self._idle.append(fd)

    def alive(self) -> bool:
        """Whether a shim is there. Cheap: a look at a connection that is open anyway.

        Unavailable when one is there and does not answer: that says nothing about its tasks.
        """
        try:
            self.give(self.take(start=False))
        except NoShim:
            return False
        return True

    def close(self) -> None:
        """Close the idle connections. Tasks go on."""
        with self._lock:
            while self._idle:
                os.close(self._idle.pop())


def readable(fd: int, timeout: float) -> bool:
    """Whether `fd` can be read (or has ended) within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout * 1000 + 0.999))))
