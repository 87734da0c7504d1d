"""What a forked child must not keep of its parent's: locks, ends of pipes, sockets, namespaces.

Owns: who holds descriptors that others wait for this process to let go of, the moment at which they
are opened and closed, what is made anew in a child, and the order of it all. Knows nothing of what the
descriptors are for.

A child that lives on would hold its copies long after its parent has closed its own or was killed: a
lock stays taken, a pipe never ends, a port and an address stay in use. So the child loses them in the
fork. They are overwritten with a descriptor that does nothing, not closed: a frame of the thread that
forked may still close the number, which must be nobody else's by then.

What is opened by `alone`, for a holder that is noted, cannot be missed by a fork in another thread.
The hooks are run by os.fork() and whatever uses it; of a fork(2) in somebody's C code nothing is known
here. fork(2), flock(2), pipe(7).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

_T = TypeVar("_T")


class Holder(Protocol):
    """Something that holds descriptors."""

    def descriptors(self) -> Iterable[int]:
        """Those that are open now."""


class Forked(Protocol):
    """Something that a child makes anew."""

    def forked(self) -> None:
        """In the child, where no other thread is: forget what is the parent's, make locks anew."""


class Hooks(NamedTuple):
    """What somebody does around a fork; `before` may wait for others, but for nobody in `alone`."""

    before: Callable[[], None]
    in_parent: Callable[[], None]
    in_child: Callable[[], None]


class _Process:
    """What there is once in a process."""

    lock = threading.RLock()
    holders: ClassVar[dict[int, weakref.ref[Any]]] = {}  # by id
    anew: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
    hooks: ClassVar[list[Hooks]] = []


def alone(work: Callable[[], _T]) -> _T:
    """Run `work` while no thread forks; what it returns. For what opens or closes a descriptor that
    matters: never for what may take long, never within a transaction of the store.

    Not a `with`, and left twice, since a signal handler may raise between any two lines.
    """
    try:
        try:
            _Process.lock.acquire()
            return work()
        finally:
            _leave()
    finally:
        _leave()


def _leave() -> None:
    release(_Process.lock)


def release(lock: threading.RLock) -> None:
    """Release a lock as often as this thread holds it, be it never."""
    try:
        while True:
            lock.release()
    except RuntimeError:
        pass  # not ours (any more)


def note(holder: Holder) -> None:
    """A child must not keep what `holder` holds, now or at any time while it lives."""
    key = id(holder)
    _Process.holders[key] = weakref.ref(holder, lambda _: _Process.holders.pop(key, None))


def make_anew(owner: Forked) -> None:
    """Have `owner.forked()` called in every child."""
    _Process.anew.add(owner)


def around(hooks: Hooks) -> None:
    """Have these called around every fork, `before` with nobody opening or closing anything."""
    _Process.hooks.append(hooks)


class Descriptors(list[int]):
    """Descriptors that `close` closes, or its own end, and that a forked child does not keep. What
    opens one puts it in within the same line, so that an exception between any two lines finds it in
    here."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        super().__init__(fds)
        note(self)

    def descriptors(self) -> Iterable[int]:
        return list(self)

    def open(self, make: Callable[..., int], *args: Any) -> int:
        """What `make(*args)` opens, held from the first moment. For what takes no time."""
        alone(lambda: self.append(make(*args)))
        return self[-1]

    def pipe(self) -> tuple[int, int]:
        """A new pipe: its read end and its write end."""
        alone(lambda: self.extend(os.pipe2(os.O_CLOEXEC)))
        return self[-2], self[-1]

    def close(self) -> None:
        """Close them all. Idempotent."""
        self.close_all_but(())

    def close_all_but(self, kept: Container[int]) -> None:
        """Close those that are not in `kept`. Idempotent."""
        for fd in [fd for fd in self if fd not in kept]:
            # in one line: an interrupt finds it closed or in here
            alone(lambda fd=fd: os.close(self.pop(self.index(fd))))  # type: ignore[misc]

    def take(self, fd: int) -> int:
        """No longer hold `fd`, which is the caller's; the same is returned."""
        self.remove(fd)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        while self:  # without `alone`: a collector may come while a fork waits for its thread
            os.close(self.pop())


def _before() -> None:
    _Process.lock.acquire()
    for hooks in _Process.hooks:
        hooks.before()


def _in_parent() -> None:
    for hooks in _Process.hooks:
        hooks.in_parent()
    _leave()


def _in_child() -> None:
    _Process.lock = threading.RLock()
    _overwrite([fd for fd in _held() if fd >= 0])
    for hooks in _Process.hooks:
        hooks.in_child()
    for owner in list(_Process.anew):
        owner.forked()


def _held() -> list[int]:
    holders = [ref() for ref in list(_Process.holders.values())]
    return [fd for holder in holders if holder is not None for fd in holder.descriptors()]


def _overwrite(fds: list[int]) -> None:
    """Close these files but not their numbers."""
    if not fds:
        return
    first, *others = fds
    os.close(first)  # so that there is room for one
    dead = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    for fd in others if dead == first else fds:
        os.dup2(dead, fd, inheritable=False)
    if dead != first:
        os.close(dead)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
