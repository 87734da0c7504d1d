"""nfnetlink: encoding nf_tables expressions, and one transaction over a socket.

Owns: bytes. Knows nothing of what a rule is for. Numbers are those of Linux
include/uapi/linux/netfilter/{nf_tables,nfnetlink}.h; attributes are in network order, what is
compared with a register is in the register's own order.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import KernelError
from . import netlink
from .netlink import attr, nest, text

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN = 0, 1, 2, 3
NEWRULE, GETRULE, DELRULE, NEWSET = 6, 7, 8, 9
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
CREATE, APPEND = 0x400, 0x800

# How a kernel answers that lacks nf_tables, an expression, or the object a request names.
MISSING = frozenset((errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT))

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_FAMILY = 2  # NFPROTO_IPV4
_NAMES = {
    NEWTABLE: "new table", DELTABLE: "delete table", NEWCHAIN: "new chain", NEWRULE: "new rule",
    DELRULE: "flush rules", NEWSET: "new map", NEWSETELEM: "new port", DELSETELEM: "delete port",
    GETSETELEM: "list ports", GETRULE: "list rules", GETTABLE: "list tables",
}  # fmt: skip


class Message(NamedTuple):
    """One request: `kind` NEWTABLE…, netlink flags, and its attributes."""

    kind: int
    flags: int
    body: bytes


def u32(kind: int, value: int) -> bytes:
    """A number, as an attribute."""
    return struct.pack("=HH", 8, kind) + value.to_bytes(4, "big")


# ---- expressions: each loads or looks at a register; 9 and 10 follow the word of 1 ----

DROP, RETURN = 0, -5
CT_STATE, CT_STATUS = 0, 2
CT_DNAT = 0x20  # IPS_DST_NAT
CT_KNOWN = 0x06  # established or related
_NETWORK, _TRANSPORT = 1, 2
_META_IN_NAME, _META_OUT_NAME, _META_L4_PROTOCOL = 6, 7, 16
_SOURCE_OFFSET, _DESTINATION_OFFSET, _PORT_OFFSET = 12, 16, 2
_RTN_LOCAL = 2


def expression(name: str, *attrs: bytes) -> bytes:
    """One expression of a rule."""
    return nest(1, text(1, name), nest(2, *attrs))


def compare(value: bytes, *, equal: bool = True) -> bytes:
    """End the rule here unless register 1 is (or is not) `value`."""
    return expression("cmp", u32(1, 1), u32(2, 0 if equal else 1), nest(3, attr(1, value)))


def _masked(mask: bytes) -> bytes:
    zero = nest(5, attr(1, bytes(len(mask))))
    return expression(
        "bitwise", u32(1, 1), u32(2, 1), u32(3, len(mask)), nest(4, attr(1, mask)), zero
    )


def _payload(register: int, base: int, offset: int, size: int) -> bytes:
    return expression("payload", u32(1, register), u32(2, base), u32(3, offset), u32(4, size))


def _meta(register: int, key: int) -> bytes:
    return expression("meta", u32(1, register), u32(2, key))


def l4_protocol(register: int) -> bytes:
    """Load the transport protocol."""
    return _meta(register, _META_L4_PROTOCOL)


def destination(register: int) -> bytes:
    """Load the destination address."""
    return _payload(register, _NETWORK, _DESTINATION_OFFSET, 4)


def port(register: int) -> bytes:
    """Load the destination port."""
    return _payload(register, _TRANSPORT, _PORT_OFFSET, 2)


def lookup(map_name: str) -> bytes:
    """Replace the key that begins at register 1 by its value; end the rule when there is none."""
    return expression("lookup", text(1, map_name), u32(2, 1), u32(3, 1))


def dnat() -> bytes:
    """Rewrite the destination to the address in register 1 and the port in 9."""
    return expression("nat", u32(1, 1), u32(2, _FAMILY), u32(3, 1), u32(5, 9))


def masquerade() -> bytes:
    """Rewrite the source to the address of the interface the packet leaves by."""
    return expression("masq")


def verdict(code: int) -> bytes:
    """DROP or RETURN."""
    return expression("immediate", u32(1, 0), nest(2, nest(2, u32(1, code & 0xFFFFFFFF))))


def in_interface(name: str, *, equal: bool = True) -> list[bytes]:
    """Whether the packet came (or did not come) by interface `name`."""
    return [_meta(1, _META_IN_NAME), compare(name.encode().ljust(16, b"\0"), equal=equal)]


def out_interface(name: str, *, equal: bool = True) -> list[bytes]:
    """Whether the packet leaves (or does not leave) by interface `name`."""
    return [_meta(1, _META_OUT_NAME), compare(name.encode().ljust(16, b"\0"), equal=equal)]


def source_in(subnet: str) -> list[bytes]:
    """Whether the source is in `subnet`, a CIDR."""
    return _address_in(_SOURCE_OFFSET, subnet)


def destination_in(subnet: str) -> list[bytes]:
    """Whether the destination is in `subnet`, a CIDR."""
    return _address_in(_DESTINATION_OFFSET, subnet)


def _address_in(offset: int, subnet: str) -> list[bytes]:
    address, _, bits = subnet.partition("/")
    mask = 0xFFFFFFFF << 32 - int(bits) & 0xFFFFFFFF
    network = int.from_bytes(socket.inet_aton(address), "big") & mask
    masked = _masked(mask.to_bytes(4, "big"))
    return [_payload(1, _NETWORK, offset, 4), masked, compare(network.to_bytes(4, "big"))]


def destination_is_local() -> list[bytes]:
    """Whether the destination is an address of this machine."""
    return [
        expression("fib", u32(1, 1), u32(2, 3), u32(3, 2)),  # the address type, of the destination
        compare(_RTN_LOCAL.to_bytes(4, sys.byteorder)),
    ]


def connection(key: int, bits: int, *, present: bool = True) -> list[bytes]:
    """Whether the connection's CT_STATE or CT_STATUS has one of `bits` (or none of them)."""
    mask = bits.to_bytes(4, sys.byteorder)
    return [
        expression("ct", u32(1, 1), u32(2, key)),
        _masked(mask),
        compare(bytes(4), equal=not present),
    ]


