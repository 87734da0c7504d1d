"""network/drivers/bridge.py and network/pools.py on the real kernel: made, adopted, repaired, refused; in private namespaces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import Conflict, KernelError, Unavailable
from pynetns.kernel import LinuxKernel
from pynetns.kernel.interfaces import Link
from pynetns.lowlevel.links import Links
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.network import pools
from pynetns.network.drivers import bridge
from pynetns.network.mark import Mark
from pynetns.network.pools import check_free, choose_pool
from pynetns.store import NetworkRow

pytestmark = pytest.mark.root

PLACE, ELSEWHERE = "a" * 16, "b" * 16
ENGINE, ANOTHER = Mark("0" * 32, PLACE), Mark("1" * 32, ELSEWHERE)
GONE = Mark("2" * 32, PLACE)  # another engine, of a root that was where this one's is
NAME = "pn-test"


@pytest.fixture
def machine() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create() as namespace:
        yield namespace


def set_up(machine: NetworkNamespace, mark: Mark = ENGINE) -> int:
    return machine.run(bridge.setup_bridge, LinuxKernel(), NAME, mark, "10.77.0.1", 16, 1400)


def look(machine: NetworkNamespace, name: str = NAME) -> Link | None:
    return machine.run(LinuxKernel.link_get, name)


def ip(machine: NetworkNamespace, *args: str) -> str:
    return machine.run(
        subprocess.run, ["ip", *args], capture_output=True, text=True, check=True
    ).stdout


def test_made(machine):
    made = set_up(machine)
    assert look(machine) == Link(
        name=NAME,
        ifindex=made,
        up=True,
        kind="bridge",
        alias=ENGINE.alias(),
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
    with pytest.raises(Conflict, match=ANOTHER.alias()):
        set_up(machine)
    assert remove(machine) == []
    assert look(machine) is not None


def test_bridge_of_a_version_that_wrote_no_place_is_ours(machine):
    made = set_up(machine, Mark(ENGINE.engine_id, ""))
    assert set_up(machine) == made


def test_bridge_of_a_root_that_is_gone_is_made_anew(machine):
    """Unless a container's link is on it; others are left, without a master."""
    left = set_up(machine, GONE)
    for name in ("veth0123456", "mine"):
        ip(machine, "link", "add", name, "master", NAME, "type", "veth", "peer", "name", f"p{name}")
    with pytest.raises(
        Conflict, match=rf"bridge {NAME} : containers of a root that was deleted.*gc"
    ):
        set_up(machine)
    assert look(machine).ifindex == left and look(machine, "veth0123456").master == left
    ip(machine, "link", "del", "veth0123456")
    assert set_up(machine) != left
    assert look(machine).alias == ENGINE.alias()
    assert look(machine, "mine").master == 0


def test_bridge_of_a_killed_set_up_is_made_anew(machine):
    """As csrc/link.c leaves it between its two sends: right address, no alias, down."""
    ip(machine, "link", "add", NAME, "address", "02:42:0a:4d:00:01", "type", "bridge")
    set_up(machine)
    assert look(machine).alias == ENGINE.alias()


def row(bridge: str) -> NetworkRow:
    return NetworkRow("n" * 64, "bridge", "bridge", "10.77.0.0/16", "10.77.0.1", bridge, 1400, 0)


def remove(machine: NetworkNamespace) -> list[str]:
    return machine.run(bridge.BridgeDriver(LinuxKernel(), ENGINE).delete, row(NAME))


def test_removed(machine):
    set_up(machine)
    ip(machine, "link", "add", "veth0123456", "master", NAME, "type", "veth", "peer", "name", "p")
    assert remove(machine) == ["link veth0123456", f"bridge {NAME}"]
    assert remove(machine) == []
    assert [link.name for link in machine.run(LinuxKernel.links_dump)] == ["lo"]


def test_links_of_one_master_only(machine):
    ifindex = set_up(machine)
    ip(machine, "link", "add", "veth0", "master", NAME, "type", "veth", "peer", "name", "p")
    assert [link.name for link in machine.run(LinuxKernel.links_dump, ifindex)] == ["veth0"]
    names = {link.name for link in machine.run(LinuxKernel.links_dump)}
    assert names == {"lo", NAME, "veth0", "p"}


def test_link_that_is_absent_or_cannot_be_asked_for(machine):
    assert look(machine, "nowhere") is None
    with pytest.raises(KernelError):
        look(machine, "a-name-that-is-too-long")


def test_pool_overlaps_no_address_and_no_route(machine):
    def choose(*taken: str) -> str:
        return machine.run(choose_pool, LinuxKernel(), taken)

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
    monkeypatch.setattr(pools, "_RESOLV_CONF", str(conf))
    assert machine.run(choose_pool, LinuxKernel()) == "172.18.0.0/16"


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("10.20.9.1/24", "10.20.0.0/16, which this machine is on"),
        ("10.16.0.1/12", "10.20.0.0/16, which this machine is on"),
        ("10.31.1.1/24", "10.30.0.0/15, which this machine has a route to"),
        ("10.40.0.1/24", "10.40.0.0/20, which another network has"),
    ],
)
def test_subnet_that_would_hide_something_is_refused(machine, subnet, why):
    ip(machine, "link", "add", "a0", "up", "type", "bridge")
    ip(machine, "addr", "add", "10.20.0.1/16", "dev", "a0")
    ip(machine, "route", "add", "10.30.0.0/15", "dev", "a0")
    with pytest.raises(Conflict, match=rf"--bip {subnet} : overlaps {why}: choose"):
        machine.run(check_free, LinuxKernel(), subnet, "--bip", ["10.40.0.0/20"], ())
    machine.run(check_free, LinuxKernel(), "10.50.0.1/24", "--bip", ["10.40.0.0/20"], ())
    if "this machine" in why:  # what is on our own bridge is about to be free
        own = [look(machine, "a0").ifindex]
        machine.run(check_free, LinuxKernel(), subnet, "--bip", [], own)
