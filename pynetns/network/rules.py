"""The packet rules of one engine: one nf_tables table, made from the set of its networks.

Owns: what the rules are, as nfnetlink messages (pure `render_*`), and when they are sent. A published
port is an element of a map, so that publishing costs one small message however many there are; rules
change only with the set of networks. Knows nothing of containers and sockets. No program is executed
and nothing large is imported: ports are published during a start.

The table (`nft list table ip pynetns-…` shows it), where B is each bridge and S its subnet:

    guard        drop what B sends to 127.0.0.0/8: its route_localnet must not open our loopback
    prerouting   dnat by the maps; never for 127.0.0.0/8, which only the host itself may reach
    output       dnat by the maps, for the host's own connections
    postrouting  masquerade what leaves S, what the host's loopback sends to B, and what a container
                 sends to a published port of its own network (hairpin), so that answers come back
    forward      drop new connections from elsewhere (another network, too) to B, unless to a
                 published port

libnetwork bridge setupIPTables and portmapper Map; Linux include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import KernelError, Unavailable
from ..kernel import Kernel
from ..kernel import nfnetlink as nf
from ..kernel.netlink import attr, attributes, nest, parse, string, text
from ..kernel.nfnetlink import Message, u32
from . import flows
from .drivers.base import Segment
from .mark import Mark
from .published import ANY, Publishable, PublishedPort

ANY_MAP = "published_any"  # (protocol, port) -> (address, port): on every address of the host
ONE_MAP = "published_on"  # (protocol, address, port) -> (address, port): on that address only

_TABLE_PREFIX = "pynetns-"
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_MOST_ELEMENTS = 500  # per message: an attribute holds 64 KiB


def table_name(engine_id: str) -> str:
    """The table of an engine."""
    return f"{_TABLE_PREFIX}{engine_id[:8]}"


class Rules:
    """The table of one engine."""

    def __init__(self, kernel: Kernel, mark: Mark) -> None:
        self.table = table_name(mark.engine_id)
        self._kernel = kernel
        self._place = mark.place

    def ensure(self, segments: Sequence[Segment]) -> None:
        """Make the table say what it should for a set of networks, in one transaction; published
        ports stay.

        Rules that are as they should be are left alone: replacing them costs an RCU grace period.
        Raises Unavailable when the kernel has no nf_tables (or not all it takes), KernelError.
        """
        wanted = render_rules(segments, self._place)
        try:
            if self.stamps(self.table) != [rule.stamp for rule in wanted]:
                self._kernel.nft_transaction(render_table(self.table, wanted))
        except KernelError as error:
            if error.errno not in nf.MISSING:
                raise
            raise Unavailable(
                f"nf_tables : {error.detail}: this kernel lacks nf_tables with NAT, fib and "
                "masquerade: load the modules nft_chain_nat, nft_masq, nft_fib_ipv4, "
                "or use network none or host"
            ) from error

    def delete(self) -> bool:
        """Remove the table with everything in it; whether there was one."""
        return self._absent_is_fine(render_delete_table(self.table))

    def publish(self, ports: Sequence[Publishable]) -> None:
        """Publish ports; one that is published already leads to its new container.

        Raises Unavailable when the table is gone, KernelError.
        """
        try:
            self._send(render_add(self.table, ports))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise Unavailable(
                    f"nf_tables : table {self.table} is gone: something flushed the rules: "
                    "open the engine again to restore them"
                ) from error
            if error.errno not in (errno.EBUSY, errno.EEXIST):
                raise
            self.withdraw(ports)  # left by a run that ended ungracefully
            self._send(render_add(self.table, ports))
        flows.forget_misled(self._kernel, ports)

    def withdraw(self, ports: Sequence[Publishable]) -> None:
        """Withdraw ports; absent ones are fine, and so is an absent table."""
        if not self._absent_is_fine(render_remove(self.table, ports)) and len(ports) > 1:
            for port in ports:  # a transaction is all or nothing, and one of them was absent
                self._absent_is_fine(render_remove(self.table, [port]))
        flows.forget_withdrawn(self._kernel, ports)

    def published(self) -> list[PublishedPort]:
        """Every published port of the engine, as the kernel has it; none when there is no table."""
        found: list[PublishedPort] = []
        for map_name in (ONE_MAP, ANY_MAP):
            listed = text(1, self.table) + text(2, map_name)
            for payload in self._dump(nf.GETSETELEM, listed):
                found += parse_elements(payload)
        return found

    def stamps(self, table: str) -> list[str]:
        """The stamp of each rule that the kernel has in a table; none when there is no table."""
        stamps = []
        for payload in self._kernel.nft_dump(nf.GETRULE, text(1, table)):
            comment = parse(payload).get(7, b"")  # type, size, text, NUL
            stamps.append(string(comment[2:]))
        return stamps

    def remove_inherited(self, kept: Collection[str]) -> list[str]:
        """Remove tables of engines whose root was where this one's is, and is gone, but for those
        of a bridge in `kept` (names); what was removed."""
        tables = [string(parse(body).get(1, b"")) for body in self._dump(nf.GETTABLE, b"")]
        removed = []
        for table in tables:
            if table.startswith(_TABLE_PREFIX) and table != self.table:
                stamps = [parse_stamp(stamp) for stamp in self.stamps(table)]
                ours = {place for place, _ in stamps} == {self._place}
                if ours and not any(bridge in kept for _, bridge in stamps):
                    self._absent_is_fine(render_delete_table(table))
                    removed.append(f"rules {table}")
        return removed

    def _send(self, messages: list[Message]) -> None:
        if messages:
            self._kernel.nft_transaction(messages)

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        try:
            return self._kernel.nft_dump(kind, body)
        except KernelError as error:
            if error.errno not in nf.MISSING:
                raise
            return []

    def _absent_is_fine(self, messages: list[Message]) -> bool:
        """Whether there was something to remove."""
        try:
            self._send(messages)
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

RULES_VERSION = 2  # of what render_rules says; a test holds it against the bytes
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


class Rule(NamedTuple):
    """One rule. `stamp` is its comment: whether it is current can be told without decoding it."""

    chain: str
    expressions: list[bytes]
    stamp: str


def stamp(place: str, segment: Segment | None = None) -> str:
    """The comment of a rule: its version, whose it is (see mark.py), and which network it is for."""
    words = ["pynetns", f"v{RULES_VERSION}", place, *(segment or ())]
    return " ".join(words)


def parse_stamp(stamp: str) -> tuple[str, str]:
    """The place and the bridge in a stamp; "" for each that it does not have."""
    words = stamp.split(" ")
    if words[:2] != ["pynetns", f"v{RULES_VERSION}"]:
        return "", ""
    return words[2] if len(words) > 2 else "", words[3] if len(words) > 3 else ""


def render_table(table: str, rules: Sequence[Rule]) -> list[Message]:
    """Messages that make the table, or bring an existing one up to date and keep its elements."""
    messages = [Message(nf.NEWTABLE, nf.CREATE, text(1, table) + u32(2, 0))]
    messages += [_chain(table, *chain) for chain in _CHAINS]
    messages += [_map(table, number, *shape) for number, shape in enumerate(_MAPS, 1)]
    messages.append(Message(nf.DELRULE, 0, text(1, table)))  # all of them
    for chain, expressions, stamp in rules:
        comment = stamp.encode() + b"\0"
        mark = attr(7, bytes((0, len(comment))) + comment)
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


def render_rules(segments: Sequence[Segment], place: str) -> list[Rule]:
    """The rules for a set of networks, in order: chain by chain, as the kernel lists them."""
    segments = sorted(segments)
    common = stamp(place)
    rules = [
        Rule(
            "guard",
            [*nf.in_interface(one.bridge), *nf.destination_in(_LOOPBACK), nf.verdict(nf.DROP)],
            stamp(place, one),
        )
        for one in segments
    ]
    returns = [*nf.destination_in(_LOOPBACK), nf.verdict(nf.RETURN)]
    rules.append(Rule("prerouting", returns, common))
    for chain in ("prerouting", "output"):
        rules += [Rule(chain, expressions, common) for expressions in _render_dnat()]
    for one in segments:
        rules += [Rule("postrouting", how, stamp(place, one)) for how in _render_masquerade(one)]
    rules += [Rule("forward", _render_forward(one), stamp(place, one)) for one in segments]
    return rules


def _render_dnat() -> list[list[bytes]]:
    return [
        [nf.l4_protocol(1), nf.destination(9), nf.port(10), nf.lookup(ONE_MAP), nf.dnat()],
        [
            *nf.destination_is_local(),
            nf.l4_protocol(1),
            nf.port(9),
            nf.lookup(ANY_MAP),
            nf.dnat(),
        ],
    ]


def _render_masquerade(one: Segment) -> list[list[bytes]]:
    to_bridge = nf.out_interface(one.bridge)
    not_to_bridge = nf.out_interface(one.bridge, equal=False)
    return [
        [*nf.source_in(one.subnet), *not_to_bridge, nf.masquerade()],
        [*nf.source_in(_LOOPBACK), *to_bridge, nf.masquerade()],
        [
            *nf.source_in(one.subnet),
            *nf.destination_in(one.subnet),
            *nf.connection(nf.CT_STATUS, nf.CT_DNAT),
            nf.masquerade(),
        ],
    ]


def _render_forward(one: Segment) -> list[bytes]:
    return [
        *nf.in_interface(one.bridge, equal=False),
        *nf.out_interface(one.bridge),
        *nf.connection(nf.CT_STATE, nf.CT_KNOWN, present=False),
        *nf.connection(nf.CT_STATUS, nf.CT_DNAT, present=False),
        nf.verdict(nf.DROP),
    ]
