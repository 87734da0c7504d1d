"""network/rules.py, kernel/nfnetlink.py and netlink.py: what is rendered, taken apart again."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.kernel import netlink, nfnetlink
from pynetns.network import rules
from pynetns.network.drivers.base import Segment
from pynetns.network.mark import Mark
from pynetns.network.published import PublishedPort
from pynetns.network.rules import Rules
from pynetns.testing import FakeKernel

TABLE = "pynetns-01234567"
WEB = PublishedPort("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
ONE, OTHER = Segment("pynetns0", "172.17.0.0/16"), Segment("br-blue", "172.18.0.0/16")
PLACE = "0123456789abcdef"
RULE_COUNT = 10  # for one network
DNS = PublishedPort("udp", "127.0.0.1", 53, "172.17.0.3", 5353)

# The bytes of each version of the rules. A change of them needs a new version, or engines that find
# the old rules would take them for current.
RULES = {2: 0x6E3F8ED2}


def render(*segments: Segment) -> list[nfnetlink.Message]:
    return rules.render_table(TABLE, rules.render_rules(segments or [ONE], PLACE))


def expressions(message: nfnetlink.Message) -> list[tuple[str, dict[int, bytes]]]:
    """A rule's expressions as (name, attributes)."""
    found = []
    for _, one in netlink.attributes(netlink.parse(message.body)[4]):
        fields = netlink.parse(one)
        found.append((netlink.string(fields[1]), netlink.parse(fields.get(2, b""))))
    return found


def test_table_name_is_the_engines():
    assert rules.table_name("0123456789abcdef" * 2) == TABLE


def test_rules_have_not_changed_without_a_new_version():
    rendered = nfnetlink.batch(render())
    assert zlib.crc32(rendered) == RULES[rules.RULES_VERSION]


def test_table_is_one_transaction_in_order():
    messages = render()
    kinds = [message.kind for message in messages]
    assert kinds == [
        nfnetlink.NEWTABLE,
        *[nfnetlink.NEWCHAIN] * 5,
        *[nfnetlink.NEWSET] * 2,
        nfnetlink.DELRULE,
        *[nfnetlink.NEWRULE] * RULE_COUNT,
    ]
    assert all(netlink.string(netlink.parse(m.body)[1]) == TABLE for m in messages)


def test_chains_have_their_hooks_and_priorities():
    found = {}
    for message in render(Segment("br", "10.0.0.0/8")):
        if message.kind == nfnetlink.NEWCHAIN:
            attrs = netlink.parse(message.body)
            hook = netlink.parse(attrs[4])
            where = struct.unpack(">i", hook[1])[0], struct.unpack(">i", hook[2])[0]
            found[netlink.string(attrs[3])] = (netlink.string(attrs[7]), *where)
    assert found == {
        "guard": ("filter", 0, -300),
        "prerouting": ("nat", 0, -100),
        "output": ("nat", 3, -100),
        "postrouting": ("nat", 4, 100),
        "forward": ("filter", 2, 0),
    }


def test_rules_say_what_they_should():
    found = [
        (netlink.string(netlink.parse(m.body)[2]), [name for name, _ in expressions(m)])
        for m in render(Segment("br", "10.0.0.0/8"))
        if m.kind == nfnetlink.NEWRULE
    ]
    address = ["payload", "bitwise", "cmp"]
    interface = ["meta", "cmp"]
    one = ["meta", "payload", "payload", "lookup", "nat"]
    any_ = ["fib", "cmp", "meta", "payload", "lookup", "nat"]
    connection = ["ct", "bitwise", "cmp"]
    assert found == [
        ("guard", [*interface, *address, "immediate"]),
        ("prerouting", [*address, "immediate"]),
        ("prerouting", one),
        ("prerouting", any_),
        ("output", one),
        ("output", any_),
        ("postrouting", [*address, *interface, "masq"]),
        ("postrouting", [*address, *interface, "masq"]),
        ("postrouting", [*address, *address, *connection, "masq"]),
        ("forward", [*interface, *interface, *connection, *connection, "immediate"]),
    ]


@pytest.mark.parametrize(
    ("subnet", "mask", "network"),
    [
        ("172.17.0.0/16", "ffff0000", "ac110000"),
        ("10.77.5.9/20", "fffff000", "0a4d0000"),
        ("192.0.2.1/32", "ffffffff", "c0000201"),
        ("0.0.0.0/0", "00000000", "00000000"),
    ],
)
def test_subnet_is_masked(subnet, mask, network):
    _, bitwise, compare = nfnetlink.source_in(subnet)
    assert bytes.fromhex(mask) in bitwise and bytes.fromhex(network) in compare


def stamps(*segments: Segment) -> list[tuple[str, str]]:
    """(chain, stamp) of every rule, out of the messages."""
    found = []
    for message in render(*segments):
        if message.kind == nfnetlink.NEWRULE:
            attrs = netlink.parse(message.body)
            kind, size, *text = attrs[7]
            assert kind == 0 and size == len(text)
            found.append((netlink.string(attrs[2]), netlink.string(bytes(text))))
    return found


