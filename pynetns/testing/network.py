"""Links, addresses, rules and flows of a fake machine.

Owns: network namespaces with the links in them, and the refusals that the network layer depends on. The
machine's own namespace is the one with what `links` says; a namespace lives as long as somebody has a
descriptor of it, as its processes have, or it is pinned; its links go with it. rtnetlink(7), veth(4).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import KernelError
from ..kernel.conntrack import Flow
from ..kernel.interfaces import Address, Link, Route
from ..kernel.nfnetlink import Message
from .objects import Handle, Registry
from .ruleset import FakeRuleset


@dataclass(eq=False)
class FakeNetworkNamespace:
    """A network namespace. `links`: interface -> name of its other end in the machine's own;
    `addresses`: interface -> CIDR, `gateways`: interface -> default route."""

    handle: Handle = field(default_factory=Handle)
    pins: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    gateways: dict[str, str] = field(default_factory=dict)

    def is_used(self) -> bool:
        """Whether it lives on."""
        return bool(self.pins) or self.handle.is_held()


class FakeNetwork:
    """The network part of FakeKernel. `links`, `addresses`, `routes`: of the machine's own namespace."""

    def __init__(self) -> None:
        self._inside: Registry[FakeNetworkNamespace] = Registry()
        self._start()

    def _start(self) -> None:
        self.links: dict[str, Link] = {}  # but lo
        loopback = socket.inet_aton("127.0.0.1")
        self.addresses: list[Address] = [Address(1, loopback, loopback, 8)]
        self.routes: list[Route] = []
        self.sysctls: set[tuple[str, str]] = set()  # (link, key) that are on
        self.ruleset = FakeRuleset()
        self.flows: list[Flow] = []
        self._next_index = 10

    def called(self, name: str, *args: Any) -> None:
        """See FakeKernel."""
        raise NotImplementedError

    # ---- what there is ----

    def namespaces(self) -> list[FakeNetworkNamespace]:
        """Those that somebody uses; what nobody uses any more is gone, with its links."""
        for namespace in self._inside.all():
            if not namespace.is_used():
                for end in namespace.links.values():
                    self._remove_link(end)
                self._inside.drop(namespace.handle)
        return self._inside.all()

    @property
    def pins(self) -> set[str]:
        """Where namespaces are pinned."""
        return {where for namespace in self.namespaces() for where in namespace.pins}

    def new_namespace(self) -> tuple[int, int]:
        """One more: two descriptors of it."""
        namespace = FakeNetworkNamespace()
        fds = namespace.handle.open(), namespace.handle.open()
        self._inside.add(namespace.handle, namespace)
        return fds

    def namespace_of(self, fd: int) -> FakeNetworkNamespace | None:
        """The network namespace that a descriptor means."""
        return self._inside.of(fd)

    def published(self) -> list[str]:
        """The tables of rules with the number of ports that each publishes."""
        tables = self.ruleset.tables.items()
        counts = {name: sum(map(len, table.maps.values())) for name, table in tables}
        return [f"table {name}, {count} ports" for name, count in counts.items()]

    def network_left(self) -> list[str]:
        """A line for each thing that is there."""
        found = [f"namespace {' '.join(sorted(ns.pins))}" for ns in self.namespaces()]
        return found + [f"link {name}" for name in self.links] + self.published()

    def network_reboot(self) -> None:
        """Nothing is left."""
        self._inside.clear()
        self._start()

    def own_addresses(self) -> set[str]:
        """What a socket can be bound to."""
        return {"0.0.0.0", *(socket.inet_ntoa(one.local) for one in self.addresses)}

    # ---- links ----

    def add_link(self, name: str, **facts: Any) -> Link:
        """A link of the machine comes into being."""
        self._next_index += 1
        link = self.links[name] = Link(name, self._next_index, **facts)
        return link

    def _link(self, name: str) -> Link:
        self.namespaces()
        if name not in self.links:
            raise KernelError(errno.ENODEV, "link", name)
        return self.links[name]

    def _remove_link(self, name: str) -> None:
        gone = self.links.pop(name, None)
        if gone is None:
            return
        self.addresses = [one for one in self.addresses if one.ifindex != gone.ifindex]
        for other in list(self.links.values()):
            if other.master == gone.ifindex:
                self.links[other.name] = other._replace(master=0)
        for namespace in self._inside.all():
            namespace.links = {
                inside: end for inside, end in namespace.links.items() if end != name
            }

    def nl_open(self) -> int:
        self.called("nl_open")
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def bridge_create(
        self, nl: int, name: str, *, alias: str, mtu: int, address: str, prefix: int
    ) -> int:
        self.called("bridge_create", name, alias, mtu, address, prefix)
        if name in self.links:
            raise KernelError(errno.EEXIST, "bridge", name)
        link = self.add_link(name, up=True, kind="bridge", alias=alias)
        self._add_address(link, address, prefix)
        return link.ifindex

    def veth_create(
        self,
        nl: int,
        host_name: str,
        peer_name: str,
        *,
        peer_netns: int = -1,
        master: int = 0,
        mtu: int = 0,
        peer_mac: bytes = b"",
        hairpin: bool = False,
        no_ipv6: bool = False,
        up: bool = True,
    ) -> None:
        options = {"master": master, "mtu": mtu, "peer_mac": peer_mac, "up": up}
        options |= {"hairpin": hairpin, "no_ipv6": no_ipv6}
        self.called("veth_create", host_name, peer_name, options)
        self.namespaces()
        namespace = self.namespace_of(peer_netns)
        if namespace is None or master not in (0, *(one.ifindex for one in self.links.values())):
            raise KernelError(errno.EINVAL, "veth", host_name)
        if host_name in self.links or peer_name in namespace.links:
            raise KernelError(errno.EEXIST, "veth", host_name)
        self.add_link(host_name, up=up, kind="veth", master=master)
        namespace.links[peer_name] = host_name

    def link_configure(
        self,
        nl: int,
        name: str,
        address: str,
        prefix: int,
        gateway: str | None = None,
        broadcast: str | None = None,
    ) -> int:
        self.called("link_configure", name, address, prefix, gateway, broadcast)
        namespace = self.namespace_of(nl)
        if namespace is None or name not in namespace.links:
            raise KernelError(errno.ENODEV, "link", name)
        namespace.addresses[name] = f"{address}/{prefix}"
        if gateway is not None:
            namespace.gateways[name] = gateway
        return 2

    def link_index(self, nl: int, name: str) -> int:
        self.called("link_index", name)
        return self._link(name).ifindex

    def link_set_up(self, nl: int, name: str, up: bool) -> None:
        self.called("link_set_up", name, up)
        self.links[name] = self._link(name)._replace(up=up)

    def link_delete(self, nl: int, name: str) -> None:
        self.called("link_delete", name)
        self._remove_link(name)

    def address_add(self, nl: int, name: str, address: str, prefix: int) -> None:
        self.called("address_add", name, address, prefix)
        self._add_address(self._link(name), address, prefix)

    def _add_address(self, link: Link, address: str, prefix: int) -> None:
        packed = socket.inet_aton(address)
        added = Address(link.ifindex, packed, packed, prefix)
        if added in self.addresses:
            raise KernelError(errno.EEXIST, "address", address)
        self.addresses.append(added)

    def link_get(self, name: str) -> Link | None:
        self.called("link_get", name)
        self.namespaces()
        return self.links.get(name)

    def links_dump(self, master: int = 0) -> list[Link]:
        self.called("links_dump", master)
        self.namespaces()
        return [link for link in self.links.values() if master in (0, link.master)]

    def addresses_dump(self) -> list[Address]:
        self.called("addresses_dump")
        return list(self.addresses)

    def routes_dump(self) -> list[Route]:
        self.called("routes_dump")
        return list(self.routes)

    def link_sysctl(self, name: str, key: str) -> None:
        self.called("link_sysctl", name, key)
        if name not in self.links:
            path = f"/proc/sys/net/ipv4/conf/{name}/{key}"
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.sysctls.add((name, key))

    # ---- rules and flows ----

    def nft_transaction(self, messages: Sequence[Message]) -> None:
        self.called("nft_transaction", tuple(messages))
        self.ruleset.transaction(messages)

    def nft_dump(self, kind: int, body: bytes) -> list[bytes]:
        self.called("nft_dump", kind)
        return self.ruleset.dump(kind, body)

    def conntrack_dump(self, ports: Sequence[int]) -> list[Flow]:
        self.called("conntrack_dump", tuple(ports))
        return list(self.flows)

    def conntrack_delete(self, flow: Flow) -> None:
        self.called("conntrack_delete", flow)
        if flow in self.flows:
            self.flows.remove(flow)
