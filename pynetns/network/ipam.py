"""Which address an endpoint gets.

Owns: the arithmetic of a subnet and the choice of the next address. An address is held by the
endpoint's row in the store and by nothing else: removing the row gives it back. Knows nothing of
links. Addresses are numbers here; text is made once. Source: libnetwork ipam (serial allocation).
"""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import NamedTuple

from ..errors import Conflict, InvalidParameter, Unavailable
from ..store import Store


class Subnet(NamedTuple):
    """An IPv4 subnet with its gateway, as numbers; `first` to `last` are its host addresses."""

    network: int
    broadcast: int
    first: int
    last: int
    prefix: int
    gateway: int


def parse_address(text: str, option: str = "address") -> int:
    """A dotted quad as a number. InvalidParameter naming `option`."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        raise InvalidParameter(f"{option}: {text!r} is not an IPv4 address") from None


def format_address(address: int) -> str:
    """A number as a dotted quad."""
    return socket.inet_ntoa(address.to_bytes(4, "big"))


@lru_cache(maxsize=256)
def parse_subnet(cidr: str, gateway: str = "", option: str = "subnet") -> Subnet:
    """ "172.17.0.0/16" with its gateway (default: the first host address).

    The host part may be set ("172.17.0.1/16"). InvalidParameter naming `option` for anything else,
    for a prefix outside 8-30, for a gateway that is no host address of the subnet.
    """
    text, slash, bits = cidr.partition("/")
    if not slash or not (bits.isascii() and bits.isdecimal()) or not 8 <= int(bits) <= 30:
        raise InvalidParameter(f"{option}: {cidr!r} is not of the form A.B.C.D/N, N from 8 to 30")
    size = 1 << (32 - int(bits))
    network = parse_address(text, option) & ~(size - 1)
    at = parse_address(gateway, option) if gateway else network + 1
    subnet = Subnet(network, network + size - 1, network + 1, network + size - 2, int(bits), at)
    if not subnet.first <= at <= subnet.last:
        raise InvalidParameter(f"{option}: {gateway} is no host address of {cidr}")
    return subnet


def mac_from_address(address: int) -> bytes:
    """The MAC elected from an IPv4 address: 02:42 and its four bytes. moby electMacAddress."""
    return b"\x02\x42" + address.to_bytes(4, "big")


def format_mac(mac: bytes) -> str:
    """Six bytes as "02:42:ac:11:00:02"."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """A MAC address as six bytes. InvalidParameter when it is none, or a multicast or zero one."""
    digits = text.replace("-", ":").split(":")
    try:
        mac = bytes(int(pair, 16) for pair in digits if 1 <= len(pair) <= 2)
    except ValueError:
        mac = b""
    if len(digits) != 6 or len(mac) != 6 or mac[0] & 1 or mac == bytes(6):
        raise InvalidParameter(
            f"mac address: {text!r} is not a unicast address like 02:42:ac:11:00:02"
        )
    return mac


def request_address(
    store: Store, network_id: str, name: str, subnet: Subnet, requested: int | None = None
) -> int:
    """The requested address, or the next free one after the last handed out, wrapping.

    Within a transaction of the caller, who adds the endpoint's row in the same one: only that row
    takes the address. The network's, the broadcast and the gateway's address are never handed out.
    A look-up in the common case; otherwise one walk along the run of taken addresses that follows,
    which the cursor then has behind it.

    Raises InvalidParameter (outside the subnet, reserved), Conflict (in use: raised by the store's
    add_endpoint when two ask at once), Unavailable (exhausted). moby requestAddress.
    """
    if requested is not None:
        return _requested(store, network_id, subnet, requested)
    cursor, taken = store.next_address(network_id)
    address = cursor + 1
    if taken or not subnet.first <= address <= subnet.last or address == subnet.gateway:
        address = _next_free(store, network_id, name, subnet, cursor)
    store.set_cursor(network_id, address)
    return address


def _requested(store: Store, network_id: str, subnet: Subnet, requested: int) -> int:
    if not subnet.first <= requested <= subnet.last:
        raise InvalidParameter(
            f"ip address: {format_address(requested)} is not in the network's subnet "
            f"{format_address(subnet.network)}/{subnet.prefix}"
        )
    if requested == subnet.gateway or store.address_taken(network_id, requested):
        raise Conflict(f"Address already in use: {format_address(requested)}")
    return requested


def _next_free(store: Store, network_id: str, name: str, subnet: Subnet, cursor: int) -> int:
    start = cursor + 1 if subnet.first <= cursor < subnet.last else subnet.first
    found = _search(store, network_id, subnet, start, subnet.last)
    if found is None and start > subnet.first:
        found = _search(store, network_id, subnet, subnet.first, start - 1)
    if found is None:
        raise Unavailable(
            f"no available IPv4 addresses on this network's address pools: {name} "
            f"({format_address(subnet.network)}/{subnet.prefix}): remove containers that use it"
        )
    return found


def _search(store: Store, network_id: str, subnet: Subnet, low: int, high: int) -> int | None:
    """The first free address from low to high (inclusive); the gateway counts as taken."""
    address = low
    while address <= high:
        if address == subnet.gateway:
            address += 1
        elif store.address_taken(network_id, address):
            address = store.end_of_run(network_id, address)
        else:
            return address
    return None
