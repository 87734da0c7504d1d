"""Typed wrapper of csrc/namespace.c: network namespaces and namespace files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..errors import KernelError
from ..forks import note
from ..trace import Span, add_spans
from .lib import call, ffi, lib, out_fd, path, raise_error


def netns_create(*, ipv6_off: bool = True, lo_up: bool = True) -> tuple[int, int]:
    """A new network namespace: (its fd, an rtnetlink socket inside it), both the caller's.

    The calling thread stays where it is. Source: clone(2), network_namespaces(7).
    """
    flags = (lib.PN_NETNS_IPV6_OFF if ipv6_off else 0) | (lib.PN_NETNS_LO_UP if lo_up else 0)
    fds = ffi.new("int[2]", [-1, -1])
    try:
        call(lib.pn_netns_create, flags, fds, fds + 1)
        return fds[0], fds[1]
    except BaseException:  # a signal handler's, after the call
        _close(fds)
        raise


class PendingNamespace:
    """A network namespace in the making on a thread of C's own; `finish` or `close` it once."""

    def __init__(self, *, ipv6_off: bool = True, lo_up: bool = True) -> None:
        flags = (lib.PN_NETNS_IPV6_OFF if ipv6_off else 0) | (lib.PN_NETNS_LO_UP if lo_up else 0)
        # Both are lists of what is still ours: what is handed over is taken out in the same line,
        # so that an exception between any two (a signal handler's) finds either or.
        self._jobs: list[Any] = [ffi.new("struct pn_netns_job **")]
        self._made: list[Any] = []
        note(self)
        call(lib.pn_netns_begin, flags, self._jobs[0])

    def descriptors(self) -> Iterable[int]:
        """Those made and not handed over; of those in the making the C side tells a forked child."""
        return [fd for fds in self._made for fd in fds]

    def wait(self) -> None:
        """Wait for it: `finish` returns at once then. Idempotent."""
        if not self._made:
            self._wait()

    def finish(self) -> tuple[int, int]:
        """Wait for it: (its fd, an rtnetlink socket inside it), both the caller's."""
        self.wait()
        return tuple(self._made.pop())

    def _wait(self) -> None:
        error = ffi.new("struct pn_error *")
        times = ffi.new("int64_t[2]")
        fds = ffi.new("int[2]", [-1, -1])
        self._made.append(fds)
        result = lib.pn_netns_finish(self._jobs.pop()[0], fds, fds + 1, times, error)
        if result < 0:
            raise_error(error)
        add_spans([Span("netns_create", times[0], times[1], "thread")])

    def close(self) -> None:
        """Give up whatever was not handed over by `finish`. Idempotent."""
        if self._jobs and self._jobs[0][0] != ffi.NULL:
            with suppress(KernelError):  # it was not made: all the better
                self._wait()
        while self._made:
            _close(self._made.pop())

    def __del__(self) -> None:
        if hasattr(self, "_made"):
            self.close()


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def ns_pin(fd: int, where: str) -> None:
    """Bind mount namespace `fd` on the new file `where`, which keeps it alive."""
    call(lib.pn_ns_pin, fd, path(where))


def ns_unpin(where: str) -> None:
    """Undo `ns_pin`; an absent file is fine."""
    call(lib.pn_ns_unpin, path(where))


def ns_open(where: str, nstype: int = 0) -> int:
    """Open a namespace file; `nstype` is the CLONE_NEW* constant it must be of, 0 for any."""
    return out_fd(lib.pn_ns_open, path(where), nstype)


def ns_enter(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into the namespace. It must not be handed back afterwards."""
    call(lib.pn_ns_enter, fd, nstype)
