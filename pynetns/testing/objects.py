"""Kernel objects of a fake: they live as long as somebody has a descriptor of them.

Owns: handing out descriptors, telling whose one is, and knowing when the last one is closed, copies that
others made included. Each object is a pipe of which only read ends are given away: the kernel itself
keeps count. pipe(7).
"""

from __future__ import annotations

import os
import select
import stat
from typing import Generic, TypeVar

T = TypeVar("T")


class Handle:
    """The life of one object. The write end stays here, read ends are what others have of it."""

    def __init__(self) -> None:
        reader, self._inside = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.number = os.fstat(reader).st_ino
        os.close(reader)

    def open(self) -> int:
        """A descriptor of the object, the caller's."""
        return os.open(f"/proc/self/fd/{self._inside}", os.O_RDONLY | os.O_CLOEXEC)

    def is_held(self) -> bool:
        """Whether a descriptor of it is open anywhere."""
        poll = select.poll()
        poll.register(self._inside, 0)
        return not any(event & select.POLLERR for _, event in poll.poll(0))

    def announce(self) -> None:
        """Make every descriptor of it readable, as a pidfd is once its process has ended."""
        reader = self.open()  # without a reader the kernel takes nothing
        try:
            os.write(self._inside, b"\n")
        finally:
            os.close(reader)

    def close(self) -> None:
        """The object is gone. Idempotent."""
        inside, self._inside = self._inside, -1
        if inside >= 0:
            os.close(inside)


class Registry(Generic[T]):
    """Objects by the descriptors that lead to them."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Handle, T]] = {}

    def add(self, handle: Handle, thing: T) -> None:
        """Descriptors of `handle` mean `thing` from now on."""
        self._found[handle.number] = handle, thing

    def of(self, fd: int) -> T | None:
        """What a descriptor means; None for one of something else."""
        status = os.fstat(fd)
        if not stat.S_ISFIFO(status.st_mode) or status.st_ino not in self._found:
            return None
        return self._found[status.st_ino][1]

    def drop(self, handle: Handle) -> None:
        """The object is gone."""
        self._found.pop(handle.number, None)
        handle.close()

    def all(self) -> list[T]:
        """Everything that is there."""
        return [thing for _, thing in self._found.values()]

    def clear(self) -> None:
        """Everything is gone."""
        for handle, _ in list(self._found.values()):
            self.drop(handle)
