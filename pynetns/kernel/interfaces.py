"""Looking at links, addresses and routes of the calling thread's network namespace.

Owns: what rtnetlink answers, as values, and the settings of a link that are files. What a start
does with links is in C (rtnetlink.py). Source: rtnetlink(7), Linux include/uapi/linux/if_link.h,
rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import NamedTuple

from ..errors import KernelError
from . import netlink
from .netlink import parse, string

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 10, 18, 20
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF = 1, 4
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBi"), struct.Struct("=8BI")
_UP = 1


class Link(NamedTuple):
    """What the kernel tells of a link. `kind` is "" for a physical one, `master` 0 for one that
    belongs to no other."""

    name: str
    ifindex: int
    up: bool = False
    kind: str = ""
    alias: str = ""
    mac: bytes = b""
    master: int = 0


class Address(NamedTuple):
    """An IPv4 address of a link: its own, and the subnet that it opens (four bytes, bits)."""

    ifindex: int
    local: bytes
    network: bytes
    prefix: int


class Route(NamedTuple):
    """The destination of an IPv4 route (four bytes, bits); `ifindex` 0: over several links or none."""

    destination: bytes
    prefix: int
    ifindex: int


def link_get(name: str) -> Link | None:
    """A link by its name; None when there is none. KernelError."""
    body = _LINK.pack(0, 0, 0, 0, 0) + netlink.text(_IFLA_IFNAME, name)
    try:
        return parse_link(netlink.get(netlink.ROUTE, _GETLINK, body, name))
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def links_dump(master: int = 0) -> list[Link]:
    """All links; with `master` those that belong to the link of that ifindex. KernelError."""
    body = _LINK.pack(0, 0, 0, 0, 0)
    if master:  # the kernel need not tell of the others; older ones do nevertheless
        body += netlink.attr(_IFLA_MASTER, struct.pack("=I", master))
    links = [parse_link(one) for one in netlink.dump(netlink.ROUTE, _GETLINK, body, "links")]
    return [link for link in links if not master or link.master == master]


def parse_link(payload: bytes) -> Link:
    """A link from its message. KernelError EBADMSG."""
    _, _, ifindex, flags, _ = _LINK.unpack_from(payload)
    attrs = parse(payload[_LINK.size :])
    info = parse(attrs.get(_IFLA_LINKINFO, b""))
    return Link(
        name=string(attrs.get(_IFLA_IFNAME, b"")),
        ifindex=ifindex,
        up=bool(flags & _UP),
        kind=string(info.get(_IFLA_INFO_KIND, b"")),
        alias=string(attrs.get(_IFLA_IFALIAS, b"")),
        mac=attrs.get(_IFLA_ADDRESS, b""),
        master=int.from_bytes(attrs.get(_IFLA_MASTER, b"")[:4], sys.byteorder),
    )


def addresses_dump() -> list[Address]:
    """All IPv4 addresses, those of links that are down as well. KernelError."""
    body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
    found = []
    for payload in netlink.dump(netlink.ROUTE, _GETADDR, body, "addresses"):
        _, prefix, _, _, ifindex = _ADDRESS.unpack_from(payload)
        attrs = parse(payload[_ADDRESS.size :])
        local = attrs.get(_IFA_LOCAL, b"")
        found.append(Address(ifindex, local, attrs.get(_IFA_ADDRESS, local), prefix))
    return found


def routes_dump() -> list[Route]:
    """The IPv4 routes of all tables but default routes. KernelError."""
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    found = []
    for payload in netlink.dump(netlink.ROUTE, _GETROUTE, body, "routes"):
        attrs = parse(payload[_ROUTE.size :])
        prefix, destination = payload[1], attrs.get(_RTA_DST)
        if prefix and destination is not None:
            ifindex = int.from_bytes(attrs.get(_RTA_OIF, b"")[:4], sys.byteorder)
            found.append(Route(destination, prefix, ifindex))
    return found


def link_sysctl(name: str, key: str) -> None:
    """Switch net.ipv4.conf.NAME.KEY on, unless it is. OSError, which has the file's name."""
    with open(f"/proc/sys/net/ipv4/conf/{name}/{key}", "r+", encoding="ascii") as file:
        if file.read().strip() != "1":
            file.seek(0)
            file.write("1")
