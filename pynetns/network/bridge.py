"""The bridge device of an engine, and the choice of a subnet for it.

Owns: making, adopting and removing the device, the two sysctls of that device, and finding a pool
nobody uses. A bridge carries its owner's name as alias, so that an engine never touches another's.
Machine-wide settings are never changed. Knows nothing of containers. libnetwork bridge driver,
ipamutils; seed section 1.2.1.1.2.4.1.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import Conflict, KernelError, Unavailable
from ..forks import Descriptors
from ..kernel import Kernel, netlink
from .ipam import parse_subnet

# Docker's default address pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s.
POOLS = (
    *(f"172.{second}.0.0/16" for second in range(17, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)

# Answers to the host's loopback come in by the bridge (route_localnet), and containers reach their
# own published ports through it (forwarding), whether the machine forwards or not.
_SYSCTLS = ("route_localnet", "forwarding")
_RESOLV_CONF = "/etc/resolv.conf"
_IP_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE = 18, 22, 26
_IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge device that is ours."""

    name: str
    ifindex: int


@dataclass(frozen=True, slots=True)
class Link:
    """What the kernel tells of a link. `kind` is "" for a physical one."""

    ifindex: int
    up: bool
    kind: str
    alias: str
    mac: bytes


def alias_of(engine_id: str) -> str:
    """How the bridge of an engine is marked."""
    return f"pynetns:{engine_id}"


def setup_bridge(
    kernel: Kernel, name: str, engine_id: str, address: str, prefix: int, mtu: int
) -> Bridge:
    """Make the bridge, up, with `address`/`prefix` and `mtu` in bytes; or adopt it if it is ours.

    Raises Conflict (the name belongs to somebody else), Unavailable (/proc/sys is read-only),
    KernelError. The caller sees to it that no other process does the same.
    """
    with Descriptors() as fds:
        nl = fds.open(kernel.nl_open)
        ifindex = _create_or_adopt(kernel, nl, name, alias_of(engine_id), address, prefix, mtu)
    for key in _SYSCTLS:
        _set_sysctl(f"/proc/sys/net/ipv4/conf/{name}/{key}")
    return Bridge(name, ifindex)


def remove_bridge(kernel: Kernel, name: str, engine_id: str) -> bool:
    """Delete the bridge if it is ours; whether it was. An absent one is fine."""
    link = read_link(name)
    if link is None or link.alias != alias_of(engine_id):
        return False
    with Descriptors() as fds:
        kernel.link_delete(fds.open(kernel.nl_open), name)
    return True


def _create_or_adopt(
    kernel: Kernel, nl: int, name: str, alias: str, address: str, prefix: int, mtu: int
) -> int:
    try:
        return kernel.bridge_create(nl, name, alias=alias, mtu=mtu, address=address, prefix=prefix)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    link = read_link(name)
    if link is not None and link.kind == "bridge" and link.alias == alias:
        _complete(kernel, nl, name, link, address, prefix)
        return link.ifindex
    if link is not None and not _unfinished(link, address):
        whose = f"its alias is {link.alias!r}" if link.alias else "it has no alias"
        raise Conflict(
            f"bridge {name} : a device of that name exists that is not this engine's ({whose}): "
            "choose another name with --bridge"
        )
    kernel.link_delete(nl, name)
    return kernel.bridge_create(nl, name, alias=alias, mtu=mtu, address=address, prefix=prefix)


def _complete(kernel: Kernel, nl: int, name: str, link: Link, address: str, prefix: int) -> None:
    """Put back what somebody took away from our bridge."""
    if not link.up:
        kernel.link_set_up(nl, name, True)
    try:
        kernel.address_add(nl, name, address, prefix)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise


def _unfinished(link: Link, address: str) -> bool:
    """Whether this is our own bridge, by a process that was killed before it gave it the alias."""
    mac = b"\x02\x42" + socket.inet_aton(address)
    return link.kind == "bridge" and not link.alias and not link.up and link.mac == mac


def _set_sysctl(path: str) -> None:
    try:
        with open(path, "r+", encoding="ascii") as file:
            if file.read().strip() != "1":
                file.seek(0)
                file.write("1")
    except OSError as error:
        raise Unavailable(
            f"{path} : {error.strerror}: it must be writable for containers on a bridge: "
            "mount /proc/sys read-write, or use network none or host"
        ) from error


def forwarding_enabled() -> bool:
    """Whether the machine forwards IPv4. Without it a container on a bridge reaches the host and
    its neighbours but nothing beyond, and nothing beyond reaches it."""
    try:
        with open(_IP_FORWARD, encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:
        return False


def host_link_names() -> set[str]:
    """The names of all links of the calling thread's network namespace."""
    return {name for _, name in socket.if_nameindex()}


# ---- looking ----


def read_link(name: str) -> Link | None:
    """A link by its name; None when there is none."""
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + netlink.text(3, name)
    try:
        payload = netlink.get(netlink.ROUTE, _RTM_GETLINK, body, name)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    _, _, ifindex, flags, _ = struct.unpack_from("=BxHiII", payload)
    attrs = netlink.parse(payload[16:])
    info = netlink.parse(attrs.get(18, b""))
    return Link(
        ifindex=ifindex,
        up=bool(flags & _IFF_UP),
        kind=netlink.string(info.get(1, b"")),
        alias=netlink.string(attrs.get(20, b"")),
        mac=attrs.get(1, b""),
    )


def choose_pool(taken: Iterable[str] = ()) -> str:
    """The first of POOLS that overlaps none of `taken` (CIDRs) and no address, route or name server
    of the machine.

    Raises Unavailable when none is left. libnetwork ipamutils.FindAvailableNetwork.
    """
    used = [_span(cidr) for cidr in taken]
    used += _address_spans()
    used += _route_spans()
    used += _name_server_spans()
    for pool in POOLS:
        first, last = _span(pool)
        if all(last < low or high < first for low, high in used):
            return pool
    raise Unavailable(
        "network bridge : every default address pool overlaps an address or route of this machine: "
        "choose a subnet with --bip"
    )


def _name_server_spans() -> Iterator[tuple[int, int]]:
    """The name servers: one behind the default route must not end up inside our own subnet."""
    try:
        with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(OSError):  # an IPv6 one
                yield _prefix_span(socket.inet_pton(socket.AF_INET, words[1]), 32)


def _span(cidr: str) -> tuple[int, int]:
    subnet = parse_subnet(cidr)
    return subnet.network, subnet.broadcast


def _prefix_span(address: bytes, bits: int) -> tuple[int, int]:
    size = 1 << (32 - bits)
    first = int.from_bytes(address, "big") & ~(size - 1)
    return first, first + size - 1


def _address_spans() -> Iterator[tuple[int, int]]:
    """The subnets of all addresses, those of links that are down as well."""
    body = struct.pack("=BBBBi", socket.AF_INET, 0, 0, 0, 0)
    for payload in netlink.dump(netlink.ROUTE, _RTM_GETADDR, body, "addresses"):
        address = netlink.parse(payload[8:]).get(1)
        if address is not None:
            yield _prefix_span(address, payload[1])


def _route_spans() -> Iterator[tuple[int, int]]:
    """The destinations of all routes of all tables, but for default routes."""
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    for payload in netlink.dump(netlink.ROUTE, _RTM_GETROUTE, body, "routes"):
        destination = netlink.parse(payload[12:]).get(1)
        if destination is not None and payload[1]:
            yield _prefix_span(destination, payload[1])
