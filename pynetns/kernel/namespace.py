"""Typed wrapper of csrc/namespace.c: network namespaces and namespace files."""

from __future__ import annotations

import os
from typing import Any

from ..errors import KernelError
from ..trace import Span, add_spans
from .lib import call, ffi, lib, out_fd, path


def netns_create(*, ipv6_off: bool = True, lo_up: bool = True) -> tuple[int, int]:
    """A new network namespace: (its fd, an rtnetlink socket inside it), both the caller's.

    The calling thread stays where it is. Source: clone(2), network_namespaces(7).
    """
    flags = (lib.PN_NETNS_IPV6_OFF if ipv6_off else 0) | (lib.PN_NETNS_LO_UP if lo_up else 0)
    fds = ffi.new("int[2]", [-1, -1])
    call(lib.pn_netns_create, flags, fds, fds + 1)
    return fds[0], fds[1]


class PendingNamespace:
    """A network namespace in the making on a thread of C's own; `finish` or `close` it once."""

    def __init__(self, *, ipv6_off: bool = True, lo_up: bool = True) -> None:
        flags = (lib.PN_NETNS_IPV6_OFF if ipv6_off else 0) | (lib.PN_NETNS_LO_UP if lo_up else 0)
        job = ffi.new("struct pn_netns_job **")
        call(lib.pn_netns_begin, flags, job)
        self._job: Any = job[0]

    def finish(self) -> tuple[int, int]:
        """Wait for it: (its fd, an rtnetlink socket inside it), both the caller's."""
        job, self._job = self._job, None
        fds = ffi.new("int[2]", [-1, -1])
        times = ffi.new("int64_t[2]")
        call(lib.pn_netns_finish, job, fds, fds + 1, times)
        add_spans([Span("netns_create", times[0], times[1], "thread")])
        return fds[0], fds[1]

    def close(self) -> None:
        """Give it up, if `finish` was not called."""
        if self._job is None:
            return
        try:
            for fd in self.finish():
                os.close(fd)
        except KernelError:
            pass  # it was not made: all the better


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
