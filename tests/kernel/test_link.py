"""csrc/netlink.c, csrc/link.c and lowlevel/links.py: what the kernel has after each call."""

from __future__ import annotations

import doctest
import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from pynetns.errors import InvalidParameter, KernelError
from pynetns.kernel import LinuxKernel
from pynetns.lowlevel import links, namespaces
from pynetns.lowlevel.links import Links
from pynetns.lowlevel.namespaces import NetworkNamespace

pytestmark = pytest.mark.root


@pytest.fixture
def switch() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create(ipv6_off=False) as namespace:
        yield namespace


@pytest.fixture
def box() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create() as namespace:
        yield namespace


@pytest.fixture
def outer(switch) -> Links:
    return Links(switch)


@pytest.fixture
def inner(box) -> Links:
    return Links(box)


def ip(namespace: NetworkNamespace, *args: str) -> list[dict]:
    """What iproute2 reads, which shares no code with ours."""
    command = ["ip", "-d", "-j", *args]
    done = namespace.run(subprocess.run, command, capture_output=True, check=True)
    return json.loads(done.stdout or b"[]")


def names(namespace: NetworkNamespace) -> list[str]:
    return [name for _, name in namespace.run(socket.if_nameindex)]


@pytest.mark.parametrize("module", [links, namespaces])
def test_example_in_the_docstring(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_bridge(switch, outer):
    index = outer.bridge("br0", "10.9.0.1/24", mtu=1400, alias="pynetns:test")
    (bridge,) = ip(switch, "addr", "show", "br0")
    info = bridge["linkinfo"]["info_data"]
    assert bridge["ifindex"] == index == outer.index("br0")
    assert bridge["address"] == "02:42:0a:09:00:01"
    assert (bridge["mtu"], bridge["ifalias"]) == (1400, "pynetns:test")
    assert (info["forward_delay"], info["stp_state"]) == (0, 0)
    assert "UP" in bridge["flags"]
    assert ip(switch, "link", "show", "br0")[0]["inet6_addr_gen_mode"] == "none"
    assert [(a["local"], a["prefixlen"]) for a in bridge["addr_info"]] == [("10.9.0.1", 24)]


def test_bridge_whose_name_is_taken(switch, outer):
    outer.bridge("br0", "10.9.0.1/24", alias="first")
    with pytest.raises(KernelError) as caught:
        outer.bridge("br0", "10.9.1.1/24", alias="second")
    assert (caught.value.errno, caught.value.step) == (errno.EEXIST, "bridge")
    (bridge,) = ip(switch, "addr", "show", "br0")
    assert bridge["ifalias"] == "first" and len(bridge["addr_info"]) == 1


def test_failed_bridge_leaves_nothing(switch):
    with pytest.raises(KernelError) as caught:
        LinuxKernel.bridge_create(
            switch.netlink(), "br0", alias="", mtu=1500, address="10.9.0.1", prefix=99
        )
    assert (caught.value.errno, caught.value.step) == (errno.EINVAL, "address")
    subject, _, words = caught.value.detail.partition(": ")
    assert subject == "br0"
    assert not words or "prefix" in words  # the kernel's own, of those that have words for this
    assert names(switch) == ["lo"]


def test_veth_in_place_with_everything(switch, outer, box):
    outer.bridge("br0", "10.9.0.1/24")
    outer.veth(
        "veth0", "eth0", peer=box, master="br0", mtu=1400, peer_mac="02:42:0a:09:00:02",
        hairpin=True, no_ipv6=True,
    )  # fmt: skip
    (host,) = ip(switch, "link", "show", "veth0")
    (peer,) = ip(box, "link", "show", "eth0")
    assert host["master"] == "br0" and "UP" in host["flags"] and host["mtu"] == 1400
    assert host["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert host["linkinfo"]["info_slave_data"]["isolated"] is False
    assert host["inet6_addr_gen_mode"] == "none"
    assert (host["num_tx_queues"], host["num_rx_queues"]) == (1, 1)
    assert peer["address"] == "02:42:0a:09:00:02" and peer["mtu"] == 1400
    assert (peer["num_tx_queues"], peer["num_rx_queues"]) == (1, 1)
    assert names(box) == ["lo", "eth0"]


def test_no_link_local_address_once_the_pair_is_up(switch, outer, box, inner):
    outer.bridge("br0", "10.9.0.1/24")
    outer.veth("veth0", "eth0", peer=box, master="br0", no_ipv6=True)
    inner.configure("eth0", "10.9.0.2/24")
    for name in ("veth0", "br0"):
        (link,) = ip(switch, "-6", "addr", "show", name) or [{"addr_info": []}]
        assert link.get("addr_info", []) == []


def test_plain_veth_stays_plain(switch, outer):
    outer.veth("a0", "a1", up=False)
    (host,) = ip(switch, "link", "show", "a0")
    assert "master" not in host and "UP" not in host["flags"]
    assert host["inet6_addr_gen_mode"] == "eui64"


def test_veth_whose_name_is_taken_leaves_the_other_alone(switch, outer, box):
    outer.bridge("br0", "10.9.0.1/24")
    outer.veth("veth0", "peer0", up=False)
    with pytest.raises(KernelError) as caught:
        outer.veth("veth0", "eth0", peer=box, master="br0", no_ipv6=True)
    assert (caught.value.errno, caught.value.step) == (errno.EEXIST, "veth")
    (link,) = ip(switch, "link", "show", "veth0")
    assert "master" not in link and "UP" not in link["flags"]
    assert link["inet6_addr_gen_mode"] == "eui64"
    assert names(box) == ["lo"]


def test_veth_that_fails_half_way_leaves_nothing(switch, outer, box):
    with pytest.raises(KernelError) as caught:
        outer.veth("veth0", "eth0", peer=box, hairpin=True)  # of no bridge
    assert caught.value.step == "veth"
    assert names(switch) == ["lo"] and names(box) == ["lo"]


def test_veth_without_its_bridge(switch, outer, box):
    with pytest.raises(KernelError) as caught:
        outer.veth("veth0", "eth0", peer=box, master="br0")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(KernelError) as caught:
        LinuxKernel.veth_create(switch.netlink(), "veth0", "eth0", peer_netns=box.fd, master=4711)
    assert caught.value.errno in (errno.ENODEV, errno.EINVAL)
    assert names(switch) == ["lo"] and names(box) == ["lo"]


def test_configure(switch, outer, box, inner):
    outer.bridge("br0", "10.9.0.1/24")
    outer.veth("veth0", "eth0", peer=box, master="br0")
    index = inner.configure("eth0", "10.9.0.2/24", gateway="10.9.0.1", broadcast="10.9.0.255")
    (eth0,) = ip(box, "addr", "show", "eth0")
    assert eth0["ifindex"] == index and "LOWER_UP" in eth0["flags"]
    (address,) = eth0["addr_info"]
    assert (address["local"], address["prefixlen"]) == ("10.9.0.2", 24)
    assert address["broadcast"] == "10.9.0.255"
    routes = {(r["dst"], r.get("gateway"), r["dev"]) for r in ip(box, "route")}
    assert routes == {("default", "10.9.0.1", "eth0"), ("10.9.0.0/24", None, "eth0")}
    with switch.run(socket.create_server, ("10.9.0.1", 0)) as server:
        box.run(socket.create_connection, server.getsockname(), 5).close()


def test_configure_reports_the_first_failure(outer, box, inner):
    outer.veth("veth0", "eth0", peer=box)
    with pytest.raises(KernelError) as caught:
        inner.configure("eth0", "10.9.0.2/24", gateway="192.0.2.1")  # not on link
    assert caught.value.step == "route" and caught.value.detail.startswith("eth0: ")
    with pytest.raises(KernelError) as caught:
        inner.configure("eth1", "10.9.0.2/24")
    assert (caught.value.errno, caught.value.detail) == (errno.ENODEV, "eth1")


def test_addresses_and_routes(box, outer, inner):
    outer.veth("veth0", "eth0", peer=box)
    inner.set_up("eth0")
    inner.add_address("eth0", "10.9.0.2/24")
    with pytest.raises(KernelError) as caught:
        inner.add_address("eth0", "10.9.0.2/24")
    assert (caught.value.errno, caught.value.step) == (errno.EEXIST, "address")
    inner.add_route("10.10.0.0/16", "eth0", gateway="10.9.0.1")
    inner.add_route("10.11.0.0/16", "eth0")
    inner.add_route("default", "eth0", gateway="10.9.0.1")
    routes = {(r["dst"], r.get("gateway"), r.get("scope")) for r in ip(box, "route")}
    assert routes >= {
        ("10.10.0.0/16", "10.9.0.1", "global"),
        ("10.11.0.0/16", None, "link"),
        ("default", "10.9.0.1", "global"),
    }
    inner.set_up("eth0", False)
    assert "UP" not in ip(box, "link", "show", "eth0")[0]["flags"]


def test_delete(switch, outer, box):
    outer.veth("veth0", "eth0", peer=box)
    outer.delete("veth0")
    outer.delete("veth0")
    assert names(switch) == ["lo"] and names(box) == ["lo"]
    with pytest.raises(KernelError) as caught:
        outer.index("veth0")
    assert caught.value.errno == errno.ENODEV


def test_delete_reports_a_real_failure(outer):
    with pytest.raises(KernelError) as caught:
        outer.delete("lo")
    assert caught.value.errno == errno.EOPNOTSUPP


def test_links_of_the_callers_own_namespace():
    with Links() as own:
        assert own.index("lo") == socket.if_nametoindex("lo")


def test_answer_to_an_abandoned_request_is_skipped(switch, outer):
    """A request whose answer nobody read must not be taken for that of the next one."""
    with socket.socket(fileno=os.dup(switch.netlink())) as sock:
        body = b"\0" * 16
        sock.sendto(
            (16 + len(body)).to_bytes(4, "little") + b"\x12\0\x05\0" + bytes(8) + body, (0, 0)
        )
    outer.set_up("lo", False)
    outer.set_up("lo", True)
    assert "UP" in ip(switch, "link", "show", "lo")[0]["flags"]


@pytest.mark.parametrize("name", ["", "0123456789abcdef", "a/b", "a b", "..", "ä" * 8])
def test_bad_names(outer, name):
    with pytest.raises(InvalidParameter, match="link name"):
        outer.bridge(name, "10.9.0.1/24")


def test_longest_name(outer):
    assert outer.bridge("0123456789abcde", "10.9.0.1/24") == outer.index("0123456789abcde")


@pytest.mark.parametrize("address", ["", "10.9.0.1", "10.9.0.1/33", "10.9.0/24", "::1/64", "a/8"])
def test_bad_addresses(outer, address):
    with pytest.raises(InvalidParameter, match="address"):
        outer.bridge("br0", address)


@pytest.mark.parametrize("mac", ["02:42", "zz:zz:zz:zz:zz:zz", "02:42:0a:09:00:02:03"])
def test_bad_macs(outer, mac):
    with pytest.raises(InvalidParameter, match="MAC"):
        outer.veth("veth0", "eth0", peer_mac=mac)
