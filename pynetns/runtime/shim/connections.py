"""The way to the shim of an exec root: connections that are open, made anew, or to a shim just started.

Owns: sockets, the greeting, the start lock. Thread-safe (a connection is used by one thread at a time)
and fork-safe (a forked child opens its own). What is asked on a connection is client.py's. Starting, and
what "nobody is there" means, is described in docs/shim-protocol.md.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ... import locks
from ...errors import KernelError, System, Unavailable, remedy_of
from ...forks import Descriptors, alone, make_anew, note
from ...kernel import frame
from ...kernel.lib import shim_path
from ...trace import step

# A shim answers within a fraction of a millisecond; what takes longer is looked into.
PATIENCE = 10.0
GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}
TIMED_OUT = {errno.EAGAIN, errno.ETIMEDOUT}
_NO_SHIM = {errno.ENOENT, errno.ECONNREFUSED}


class NoShim(Unavailable):
    """There is no shim: nothing listens at the exec root's socket. Whatever else keeps from asking it
    (no descriptor left, no permission, another protocol) says nothing about its tasks."""


class Connection(Descriptors):
    """A connection, used by one thread at a time; closed at its end or by `close`. `serial` is that of
    its last request, `run` the one that was begun on it."""

    serial = 0
    run = 0

    def fileno(self) -> int:
        return self[0]


class _Connecting(socket.socket):
    """A socket, not connected yet."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        note(self)

    def descriptors(self) -> Iterable[int]:
        return (self.fileno(),)


class ShimConnections:
    """Connections to the shim of one exec root.

    `cgroup_procs` opens the `cgroup.procs` files that a newly started shim moves itself into (one
    of each hierarchy), so that it does not stay in its starter's cgroups; the client closes them.
    `patience`: seconds after which a shim that does not answer is Unavailable.
    """

    def __init__(
        self,
        exec_root: str,
        *,
        cgroup_procs: Callable[[], Sequence[int]] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.exec_root = exec_root
        self.patience = patience
        self._cgroup_procs = cgroup_procs
        self._idle: list[
            Connection
        ] = []  # a list's own methods need no lock, which a fork could meet
        self._serials = itertools.count(1)
        make_anew(self)

    def forked(self) -> None:
        while self._idle:  # the parent's
            self._idle.pop().close()

    def unavailable(self, why: str) -> Unavailable:
        """The error that says what is wrong with the shim, and what helps."""
        return Unavailable(
            f"the shim of {self.exec_root} cannot be reached: it does not answer, {why}; its containers "
            "run on. Look at the "
            "processes pynetns-shim and pynetns-keeper (stopped, frozen, out of descriptors?): when "
            "the shim is killed (SIGKILL), the keeper starts another that takes over"
        )

    def _socket(self) -> Connection:
        """A connected socket. The path is short whatever the exec root's length.

        NoShim when nobody listens; Unavailable when somebody does and does not answer, or when
        that cannot be told.
        """
        try:
            return self._greeted_socket()
        except OSError as error:
            raise Unavailable(
                f"the shim of {self.exec_root} cannot be reached: {error.strerror}{remedy_of(error.errno)}"
            ) from error

    def _greeted_socket(self) -> Connection:
        connection = Connection()
        with Descriptors() as fds:
            root = fds.open(os.open, self.exec_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._open(connection, f"/proc/self/fd/{root}/shim.sock")
            except OSError as error:
                if error.errno in _NO_SHIM:
                    raise NoShim(f"no shim at {self.exec_root}") from error
                if error.errno in TIMED_OUT:
                    raise self.unavailable("it accepts no connection") from error
                raise
        self._greet(connection)
        return connection

    def _open(self, connection: Connection, path: str) -> None:
        """Connect to the socket `path`."""
        limit = struct.pack("ll", int(self.patience), int(self.patience % 1 * 1_000_000))
        with alone(_Connecting) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.connect(path)  # may take as long
            alone(lambda: connection.append(sock.detach()))

    def _greet(self, connection: Connection) -> None:
        try:
            frame.send(connection.fileno(), frame.HELLO, arg=frame.PROTOCOL)
            hello = frame.receive(connection.fileno())
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

    def connect(self, *, start: bool = True) -> Connection:
        """A new connection, the caller's to close. NoShim when `start` is false and none runs;
        Unavailable when one runs and does not answer, or none can be started."""
        try:
            return self._connect_again()
        except NoShim:
            if not start:
                raise
        with step("start_shim"), locks.take(f"{self.exec_root}/shim.lock"):
            try:
                return self._connect_again()  # another process was faster
            except NoShim:
                self._start()
            return self._connect_again()

    def _connect_again(self) -> Connection:
        """A shim that was killed while it greeted us has a successor on the same socket."""
        for _ in range(20):
            try:
                return self._socket()
            except NoShim as error:
                if not isinstance(error.__cause__, KernelError):
                    raise
                gone = error
        raise gone

    def _start(self) -> None:
        """Run the shim; it listens when its first process has ended."""
        with Descriptors() as fds:
            self._start_with(fds)

    def _start_with(self, fds: Descriptors) -> None:
        complaint, child_end = fds.pipe()
        try:
            if self._cgroup_procs is not None:
                fds.extend(self._cgroup_procs())
            pid = self._spawn_shim(child_end, fds[2:])
            fds.close_all_but((complaint,))
            status = 0
            with suppress(ChildProcessError):  # the program around us reaps its children itself
                status = os.waitpid(pid, 0)[1]
            text = os.read(complaint, 4096).decode("utf-8", "replace").strip()
            if status or text:
                raise Unavailable(text or f"the shim did not start (status {status})")
        except OSError as error:
            raise Unavailable(f"shim {shim_path()} : {error.strerror}") from error

    def _spawn_shim(self, complaint: int, procs: Sequence[int]) -> int:
        """The shim's descriptors: 0 and 1 /dev/null, 2 for complaints, from 3 on `procs`."""
        high = Descriptors()
        for fd in procs:
            high.open(fcntl.fcntl, fd, fcntl.F_DUPFD_CLOEXEC, 16 + len(procs))
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, complaint, 2),
            *((os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(high)),
        ]
        with high:
            return os.posix_spawn(
                shim_path(),
                ["pynetns-shim", self.exec_root, str(len(procs))],
                {},
                file_actions=actions,
                setsigmask=(),
            )

    def take(self, start: bool) -> Connection:
        """An idle connection, or a new one; `connect`'s exceptions."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not readable(connection.fileno(), 0):
                    return connection
                connection.close()  # nobody asked anything: this is its end
        return self.connect(start=start)

    def ask(self, connection: Connection, kind: int, **fields: Any) -> None:
        """Send a request (`frame.send`'s fields), to which `answers` tells the answer."""
        connection.serial = next(self._serials) & 0xFFFFFFFF
        frame.send(connection.fileno(), kind, serial=connection.serial, **fields)

    def answers(self, connection: Connection, answer: frame.Frame) -> bool:
        """Whether `answer` is to the last request on `connection`. A shim that is killed after an answer, and
        before it has noted that, has a successor that gives the answer again: perhaps when we have
        taken the first one and asked for something else on the same connection."""
        return answer.serial == connection.serial

    def give(self, connection: Connection) -> None:
        """Keep a connection on which nothing is awaited for the next request."""
        self._idle.append(connection)

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
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def readable(fd: int, timeout: float) -> bool:
    """Whether `fd` can be read (or has ended) within `timeout` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0, int(timeout * 1000 + 0.999))))
