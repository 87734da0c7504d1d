"""network/bridge.py on the real kernel: made, adopted, repaired, refused; in private namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import Conflict, KernelError, Unavailable
from pynetns.kernel import Kernel
from pynetns.lowlevel.links import Links
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.network import bridge
from pynetns.network.bridge import Bridge, Link

pytestmark = pytest.mark.root

ENGINE, ANOTHER = "0" * 32, "1" * 32
NAME = "pn-test"


@pytest.fixture
def machine() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create() as namespace:
        yield namespace


def set_up(machine: NetworkNamespace, engine_id: str = ENGINE) -> Bridge:
    return machine.run(bridge.setup_bridge, Kernel(), NAME, engine_id, "10.77.0.1", 16, 1400)


def look(machine: NetworkNamespace, name: str = NAME) -> Link | None:
    return machine.run(bridge.read_link, name)


def ip(machine: NetworkNamespace, *args: str) -> str:
    return machine.run(
        subprocess.run, ["ip", *args], capture_output=True, text=True, check=True
    ).stdout


def test_made(machine):
    made = set_up(machine)
    assert look(machine) == Link(
        ifindex=made.ifindex,
        up=True,
        kind="bridge",
        alias=f"pynetns:{ENGINE}",
        mac=bytes.fromhex("02420a4d0001"),
    )
    assert "inet 10.77.0.1/16" in ip(machine, "addr", "show", NAME)
    assert "mtu 1400" in ip(machine, "link", "show", NAME)


def test_sysctls_of_the_bridge_and_of_nothing_else(machine):
    def read(device: str) -> list[str]:
        top = Path("/proc/sys/net/ipv4/conf") / device
        return [(top / key).read_text().strip() for key in ("route_localnet", "forwarding")]

    # a new namespace may have it from the first one (net.core.devconf_inherit_init_net)
    machine.run(Path("/proc/sys/net/ipv4/ip_forward").write_text, "0")
    set_up(machine)
    assert machine.run(read, NAME) == ["1", "1"]
    for device in ("all", "default", "lo"):
        assert machine.run(read, device) == ["0", "0"]
    assert machine.run(bridge.forwarding_enabled) is False
    machine.run(Path("/proc/sys/net/ipv4/ip_forward").write_text, "1")
    assert machine.run(bridge.forwarding_enabled) is True


def test_adopted_as_it_is(machine):
    made = set_up(machine)
    before = ip(machine, "addr", "show", NAME)
    assert set_up(machine) == made
    assert ip(machine, "addr", "show", NAME) == before


def test_adopted_and_repaired(machine):
    made = set_up(machine)
    ip(machine, "addr", "flush", "dev", NAME)
    ip(machine, "link", "set", NAME, "down")
    assert set_up(machine) == made
    assert look(machine).up
    assert "inet 10.77.0.1/16" in ip(machine, "addr", "show", NAME)


@pytest.mark.parametrize("kind", [["bridge"], ["veth", "peer", "name", "other"]])
def test_foreign_device_is_refused_and_left_alone(machine, kind):
    ip(machine, "link", "add", NAME, "up", "type", *kind)
    before = look(machine)
    with pytest.raises(Conflict, match=rf"bridge {NAME} .*no alias.*--bridge"):
        set_up(machine)
    assert look(machine) == before


def test_bridge_of_another_engine_is_refused(machine):
    set_up(machine, ANOTHER)
    with pytest.raises(Conflict, match=f"pynetns:{ANOTHER}"):
        set_up(machine)
    assert machine.run(bridge.remove_bridge, Kernel(), NAME, ENGINE) is False
    assert look(machine) is not None


def test_bridge_of_a_killed_set_up_is_made_anew(machine):
    """As csrc/link.c leaves it between its two sends: right address, no alias, down."""
    ip(machine, "link", "add", NAME, "address", "02:42:0a:4d:00:01", "type", "bridge")
    set_up(machine)
    assert look(machine).alias == f"pynetns:{ENGINE}"


def test_removed(machine):
    set_up(machine)
    assert machine.run(bridge.remove_bridge, Kernel(), NAME, ENGINE) is True
    assert machine.run(bridge.remove_bridge, Kernel(), NAME, ENGINE) is False
    assert machine.run(bridge.host_link_names) == {"lo"}


def test_link_that_is_absent_or_cannot_be_asked_for(machine):
    assert look(machine, "nowhere") is None
    with pytest.raises(KernelError):
        look(machine, "a-name-that-is-too-long")


def test_pool_overlaps_no_address_and_no_route(machine):
    def choose(*taken: str) -> str:
        return machine.run(bridge.choose_pool, taken)

    assert choose() == "172.17.0.0/16"
    assert choose("172.17.200.0/24") == "172.18.0.0/16"
    links = Links(machine)
    links.veth("a0", "a1")
    links.add_address("a0", "172.17.3.1/20")
    assert choose() == "172.18.0.0/16"
    links.add_route("172.18.0.0/15", "a0")
    assert choose() == "172.20.0.0/16"
    links.add_route("default", "a0")
    assert choose() == "172.20.0.0/16"
    ip(machine, "route", "add", "172.16.0.0/12", "dev", "a0", "table", "100")
    assert choose() == "192.168.0.0/20"
    assert choose("192.168.0.0/17") == "192.168.128.0/20"
    ip(machine, "route", "add", "blackhole", "192.168.0.0/16")
    with pytest.raises(Unavailable, match="--bip"):
        choose()


def test_pool_does_not_hide_a_name_server(machine, monkeypatch, tmp_path):
    conf = tmp_path / "resolv.conf"
    conf.write_text("search example.org\nnameserver ::1\nnameserver 172.17.0.53\nnameserver\n")
    monkeypatch.setattr(bridge, "_RESOLV_CONF", str(conf))
    assert machine.run(bridge.choose_pool) == "172.18.0.0/16"
