"""Which process a recorded pid means, and what it has open to others: namespaces and its root.

Owns: the identity of a process beyond its number, which the kernel gives to another one as soon as it
is free. Whoever enters or opens something of a recorded process does it through here, never by a bare
pid. The order is always the same: open by number, then compare when that process started. What was
opened stays that process's, whoever gets its number later. proc(5), pidfd_open(2).

    >>> identity = ProcessIdentity.of(os.getpid())
    >>> os.close(process_namespace(identity, "net"))
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..errors import System
from ..forks import Descriptors
from .pidfd import ended, stat_fields

__all__ = [
    "ProcessIdentity",
    "Recorded",
    "boot_id",
    "proc_shows",
    "process_directory",
    "process_lives",
    "process_namespace",
    "process_root",
    "recorded",
    "start_ticks",
]


_PF_EXITING = 0x4  # include/linux/sched.h


@functools.cache
def boot_id() -> str:
    """The running kernel's boot id. Raises System without /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        raise System(f"boot id : {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for ever: number, start in clock ticks since boot, boot id of its kernel."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """That of the process which has `pid` now; ProcessLookupError when there is none."""
        ticks = start_ticks(pid)
        if ticks == 0:
            raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone")
        return cls(pid, ticks, boot_id())

    def lives(self) -> bool:
        """Whether it has not ended. OSError when that cannot be told (no descriptor left)."""
        letter, ticks = self._look()
        if not ticks or letter not in (b"Z", b"X"):
            return bool(ticks)
        try:
            os.close(self.open())  # not waited for yet; or only its first thread has ended
        except ProcessLookupError:
            return False
        return True

    def is_ending(self) -> bool:
        """Whether it has ended or is on its way out, where namespaces take nobody in any more.
        proc(5), /proc/pid/stat: flags."""
        if self.pid <= 0 or self.boot_id != boot_id():
            return True
        fields = stat_fields(
            self.pid
        )  # one look: what is read is of the process whose start it shows
        if len(fields) <= 19 or int(fields[19]) != self.start_ticks:
            return True
        return bool(int(fields[6]) & _PF_EXITING)

    def open(self) -> int:
        """A pidfd of it, the caller's. ProcessLookupError when it has ended."""
        if self.pid <= 0:
            raise self.gone()
        with Descriptors() as fds:
            try:
                fds.append(os.pidfd_open(self.pid))
            except ProcessLookupError as error:
                raise self.gone() from error
            # after opening: a number that is its now was its all the time
            if self._look()[1] == 0 or ended(fds[0], 0):
                raise self.gone()
            return fds.take(fds[0])

    def _look(self) -> tuple[bytes, int]:
        """State letter and start of the process with its number, (b"", 0) when that is another."""
        if self.pid <= 0 or self.boot_id != boot_id():
            return b"", 0
        letter, ticks = _stat(self.pid)
        return (letter, ticks) if ticks == self.start_ticks else (b"", 0)

    def gone(self) -> ProcessLookupError:
        """The error that says so."""
        return ProcessLookupError(errno.ESRCH, f"process {self.pid} has ended")


class Recorded(Protocol):
    """What names a process: a container's state, or a part of it."""

    @property
    def pid(self) -> int: ...
    @property
    def start_ticks(self) -> int: ...
    @property
    def boot_id(self) -> str: ...


def recorded(state: Recorded) -> ProcessIdentity:
    """The process that a container's state names."""
    return ProcessIdentity(state.pid, state.start_ticks, state.boot_id)


def process_lives(state: Recorded) -> bool:
    """Whether the very process of the state is there."""
    return recorded(state).lives()


def start_ticks(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 when it is already gone. proc(5)."""
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[bytes, int]:
    """State letter and start of a process; (b"", 0) when there is none."""
    fields = stat_fields(pid)
    return (fields[0], int(fields[19])) if len(fields) > 19 else (b"", 0)


def _stat_fields(text: bytes) -> tuple[bytes, int]:
    """(state, start in ticks) of a stat file. The name in it may hold anything, also ")"."""
    fields = text.rpartition(b")")[2].split()
    return fields[0], int(fields[19])


# ---- what a process has open to others ----


@contextmanager
def process_directory(identity: ProcessIdentity) -> Iterator[int]:
    """Its /proc/<pid> as a descriptor, in which nothing of another process is ever found.

    Raises ProcessLookupError when it has ended, before or inside the block.
    """
    if identity.pid <= 0 or identity.boot_id != boot_id():
        raise identity.gone()
    with Descriptors() as fds:
        try:
            fds.append(os.open(f"/proc/{identity.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise identity.gone() from error
        try:
            if not _is_of(fds[0], identity):
                raise identity.gone()
            yield fds[0]
        except OSError as error:
            # of a process that ends meanwhile the kernel says ENOENT, ESRCH or even EACCES
            if isinstance(error, ProcessLookupError) or _is_of(fds[0], identity):
                raise
            raise identity.gone() from error


def _is_of(directory: int, identity: ProcessIdentity) -> bool:
    """Whether a /proc/<pid> belongs to the process, and that has not ended."""
    try:
        with Descriptors() as fds:
            fds.append(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory))
            state, ticks = _stat_fields(os.read(fds[0], 4096))
    except (OSError, IndexError):
        return False
    return ticks == identity.start_ticks and state not in (b"Z", b"X")


def process_namespace(identity: ProcessIdentity, kind: str) -> int:
    """Its namespace of `kind` ("net", "ipc", "pid", …: the names in /proc/<pid>/ns), opened.

    ProcessLookupError when it has ended. namespaces(7).
    """
    with process_directory(identity) as directory:
        return os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)


def proc_shows(proc: int, namespace: int) -> bool:
    """Whether a procfs (a descriptor) shows the processes of a pid namespace. FileNotFoundError when
    the first one of those that it shows has ended. pid_namespaces(7)."""
    wanted = os.fstat(namespace)
    try:
        shown = os.stat("1/ns/pid", dir_fd=proc)
    except PermissionError:  # a process that nothing may be known of, not even by us
        return False
    return (shown.st_dev, shown.st_ino) == (wanted.st_dev, wanted.st_ino)


def process_root(identity: ProcessIdentity) -> int:
    """Its root directory as an O_PATH descriptor, for openat2 with RESOLVE_IN_ROOT.

    ProcessLookupError when it has ended.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with process_directory(identity) as directory:
        return os.open("root", flags, dir_fd=directory)
