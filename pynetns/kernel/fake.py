"""A kernel for unit tests: what the network layer asks of Kernel, without root or a machine.

Owns: the fake's bookkeeping. It shows order, failures and undo; no claim about the real kernel rests
on it. The real one is in the same methods of `pynetns.kernel.Kernel`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from ..errors import KernelError
from .process import ProcessIdentity


class FakePending:
    """A namespace begun; see PendingNamespace."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel: FakeKernel | None = kernel

    def wait(self) -> None:
        pass

    def finish(self) -> tuple[int, int]:
        assert self._kernel is not None
        kernel, self._kernel = self._kernel, None
        return kernel.netns_create()

    def close(self) -> None:
        self._kernel = None


class FakeKernel:
    """Namespaces and links as sets. `calls` has every call in order; `fail` {method: errno} makes
    the next call of that method fail. Descriptors handed out are real ones, of /dev/null."""

    def __init__(self) -> None:
        self.links: dict[str, int] = {}
        self.pins: set[str] = set()
        self.calls: list[tuple[str, Any]] = []
        self.fail: dict[str, int] = {}
        self.next_index = 10

    def _call(self, name: str, *args: Any) -> None:
        self.calls.append((name, args))
        if name in self.fail:
            raise KernelError(self.fail.pop(name), name)

    @staticmethod
    def _fd() -> int:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def netns_create(self, *, ipv6_off: bool = True, lo_up: bool = True) -> tuple[int, int]:
        self._call("netns_create", ipv6_off, lo_up)
        return self._fd(), self._fd()

    def netns_begin(self, *, ipv6_off: bool = True, lo_up: bool = True) -> FakePending:
        return FakePending(self)

    def ns_pin(self, fd: int, path: str) -> None:
        self._call("ns_pin", path)
        Path(path).touch()
        self.pins.add(path)

    def ns_unpin(self, path: str) -> None:
        self._call("ns_unpin", path)
        Path(path).unlink(missing_ok=True)
        self.pins.discard(path)

    def ns_open(self, path: str, nstype: int = 0) -> int:
        self._call("ns_open", path, nstype)
        return self._fd()

    def process_namespace(self, identity: ProcessIdentity, kind: str) -> int:
        self._call("process_namespace", identity, kind)
        return self._fd()

    def nl_open(self) -> int:
        return self._fd()

    def add(self, name: str) -> None:
        """A link comes into being."""
        self.next_index += 1
        self.links[name] = self.next_index

    def veth_create(self, nl: int, host_name: str, peer_name: str, **options: Any) -> None:
        self._call("veth_create", host_name, peer_name, options)
        if options["master"] not in self.links.values():
            raise KernelError(errno.EINVAL, "veth")
        if host_name in self.links:
            raise KernelError(errno.EEXIST, "veth")
        self.add(host_name)

    def link_configure(self, nl: int, *args: Any) -> int:
        self._call("link_configure", *args)
        return 2

    def link_index(self, nl: int, name: str) -> int:
        if name not in self.links:
            raise KernelError(errno.ENODEV, "link")
        return self.links[name]

    def link_delete(self, nl: int, name: str) -> None:
        self._call("link_delete", name)
        self.links.pop(name, None)