def test_every_rule_has_a_stamp():
    common, own = rules.stamp(PLACE), rules.stamp(PLACE, ONE)
    assert [text for _, text in stamps(ONE)] == [own, *[common] * 5, *[own] * 4]
    assert rules.parse_stamp(common) == (PLACE, "")
    assert rules.parse_stamp(own) == (PLACE, ONE.bridge)
    for other in ("pynetns v1 pynetns0 172.17.0.0/16", "", "pynetns v2"):
        assert rules.parse_stamp(other) == ("", "")


def test_longest_stamp_fits_a_comment():
    longest = Segment("0123456789abcde", "255.255.255.255/32")
    assert len(rules.stamp(PLACE, longest)) < 128  # nft's limit


def test_rules_of_several_networks_are_those_of_each_and_the_common_ones_once():
    """Whatever the order in which the networks are given."""
    both = stamps(ONE, OTHER)
    assert both == stamps(OTHER, ONE)
    for segment in (ONE, OTHER):
        mine = [one for one in both if one[1] == rules.stamp(PLACE, segment)]
        assert mine == [one for one in stamps(segment) if one[1] != rules.stamp(PLACE)]
    assert len(both) == 2 * RULE_COUNT - 5
    chains = [chain for chain, _ in both]
    assert chains == sorted(chains, key=["guard", "prerouting", "output", "postrouting",
                                         "forward"].index)  # fmt: skip


def test_publishing_a_port_is_one_small_message_however_many_networks_there_are():
    kernel = FakeKernel()
    table = Rules(kernel, Mark("0123456789abcdef" * 2, PLACE))
    table.ensure([Segment(f"br{n}", f"10.{n}.0.0/16") for n in range(50)])
    kernel.calls.clear()
    table.publish([WEB])
    ((_, (messages,)),) = kernel.calls
    assert len(messages) == 1 and len(messages[0].body) < 100


def test_rules_that_are_as_they_should_be_are_not_sent_again():
    kernel = FakeKernel()
    table = Rules(kernel, Mark("0123456789abcdef" * 2, PLACE))
    table.ensure([ONE, OTHER])
    kernel.calls.clear()
    table.ensure([OTHER, ONE])
    assert "nft_transaction" not in [call.name for call in kernel.calls]
    table.ensure([ONE])
    assert [call.name for call in kernel.calls].count("nft_transaction") == 1
    assert table.stamps(TABLE) == [text for _, text in stamps(ONE)]


def test_ports_go_to_the_map_of_their_binding():
    any_, one = rules.render_add(TABLE, [WEB, DNS])
    assert [netlink.string(netlink.parse(m.body)[2]) for m in (any_, one)] == [
        rules.ANY_MAP,
        rules.ONE_MAP,
    ]
    assert bytes.fromhex("06000000 1f900000") in any_.body  # tcp . 8080
    assert bytes.fromhex("ac110002 00500000") in any_.body  # 172.17.0.2 . 80
    assert bytes.fromhex("11000000 7f000001 00350000") in one.body  # udp . 127.0.0.1 . 53
    assert bytes.fromhex("ac110003 14e90000") in one.body


def test_removal_names_keys_only():
    (message,) = rules.render_remove(TABLE, [WEB])
    assert message.kind == nfnetlink.DELSETELEM
    assert bytes.fromhex("1f90") in message.body and bytes.fromhex("ac110002") not in message.body


def test_no_ports_no_messages():
    assert rules.render_add(TABLE, []) == []
    kernel = FakeKernel()
    table = Rules(kernel, Mark("0" * 32, PLACE))
    table.publish([])
    table.withdraw([])
    assert kernel.calls == []


ADDRESSES = st.ip_addresses(v=4).map(str)
NUMBERS = st.integers(1, 65535)
PORTS = st.builds(
    PublishedPort, st.sampled_from(["tcp", "udp"]), ADDRESSES, NUMBERS, ADDRESSES, NUMBERS
)


@given(st.lists(PORTS, max_size=20))
def test_rendered_ports_parse_back(ports):
    parsed = [
        port
        for message in rules.render_add(TABLE, ports)
        for port in rules.parse_elements(message.body)
    ]
    assert sorted(parsed) == sorted(ports)


def test_many_ports_fit_their_messages():
    ports = [WEB._replace(host_port=number) for number in range(1, 65536)]
    messages = rules.render_add(TABLE, ports)
    assert all(len(message.body) < 1 << 16 for message in messages)
    parsed = [p for message in messages for p in rules.parse_elements(message.body)]
    assert parsed == ports


def test_batch_is_numbered_and_only_its_last_message_is_acknowledged():
    data = nfnetlink.batch(rules.render_add(TABLE, [WEB, DNS]))
    heads, at = [], 0
    while at < len(data):
        size, kind, flags, number, _ = struct.unpack_from("=IHHII", data, at)
        heads.append((kind, flags & netlink.ACK, number))
        at += size
    assert at == len(data)
    new_element = 10 << 8 | nfnetlink.NEWSETELEM
    assert heads == [(0x10, 0, 0), (new_element, 0, 1), (new_element, 4, 2), (0x11, 0, 3)]


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_parse_back(pairs):
    data = b"".join(netlink.attr(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(netlink.attributes(data)) == pairs
