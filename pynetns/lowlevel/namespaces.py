"""Low-level part: network namespaces, usable alone. No engine and no state involved.

    >>> import socket
    >>> with NetworkNamespace.create() as namespace:
    ...     namespace.run(lambda: [name for _, name in socket.if_nameindex()])
    ['lo']

Owns: the life of a namespace as an object, and running code inside. A namespace lives as long as
something holds it: this object's descriptor, a pin, a process in it. links.py puts links into it.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from ..kernel import netns as _namespace
from ..kernel import rtnetlink as _link

__all__ = ["CLONE_NEWNET", "NetworkNamespace"]

CLONE_NEWNET = 0x40000000
P = ParamSpec("P")
T = TypeVar("T")


class NetworkNamespace:
    """A network namespace held by a descriptor. A context manager; `close` lets go of it.

    Made by `create` or `open`. Safe to use from several threads, but for `netlink`, which is one
    socket.
    """

    def __init__(self, fd: int, netlink: int = -1) -> None:
        """Take over namespace descriptor `fd` and rtnetlink socket `netlink` inside (-1: none)."""
        self.fd = fd
        self._netlink = netlink

    @classmethod
    def create(cls, *, ipv6_off: bool = True, lo_up: bool = True) -> NetworkNamespace:
        """A new namespace. `ipv6_off`: no IPv6 on any of its links, present or future.

        The calling thread stays where it is. Raises KernelError (EPERM without CAP_SYS_ADMIN).
        Source: network_namespaces(7), clone(2).
        """
        return cls(*_namespace.netns_create(ipv6_off=ipv6_off, lo_up=lo_up))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> NetworkNamespace:
        """The namespace of a pin, or of a process (`/proc/<pid>/ns/net`).

        Raises KernelError: ENOENT, or EINVAL for a file that is no network namespace.
        """
        return cls(_namespace.ns_open(os.fspath(path), CLONE_NEWNET))

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Keep the namespace alive as `path`, a file that must not exist, until `delete`.

        `ip netns exec NAME` finds it when `path` is /run/netns/NAME. Raises KernelError, EEXIST
        among others. Source: mount(2), MS_BIND of a namespace file.
        """
        _namespace.ns_pin(self.fd, os.fspath(path))

    @staticmethod
    def delete(path: str | os.PathLike[str]) -> None:
        """Undo `pin`; an absent file is fine. The namespace ends when nothing else holds it."""
        _namespace.ns_unpin(os.fspath(path))

    def fileno(self) -> int:
        """The namespace's descriptor, for setns(2) or a veth's `peer_netns`."""
        return self.fd

    def netlink(self) -> int:
        """An rtnetlink socket that acts inside, owned by this object. One thread at a time."""
        if self._netlink < 0:
            self._netlink = self.run(_link.nl_open)
        return self._netlink

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` inside the namespace and return its result, or raise what it raised.

        It runs on a thread of its own, which enters and is ended afterwards. Sockets opened and
        processes started there stay in the namespace. /proc/net is that of the main thread; the
        thread's own is /proc/thread-self/net. KernelError when it cannot be entered. setns(2).
        """
        future: Future[T] = Future()

        def inside() -> None:
            try:
                _namespace.ns_enter(self.fd, CLONE_NEWNET)
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(inside,), name="pynetns-netns")
        thread.start()
        thread.join()
        return future.result()

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        fds, self.fd, self._netlink = (self.fd, self._netlink), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