# ---- sending ----


def batch(messages: Sequence[Message]) -> bytes:
    """One transaction; numbered from 1, between its begin (0) and its end. Only the last message
    asks for an acknowledgement: failures are reported anyway."""
    last = len(messages)
    parts = [netlink.message(_BATCH_BEGIN, 0, 0, _fixed(0, _SUBSYSTEM))]
    for number, (kind, flags, body) in enumerate(messages, 1):
        flags |= netlink.ACK if number == last else 0
        parts.append(
            netlink.message(_SUBSYSTEM << 8 | kind, flags, number, _fixed(_FAMILY, 0) + body)
        )
    parts.append(netlink.message(_BATCH_END, 0, last + 1, _fixed(0, _SUBSYSTEM)))
    return b"".join(parts)


def _fixed(family: int, resource: int) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def nft_transaction(messages: Sequence[Message]) -> None:
    """Apply all of `messages` or none. KernelError of the first that failed.

    The end of this waits for an RCU grace period (some 10 ms) when something was removed lately:
    the kernel finishes removals before it lets a netfilter socket go.
    """
    if not messages:
        return
    with netlink.open_socket(netlink.NETFILTER) as sock:
        netlink.send(sock, batch(messages))
        failed = _first_failure(sock, len(messages))
    if failed is not None:
        number, code = failed
        step = _NAMES[messages[number - 1].kind] if number else "transaction"
        raise KernelError(code, "nf_tables", step)


def _first_failure(sock: socket.socket, last: int) -> tuple[int, int] | None:
    """(number of the message, errno) of the first failure; None when all was applied.

    The kernel answers a failure of the whole first, and the last message last.
    """
    first: tuple[int, int] | None = None
    while True:
        for answer in netlink.receive(sock):
            if answer.kind != netlink.ERROR:
                continue
            if answer.errno and first is None:
                first = (answer.number, answer.errno)
            if answer.number in (0, last):
                return first


def nft_dump(kind: int, body: bytes) -> list[bytes]:
    """The attributes of every object that a GET request lists. KernelError."""
    request = _fixed(_FAMILY, 0) + body
    found = netlink.dump(netlink.NETFILTER, _SUBSYSTEM << 8 | kind, request, _NAMES[kind])
    return [payload[4:] for payload in found]
