"""A kernel for unit tests: what the network layer asks of Kernel, without root or a machine.

Owns: the fake's bookkeeping. It shows order, failures and undo; no claim about the real kernel rests
on it. The real one is in the same methods of `pynetns.kernel.Kernel`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import KernelError
from .conntrack import Flow
from .fake_nft import FakeRuleset
from .interfaces import Address, Link, Route
from .nfnetlink import Message
from .process import ProcessIdentity
from .system import port_bind


class FakePending:
    """A namespace begun; see PendingNamespace."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel: FakeKernel | None = kernel

    def finish(self) -> tuple[int, int]:
        assert self._kernel is not None
        kernel, self._kernel = self._kernel, None
        return kernel.netns_create()

    def close(self) -> None:
        self._kernel = None


class FakeKernel:
    """Namespaces and links as sets. `calls` has every call in order; `fail` {method: errno} makes
    the next call of that method fail. Descriptors handed out are real ones, of /dev/null."""

    port_bind = staticmethod(port_bind)

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.addresses: list[Address] = []
        self.routes: list[Route] = []
        self.ruleset = FakeRuleset()
        self.flows: list[Flow] = []
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

    # ---- links ----

    def nl_open(self) -> int:
        return self._fd()

    def add(self, name: str, **facts: Any) -> Link:
        """A link comes into being."""
        self.next_index += 1
        link = self.links[name] = Link(name, self.next_index, **facts)
        return link

    def _link(self, name: str) -> Link:
        if name not in self.links:
            raise KernelError(errno.ENODEV, "link", name)
        return self.links[name]

    def bridge_create(
        self, nl: int, name: str, *, alias: str, mtu: int, address: str, prefix: int
    ) -> int:
        self._call("bridge_create", name, alias, mtu, address, prefix)
        if name in self.links:
            raise KernelError(errno.EEXIST, "bridge", name)
        link = self.add(name, up=True, kind="bridge", alias=alias)
        self.address_add(nl, name, address, prefix)
        return link.ifindex

    def veth_create(self, nl: int, host_name: str, peer_name: str, **options: Any) -> None:
        self._call("veth_create", host_name, peer_name, options)
        if options["master"] not in [link.ifindex for link in self.links.values()]:
            raise KernelError(errno.EINVAL, "veth")
        if host_name in self.links:
            raise KernelError(errno.EEXIST, "veth")
        self.add(host_name, up=True, kind="veth", master=options["master"])

    def link_configure(self, nl: int, *args: Any) -> int:
        self._call("link_configure", *args)
        return 2

    def link_index(self, nl: int, name: str) -> int:
        return self._link(name).ifindex

    def link_set_up(self, nl: int, name: str, up: bool) -> None:
        self._call("link_set_up", name, up)
        self.links[name] = self._link(name)._replace(up=up)

    def link_delete(self, nl: int, name: str) -> None:
        self._call("link_delete", name)
        gone = self.links.pop(name, None)
        if gone is not None:
            self.addresses = [one for one in self.addresses if one.ifindex != gone.ifindex]

    def address_add(self, nl: int, name: str, address: str, prefix: int) -> None:
        packed = socket.inet_aton(address)
        added = Address(self._link(name).ifindex, packed, packed, prefix)
        if added in self.addresses:
            raise KernelError(errno.EEXIST, "address", address)
        self.addresses.append(added)

    def link_get(self, name: str) -> Link | None:
        return self.links.get(name)

    def links_dump(self, master: int = 0) -> list[Link]:
        return [link for link in self.links.values() if master in (0, link.master)]

    def addresses_dump(self) -> list[Address]:
        return list(self.addresses)

    def routes_dump(self) -> list[Route]:
        return list(self.routes)

    def link_sysctl(self, name: str, key: str) -> None:
        self._call("link_sysctl", name, key)

    # ---- rules ----

    def nft_transaction(self, messages: Sequence[Message]) -> None:
        self._call("nft_transaction", messages)
        self.ruleset.transaction(messages)

    def nft_dump(self, kind: int, body: bytes) -> list[bytes]:
        return self.ruleset.dump(kind, body)

    def conntrack_dump(self, ports: Sequence[int]) -> list[Flow]:
        return list(self.flows)

    def conntrack_delete(self, flow: Flow) -> None:
        self.flows.remove(flow)
