"""Which subnets a network may have.

Owns: the default pools, the ranges that are no host's, and what of this machine a subnet would hide.
Knows nothing of networks on record beyond their CIDRs. libnetwork ipamutils; RFC 6890.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from ..errors import Conflict, InvalidParameter, Unavailable
from ..kernel import Kernel
from .ipam import format_address, parse_subnet

# Docker's default address pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in /20s.
POOLS = (
    *(f"172.{second}.0.0/16" for second in range(17, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)

_RESOLV_CONF = "/etc/resolv.conf"
_SPECIAL = (
    ("0.0.0.0/8", 'is "this network"'),
    ("127.0.0.0/8", "is the loopback network"),
    ("169.254.0.0/16", "is link-local"),
    ("224.0.0.0/4", "is multicast"),
    ("240.0.0.0/4", "is reserved"),
)
_REMEDY = "choose a private subnet that is free, such as 172.30.0.1/16"


class Used(NamedTuple):
    """A range of addresses, first to last, that is in use; `why` follows its CIDR in messages."""

    first: int
    last: int
    why: str

    def overlaps(self, first: int, last: int) -> bool:
        return first <= self.last and self.first <= last

    def __str__(self) -> str:
        bits = 32 - (self.last - self.first).bit_length()
        return f"{format_address(self.first)}/{bits}, which {self.why}"


def check_subnet(subnet: str, label: str) -> None:
    """InvalidParameter, naming the option `label`, for a subnet in which no host can be."""
    first, last = _span(subnet)
    for special, why in _SPECIAL:
        low, high = _span_of(special)
        if first <= high and low <= last:
            raise InvalidParameter(f"{label} {subnet} : {special} {why}: {_REMEDY}")


def check_free(
    kernel: Kernel, subnet: str, label: str, taken: Iterable[str], without: Collection[int]
) -> None:
    """Conflict, naming the option `label`, for a subnet that overlaps one of `taken` (CIDRs of other
    networks) or what this machine uses; links with an ifindex in `without` do not count."""
    first, last = _span(subnet)
    for used in used_ranges(kernel, taken, without):
        if used.overlaps(first, last):
            raise Conflict(f"{label} {subnet} : overlaps {used}: {_REMEDY}")


def choose_pool(kernel: Kernel, taken: Iterable[str] = (), without: Collection[int] = ()) -> str:
    """The first of POOLS that overlaps none of `taken` (CIDRs) and no address, route or name server
    of the machine; links with an ifindex in `without` do not count.

    Raises Unavailable when none is left. libnetwork ipamutils.FindAvailableNetwork.
    """
    ranges = list(used_ranges(kernel, taken, without))
    for pool in POOLS:
        first, last = _span(pool)
        if not any(used.overlaps(first, last) for used in ranges):
            return pool
    raise Unavailable(
        "network bridge : every default address pool overlaps an address or route of this machine: "
        "choose a subnet with --bip"
    )


def used_ranges(
    kernel: Kernel, taken: Iterable[str], without: Collection[int] = ()
) -> Iterator[Used]:
    """What a new subnet must not overlap."""
    for cidr in taken:
        yield Used(*_span(cidr), "another network has")
    for address in kernel.addresses_dump():
        if address.ifindex not in without and len(address.network) == 4:
            yield Used(*_prefix_span(address.network, address.prefix), "this machine is on")
    for route in kernel.routes_dump():
        if route.ifindex not in without and len(route.destination) == 4:
            yield Used(
                *_prefix_span(route.destination, route.prefix), "this machine has a route to"
            )
    for server in _name_servers():  # one behind the default route must not end up inside
        yield Used(*_prefix_span(server, 32), f"is a name server in {_RESOLV_CONF}")


def _name_servers() -> Iterator[bytes]:
    try:
        with open(_RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(OSError):  # an IPv6 one
                yield socket.inet_pton(socket.AF_INET, words[1])


def _span(cidr: str) -> tuple[int, int]:
    subnet = parse_subnet(cidr)
    return subnet.network, subnet.broadcast


def _span_of(cidr: str) -> tuple[int, int]:
    address, _, bits = cidr.partition("/")
    return _prefix_span(socket.inet_aton(address), int(bits))


def _prefix_span(address: bytes, bits: int) -> tuple[int, int]:
    size = 1 << (32 - bits)
    first = int.from_bytes(address, "big") & ~(size - 1)
    return first, first + size - 1
