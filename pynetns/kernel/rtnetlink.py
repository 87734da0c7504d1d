"""Typed wrapper of csrc/netlink.c and csrc/link.c: links, addresses, routes.

`nl` is an rtnetlink socket; every call acts in the network namespace that socket was opened in.
"""

from __future__ import annotations

import socket

from .lib import call, ffi, lib, out_fd

_NO_ADDRESS = bytes(4)


def _packed(address: str | None) -> bytes:
    return socket.inet_aton(address) if address else _NO_ADDRESS


def nl_open() -> int:
    """An rtnetlink socket in the calling thread's network namespace."""
    return out_fd(lib.pn_nl_open)


def veth_create(
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
    """A veth pair whose peer is made in place: in namespace fd `peer_netns`, with its final name.

    `master` is a bridge's ifindex (0: none), `mtu` in bytes (0: default), `peer_mac` six bytes.
    """
    veth = ffi.new("struct pn_veth *")
    veth.host_name, veth.peer_name = host_name.encode(), peer_name.encode()
    veth.peer_netns, veth.master, veth.mtu, veth.up = peer_netns, master, mtu, up
    veth.port_flags = (lib.PN_PORT_HAIRPIN if hairpin else 0) | (
        lib.PN_PORT_NO_IPV6 if no_ipv6 else 0
    )
    if peer_mac:
        ffi.memmove(veth.peer_mac, peer_mac, 6)
    call(lib.pn_veth_create, nl, veth)


def link_configure(
    nl: int,
    name: str,
    address: str,
    prefix: int,
    gateway: str | None = None,
    broadcast: str | None = None,
) -> int:
    """Address, up and default route of one interface in a single send; its ifindex."""
    config = ffi.new("struct pn_ifconfig *")
    config.name, config.prefix = name.encode(), prefix
    config.address = _packed(address)
    config.gateway = _packed(gateway)
    config.broadcast = _packed(broadcast)
    return call(lib.pn_link_configure, nl, config)


def bridge_create(nl: int, name: str, *, alias: str, mtu: int, address: str, prefix: int) -> int:
    """A bridge, up, with its address; the ifindex. KernelError EEXIST when the name is taken."""
    return call(
        lib.pn_bridge_create, nl, name.encode(), alias.encode(), mtu, _packed(address), prefix
    )


def link_index(nl: int, name: str) -> int:
    """The ifindex of a link; KernelError ENODEV when there is none of that name."""
    return call(lib.pn_link_index, nl, name.encode())


def link_set_up(nl: int, name: str, up: bool) -> None:
    """Bring a link up or down."""
    call(lib.pn_link_set_up, nl, name.encode(), up)


def link_delete(nl: int, name: str) -> None:
    """Delete a link by name; an absent one is fine."""
    call(lib.pn_link_delete, nl, name.encode())


def address_add(nl: int, name: str, address: str, prefix: int) -> None:
    """Add an IPv4 address to a link."""
    call(lib.pn_address_add, nl, name.encode(), _packed(address), prefix)


def route_add(
    nl: int, name: str, destination: str, prefix: int, gateway: str | None = None
) -> None:
    """A route to `destination`/`prefix` over link `name`, by `gateway` or on link."""
    call(lib.pn_route_add, nl, name.encode(), _packed(destination), prefix, _packed(gateway))
