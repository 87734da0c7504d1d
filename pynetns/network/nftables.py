"""The packet rules of one engine: one nf_tables table, two maps of published ports.

Owns: what the rules are, as nfnetlink messages (pure `render_*`), and sending them. A published
port is an element of a map, so that publishing costs one small message however many there are, and
rules never change. Knows nothing of containers and sockets. No program is executed and nothing
large is imported: ports are published during a start.

The table, for bridge B with subnet S (`nft list table ip pynetns-…` shows it):

    guard        drop what B sends to 127.0.0.0/8: its route_localnet must not open our loopback
    prerouting   dnat by the maps; never for 127.0.0.0/8, which only the host itself may reach
    output       dnat by the maps, for the host's own connections
    postrouting  masquerade what leaves S, what the host's loopback sends to B, and what a container
                 sends to a published port of its own network (hairpin), so that answers come back
    forward      drop new connections from elsewhere to B, unless to a published port

libnetwork bridge setupIPTables and portmapper Map; Linux include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from ..errors import KernelError, Unavailable
from ..kernel import nfnetlink as nf
from ..kernel.netlink import attr, attributes, nest, parse, string, text
from ..kernel.nfnetlink import Message, u32
from . import conntrack
from .published import ANY, Publishable, PublishedPort

ANY_MAP = "published_any"  # (protocol, port) -> (address, port): on every address of the host
ONE_MAP = "published_on"  # (protocol, address, port) -> (address, port): on that address only

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_MOST_ELEMENTS = 500  # per message: an attribute holds 64 KiB


def table_name(engine_id: str) -> str:
    """The table of an engine."""
    return f"pynetns-{engine_id[:8]}"


# ---- applying ----


def ensure_table(engine_id: str, bridge: str, subnet: str) -> None:
    """Make the table say what it should, in one transaction; published ports stay.

    Rules that are as they should be are left alone: replacing them costs an RCU grace period.
    `subnet` as CIDR. Raises Unavailable when the kernel has no nf_tables (or not all it takes),
    KernelError.
    """
    name = table_name(engine_id)
    try:
        if rule_stamps(name) != [stamp(bridge, subnet)] * RULE_COUNT:
            nf.transact(render_table(name, bridge, subnet))
    except KernelError as error:
        if error.errno not in nf.MISSING:
            raise
        raise Unavailable(
            f"nf_tables : {error.detail}: this kernel lacks nf_tables with NAT, fib and masquerade:"
            " load the modules nft_chain_nat, nft_masq, nft_fib_ipv4, or use network none or host"
        ) from error


def delete_table(engine_id: str) -> None:
    """Remove the table with everything in it; an absent one is fine."""
    _absent_is_fine(render_delete_table(table_name(engine_id)))


def add_ports(engine_id: str, ports: Sequence[Publishable]) -> None:
    """Publish ports; one that is published already leads to its new container.

    Raises Unavailable when the table is gone, KernelError.
    """
    name = table_name(engine_id)
    try:
        nf.transact(render_add(name, ports))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            raise Unavailable(
                f"nf_tables : table {name} is gone: something flushed the rules: "
                "open the engine again to restore them"
            ) from error
        if error.errno not in (errno.EBUSY, errno.EEXIST):
            raise
        remove_ports(engine_id, ports)  # left by a run that ended ungracefully
        nf.transact(render_add(name, ports))
    conntrack.forget_misled(ports)


def remove_ports(engine_id: str, ports: Sequence[Publishable]) -> None:
    """Withdraw ports; absent ones are fine, and so is an absent table."""
    name = table_name(engine_id)
    if not _absent_is_fine(render_remove(name, ports)) and len(ports) > 1:
        for port in ports:  # a transaction is all or nothing, and one of them was absent
            _absent_is_fine(render_remove(name, [port]))
    conntrack.forget_withdrawn(ports)


def list_ports(engine_id: str) -> list[PublishedPort]:
    """Every published port of the engine, as the kernel has it; none when there is no table."""
    name = table_name(engine_id)
    found: list[PublishedPort] = []
    for map_name in (ONE_MAP, ANY_MAP):
        try:
            for payload in nf.dump(nf.GETSETELEM, text(1, name) + text(2, map_name)):
                found += parse_elements(payload)
        except KernelError as error:
            if error.errno not in nf.MISSING:
                raise
    return found


def rule_stamps(table: str) -> list[str]:
    """The stamp of each rule that the kernel has in the table; none when there is no table."""
    stamps = []
    for payload in nf.dump(nf.GETRULE, text(1, table)):
        comment = parse(payload).get(7, b"")  # type, size, text, NUL
        stamps.append(string(comment[2:]))
    return stamps


def _absent_is_fine(messages: list[Message]) -> bool:
    """Whether there was something to remove."""
    if messages:
        try:
            nf.transact(messages)
        except KernelError as error:
            if error.errno not in nf.MISSING:
                raise
            return False
    return True


# ---- published ports ----


def render_add(table: str, ports: Iterable[Publishable]) -> list[Message]:
    """Messages that publish `ports`."""
    return _elements(nf.NEWSETELEM, nf.CREATE, table, ports, True)


def render_remove(table: str, ports: Iterable[Publishable]) -> list[Message]:
    """Messages that withdraw `ports`."""
    return _elements(nf.DELSETELEM, 0, table, ports, False)


def _elements(
    kind: int, flags: int, table: str, ports: Iterable[Publishable], with_data: bool
) -> list[Message]:
    by_map: dict[str, list[bytes]] = {}
    for port in ports:
        name = ANY_MAP if port.host_ip == ANY else ONE_MAP
        by_map.setdefault(name, []).append(_element(port, with_data))
    messages = []
    for name, elements in by_map.items():
        for at in range(0, len(elements), _MOST_ELEMENTS):
            listed = nest(3, *elements[at : at + _MOST_ELEMENTS])
            messages.append(Message(kind, flags, text(1, table) + text(2, name) + listed))
    return messages


def _element(port: Publishable, with_data: bool) -> bytes:
    """One element; each field of a key or value takes a whole word."""
    where = b"" if port.host_ip == ANY else socket.inet_aton(port.host_ip)
    key = struct.pack(">B3x4sH2x", _PROTOCOLS[port.proto], where, port.host_port)
    if not where:
        key = key[:4] + key[8:]
    parts = [nest(1, attr(1, key))]
    if with_data:
        target = socket.inet_aton(port.container_ip)
        value = struct.pack(">4sH2x", target, port.container_port)
        parts.append(nest(2, attr(1, value)))
    return nest(1, *parts)


def parse_elements(payload: bytes) -> Iterator[PublishedPort]:
    """The ports in one message of a dump."""
    attrs = parse(payload)
    for _, element in attributes(attrs.get(3, b"")):
        fields = parse(element)
        key, value = parse(fields[1])[1], parse(fields[2])[1]
        host_ip = socket.inet_ntoa(key[4:8]) if len(key) == 12 else ANY
        host_port, port = struct.unpack(">H", key[-4:-2])[0], struct.unpack(">H", value[4:6])[0]
        yield PublishedPort(
            _PROTOCOL_NAMES[key[0]], host_ip, host_port, socket.inet_ntoa(value[:4]), port
        )


# ---- the table ----

RULES_VERSION = 1  # of what render_rules says; a test holds it against the bytes
RULE_COUNT = 10
_PREROUTING, _FORWARD, _OUTPUT, _POSTROUTING = 0, 2, 3, 4
_CHAINS = (  # name, type, hook, priority
    ("guard", "filter", _PREROUTING, -300),
    ("prerouting", "nat", _PREROUTING, -100),
    ("output", "nat", _OUTPUT, -100),
    ("postrouting", "nat", _POSTROUTING, 100),
    ("forward", "filter", _FORWARD, 0),
)
_ACCEPT = 1
_MAP_FLAG = 8
# Types as nft names them, six bits each; the kernel only keeps them for whoever lists the table.
_IPV4_ADDR, _INET_PROTO, _INET_SERVICE = 7, 12, 13
_ON_TYPE = _INET_PROTO << 12 | _IPV4_ADDR << 6 | _INET_SERVICE
_ANY_TYPE = _INET_PROTO << 6 | _INET_SERVICE
_TARGET_TYPE = _IPV4_ADDR << 6 | _INET_SERVICE
_MAPS = ((ONE_MAP, _ON_TYPE, 12), (ANY_MAP, _ANY_TYPE, 8))  # name, type and size of the key
_LOOPBACK = "127.0.0.0/8"


def stamp(bridge: str, subnet: str) -> str:
    """The comment of every rule: whether a rule is current can be told without decoding it."""
    return f"pynetns v{RULES_VERSION} {bridge} {subnet}"


def render_table(table: str, bridge: str, subnet: str) -> list[Message]:
    """Messages that make the table, or bring an existing one up to date and keep its elements."""
    messages = [Message(nf.NEWTABLE, nf.CREATE, text(1, table) + u32(2, 0))]
    messages += [_chain(table, *chain) for chain in _CHAINS]
    messages += [_map(table, number, *shape) for number, shape in enumerate(_MAPS, 1)]
    messages.append(Message(nf.DELRULE, 0, text(1, table)))  # all of them
    comment = stamp(bridge, subnet).encode() + b"\0"
    mark = attr(7, bytes((0, len(comment))) + comment)
    for chain, expressions in render_rules(bridge, subnet):
        body = text(1, table) + text(2, chain) + nest(4, *expressions) + mark
        messages.append(Message(nf.NEWRULE, nf.CREATE | nf.APPEND, body))
    return messages


def render_delete_table(table: str) -> list[Message]:
    """The message that removes the table."""
    return [Message(nf.DELTABLE, 0, text(1, table))]


def _chain(table: str, name: str, kind: str, hook: int, priority: int) -> Message:
    where = nest(4, u32(1, hook), u32(2, priority & 0xFFFFFFFF))
    body = text(1, table) + text(3, name) + where + u32(5, _ACCEPT) + text(7, kind)
    return Message(nf.NEWCHAIN, nf.CREATE, body)


def _map(table: str, number: int, name: str, key_type: int, key_size: int) -> Message:
    words = (_MAP_FLAG, key_type, key_size, _TARGET_TYPE, 8)
    body = text(1, table) + text(2, name)
    body += b"".join(u32(kind, word) for kind, word in enumerate(words, 3)) + u32(10, number)
    return Message(nf.NEWSET, nf.CREATE, body)


def render_rules(bridge: str, subnet: str) -> list[tuple[str, list[bytes]]]:
    """Each rule as its chain and its expressions, in order."""
    from_bridge, not_from_bridge = nf.in_interface(bridge), nf.in_interface(bridge, equal=False)
    to_bridge, not_to_bridge = nf.out_interface(bridge), nf.out_interface(bridge, equal=False)
    dnat_one = [nf.l4_protocol(1), nf.destination(9), nf.port(10), nf.lookup(ONE_MAP), nf.dnat()]
    dnat_any = [
        *nf.destination_is_local(),
        nf.l4_protocol(1),
        nf.port(9),
        nf.lookup(ANY_MAP),
        nf.dnat(),
    ]
    return [
        ("guard", [*from_bridge, *nf.destination_in(_LOOPBACK), nf.verdict(nf.DROP)]),
        ("prerouting", [*nf.destination_in(_LOOPBACK), nf.verdict(nf.RETURN)]),
        ("prerouting", dnat_one),
        ("prerouting", dnat_any),
        ("output", dnat_one),
        ("output", dnat_any),
        ("postrouting", [*nf.source_in(subnet), *not_to_bridge, nf.masquerade()]),
        ("postrouting", [*nf.source_in(_LOOPBACK), *to_bridge, nf.masquerade()]),
        (
            "postrouting",
            [
                *nf.source_in(subnet),
                *nf.destination_in(subnet),
                *nf.connection(nf.CT_STATUS, nf.CT_DNAT),
                nf.masquerade(),
            ],
        ),
        (
            "forward",
            [
                *not_from_bridge,
                *to_bridge,
                *nf.connection(nf.CT_STATE, nf.CT_KNOWN, present=False),
                *nf.connection(nf.CT_STATUS, nf.CT_DNAT, present=False),
                nf.verdict(nf.DROP),
            ],
        ),
    ]
