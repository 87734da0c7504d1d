"""network/rules.py on the real kernel: rules as nft reads them, and packets that follow them.

A private network namespace is "the machine"; others are containers and the world outside.
"""

from __future__ import annotations

import ctypes
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pynetns.errors import KernelError, Unavailable
from pynetns.kernel import LinuxKernel, nfnetlink
from pynetns.lowlevel.links import Links
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.network import rules
from pynetns.network.drivers.base import Segment
from pynetns.network.drivers.bridge import setup_bridge
from pynetns.network.mark import Mark
from pynetns.network.published import PublishedPort
from pynetns.network.rules import Rules

pytestmark = pytest.mark.root

ENGINE = "0123456789abcdef0123456789abcdef"
BRIDGE = "pn-test"
SUBNET = "10.77.0.0/16"
PLACE = "fedcba9876543210"
GATEWAY, BOX, OTHER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
HOST, OUTSIDE = "198.51.100.1", "198.51.100.2"


class World:
    """A machine with a bridge, two containers on it, and one neighbour."""

    def __init__(self, stack: ExitStack) -> None:
        self.machine = stack.enter_context(NetworkNamespace.create(ipv6_off=False))
        self.box = stack.enter_context(NetworkNamespace.create(lo_up=False))
        self.other = stack.enter_context(NetworkNamespace.create())
        self.outside = stack.enter_context(NetworkNamespace.create())
        self.machine.run(
            setup_bridge, LinuxKernel(), BRIDGE, Mark(ENGINE, PLACE), GATEWAY, 16, 1500
        )
        links = Links(self.machine)
        for name, box, address in (("veth0", self.box, BOX), ("veth1", self.other, OTHER)):
            links.veth(name, "eth0", peer=box, master=BRIDGE, hairpin=True, no_ipv6=True)
            Links(box).configure("eth0", f"{address}/16", gateway=GATEWAY)
        links.veth("up0", "peer0", peer=self.outside)
        links.configure("up0", f"{HOST}/24")
        Links(self.outside).configure("peer0", f"{OUTSIDE}/24")
        self.machine.run(Path("/proc/sys/net/ipv4/ip_forward").write_text, "1")
        self.rules = Rules(LinuxKernel(), Mark(ENGINE, PLACE))
        self.ensure()
        self.server = stack.enter_context(self.box.run(socket.create_server, ("0.0.0.0", 80)))
        self.server.settimeout(5)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.machine.run(function, *args)

    def ensure(self, *segments: Segment) -> None:
        self.call(self.rules.ensure, segments or [Segment(BRIDGE, SUBNET)])

    def publish(self, *ports: PublishedPort) -> None:
        self.call(self.rules.publish, ports)

    def withdraw(self, *ports: PublishedPort) -> None:
        self.call(self.rules.withdraw, ports)

    def ports(self) -> set[PublishedPort]:
        return set(self.call(self.rules.published))

    def ask(self, client: NetworkNamespace, address: str, port: int) -> str:
        """Connect from `client`, exchange a byte; the peer's address as the container sees it."""
        with client.run(socket.create_connection, (address, port), 5) as connection:
            accepted, peer = self.server.accept()
            with accepted:
                accepted.sendall(b"x")
                assert connection.recv(1) == b"x"
        return peer[0]

    def ruleset(self) -> str:
        done = self.call(
            lambda: subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True)
        )
        return done.stdout.decode()


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def tcp(host_port: int, host_ip: str = "0.0.0.0", to: str = BOX, port: int = 80) -> PublishedPort:
    return PublishedPort("tcp", host_ip, host_port, to, port)


def udp_socket(namespace: NetworkNamespace, address: str, port: int = 0) -> socket.socket:
    sock = namespace.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind((address, port))
    return sock


def is_empty(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.recv(9)
    except BlockingIOError:
        return True
    return False


# ---- traffic ----


@pytest.mark.parametrize("address", ["127.0.0.1", "127.5.5.5", GATEWAY, HOST])
def test_published_port_answers_on_every_address_of_the_machine(world, address):
    with pytest.raises(ConnectionRefusedError):
        world.ask(world.machine, address, 8080)
    world.publish(tcp(8080))
    seen = GATEWAY if address.startswith("127.") else address
    assert world.ask(world.machine, address, 8080) == seen


def test_published_port_answers_the_outside_which_the_container_sees(world):
    world.publish(tcp(8080))
    assert world.ask(world.outside, HOST, 8080) == OUTSIDE


@pytest.mark.parametrize("address", [GATEWAY, HOST])
def test_published_port_answers_containers_and_the_container_itself(world, address):
    world.publish(tcp(8080))
    assert world.ask(world.other, address, 8080) == GATEWAY
    assert world.ask(world.box, address, 8080) == GATEWAY


def test_hairpin_works_on_a_machine_that_does_not_forward(world):
    world.machine.run(Path("/proc/sys/net/ipv4/ip_forward").write_text, "0")
    path = Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/forwarding")
    world.machine.run(path.write_text, "1")  # ip_forward resets it; setup_bridge sets it
    world.publish(tcp(8080))
    assert world.ask(world.box, GATEWAY, 8080) == GATEWAY
    assert world.ask(world.machine, "127.0.0.1", 8080) == GATEWAY


def test_port_published_on_one_address(world):
    world.publish(tcp(8080, "127.0.0.1"), tcp(8081, HOST))
    assert world.ask(world.machine, "127.0.0.1", 8080) == GATEWAY
    assert world.ask(world.outside, HOST, 8081) == OUTSIDE
    for client, address, port in (
        (world.machine, HOST, 8080),
        (world.outside, HOST, 8080),
        (world.machine, "127.0.0.1", 8081),
    ):
        with pytest.raises(ConnectionRefusedError):
            world.ask(client, address, port)


def test_one_host_port_may_lead_to_different_containers_by_address(world):
    world.publish(tcp(8080, "127.0.0.1", BOX), tcp(8080, HOST, OTHER))
    assert world.ask(world.machine, "127.0.0.1", 8080) == GATEWAY
    with world.other.run(socket.create_server, ("0.0.0.0", 80)) as world.server:
        world.server.settimeout(5)
        assert world.ask(world.outside, HOST, 8080) == OUTSIDE


def test_udp(world):
    world.publish(PublishedPort("udp", "0.0.0.0", 5353, BOX, 53))
    with udp_socket(world.box, "0.0.0.0", 53) as server:
        for client_side, address in (
            (world.machine, "127.0.0.1"),
            (world.outside, HOST),
            (world.other, GATEWAY),
        ):
            with udp_socket(client_side, "0.0.0.0") as client:
                client.sendto(b"ping", (address, 5353))
                data, peer = server.recvfrom(99)
                server.sendto(data.upper(), peer)
                assert client.recvfrom(99) == (b"PING", (address, 5353))


def dns(to: str = BOX, host_ip: str = "0.0.0.0") -> PublishedPort:
    return PublishedPort("udp", host_ip, 5353, to, 53)


@pytest.mark.parametrize("host_ip", ["0.0.0.0", HOST])
def test_udp_client_that_spoke_too_early_reaches_the_container(world, host_ip):
    """Its flow is on record untranslated, and stays there as long as it goes on sending."""
    with (
        udp_socket(world.box, "0.0.0.0", 53) as server,
        udp_socket(world.outside, OUTSIDE) as client,
    ):
        client.sendto(b"early", (HOST, 5353))
        with pytest.raises(ConnectionRefusedError):
            client.connect((HOST, 5353))
            client.send(b"early")
            client.recv(9)
        world.publish(dns(host_ip=host_ip))
        client.send(b"late")
        assert server.recv(9) == b"late"


def test_udp_client_follows_the_port_to_another_container(world):
    with (
        udp_socket(world.box, "0.0.0.0", 53) as first,
        udp_socket(world.other, "0.0.0.0", 53) as second,
        udp_socket(world.outside, OUTSIDE) as client,
        udp_socket(world.machine, "127.0.0.1") as local,
    ):
        for server, address in ((first, BOX), (second, OTHER), (first, BOX)):
            world.publish(dns(address))
            for sender, host in ((client, HOST), (local, "127.0.0.1")):
                sender.sendto(b"ping", (host, 5353))
                assert server.recv(9) == b"ping"
            world.withdraw(dns(address))
        world.publish(dns(BOX))
        world.publish(dns(OTHER))  # without a withdrawal in between
        client.sendto(b"ping", (HOST, 5353))
        assert second.recv(9) == b"ping"


def test_flows_that_lead_right_or_pass_through_are_kept(world):
    def flows() -> set[bytes]:
        return {flow.identity for flow in world.call(LinuxKernel.conntrack_dump, [5353])}

    world.publish(dns())
    with udp_socket(world.outside, OUTSIDE) as client, udp_socket(world.other, OTHER) as passing:
        client.sendto(b"published", (HOST, 5353))
        passing.sendto(b"to the outside", (OUTSIDE, 5353))
        before = flows()
        assert len(before) == 2
        world.publish(dns())
        assert flows() == before
        world.withdraw(dns())
        assert len(flows()) == 1


def test_tcp_and_udp_of_one_number_are_apart(world):
    world.publish(PublishedPort("udp", "0.0.0.0", 8080, BOX, 80))
    with pytest.raises(ConnectionRefusedError):
        world.ask(world.machine, HOST, 8080)


def test_withdrawn_port_answers_no_more(world):
    world.publish(tcp(8080), tcp(8081))
    world.withdraw(tcp(8080))
    with pytest.raises(ConnectionRefusedError):
        world.ask(world.machine, "127.0.0.1", 8080)
    assert world.ask(world.machine, "127.0.0.1", 8081) == GATEWAY


def test_outbound_is_masqueraded(world):
    with (
        world.outside.run(socket.create_server, (OUTSIDE, 80)) as server,
        world.box.run(socket.create_connection, (OUTSIDE, 80), 5),
    ):
        server.settimeout(5)
        accepted, peer = server.accept()
        accepted.close()
    assert peer[0] == HOST


def test_traffic_within_the_network_is_not_touched(world):
    assert world.ask(world.other, BOX, 80) == OTHER
    assert world.ask(world.machine, BOX, 80) == GATEWAY


def test_outside_reaches_published_ports_only(world):
    """A neighbour that routes to the containers' subnet gets to no unpublished port."""
    Links(world.outside).add_route(SUBNET, "peer0", gateway=HOST)
    world.publish(PublishedPort("udp", "0.0.0.0", 5353, BOX, 53))
    with (
        udp_socket(world.box, "0.0.0.0", 53) as published,
        udp_socket(world.box, "0.0.0.0", 54) as unpublished,
        udp_socket(world.outside, "0.0.0.0") as client,
    ):
        client.sendto(b"no", (BOX, 54))
        client.sendto(b"yes", (HOST, 5353))
        assert published.recv(9) == b"yes"  # sent last, so the other would be here
        assert is_empty(unpublished)


@pytest.mark.parametrize("guarded", [False, True])
def test_container_does_not_reach_the_machines_loopback(world, guarded):
    """The bridge routes 127.0.0.0/8 for the sake of published ports: the guard must stop others."""
    box = Links(world.box)  # its loopback is down, so that 127.0.0.0/8 can be routed
    world.box.run(Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text, "1")
    box.add_route("127.0.0.0/8", "eth0", gateway=GATEWAY)
    if not guarded:
        world.call(world.rules.delete)
    with (
        udp_socket(world.machine, "127.0.0.1", 5000) as private,
        udp_socket(world.machine, GATEWAY, 5001) as public,
        udp_socket(world.box, BOX) as client,
    ):
        client.sendto(b"private", ("127.0.0.1", 5000))
        client.sendto(b"public", (GATEWAY, 5001))
        assert public.recv(9) == b"public"
        if not guarded:
            assert private.recv(9) == b"private"
            return
        assert is_empty(private)


# ---- the table ----


def test_nft_reads_the_rules_as_meant(world):
    world.publish(tcp(8080), PublishedPort("udp", "127.0.0.1", 53, OTHER, 5353))
    text = re.sub(
        r' comment "pynetns v\d+ ' + PLACE + r'( pn-test 10\.77\.0\.0/16)?"', "", world.ruleset()
    )
    expected = (Path(__file__).parents[1] / "golden" / "nft_table.txt").read_text()
    assert text == expected


def test_ensure_table_again_changes_nothing(world):
    world.publish(tcp(8080))
    before = world.ruleset()
    world.ensure()
    assert world.ruleset() == before


@pytest.mark.parametrize(
    "damage",
    [
        "flush table ip pynetns-01234567",
        "flush chain ip pynetns-01234567 postrouting",
        "add rule ip pynetns-01234567 forward drop",
    ],
)
def test_ensure_table_repairs_rules_and_keeps_ports(world, damage):
    world.publish(tcp(8080))
    before = world.ruleset()
    world.call(lambda: subprocess.run(["nft", *damage.split()], check=True))
    assert world.ruleset() != before
    world.ensure()
    assert world.ruleset() == before


def test_ensure_table_of_another_subnet_replaces_the_rules(world):
    world.ensure(Segment(BRIDGE, "10.78.0.0/20"))
    text = world.ruleset()
    assert "10.77." not in text and "10.78.0.0/20" in text


def test_engines_have_tables_of_their_own(world):
    other = Rules(LinuxKernel(), Mark("f" * 32, PLACE))
    world.call(other.ensure, [Segment("pn-two", "10.79.0.0/16")])
    world.publish(tcp(8080))
    assert world.call(other.published) == []
    assert world.call(other.delete) is True
    assert world.call(other.delete) is False
    assert world.ports() == {tcp(8080)}


def test_list_ports(world):
    ports = {
        tcp(8080), tcp(8080, HOST, OTHER, 81), PublishedPort("udp", "127.0.0.1", 65535, BOX, 1),
    }  # fmt: skip
    world.publish(*ports)
    assert world.ports() == ports


def test_removing_what_is_absent(world):
    world.publish(tcp(8080), tcp(8082))
    world.withdraw(tcp(8081))
    world.withdraw(tcp(8080), tcp(8081), tcp(8082))
    assert world.ports() == set()
    world.call(world.rules.delete)
    world.call(world.rules.delete)
    world.withdraw(tcp(8080))
    world.withdraw()
    assert world.ports() == set()


def test_publishing_again_is_fine_and_the_newest_target_holds(world):
    world.publish(tcp(8080, to=OTHER), tcp(8081))
    world.publish(tcp(8081))
    world.publish(tcp(8080), tcp(8082))
    assert world.ports() == {tcp(8080), tcp(8081), tcp(8082)}
    assert world.ask(world.machine, "127.0.0.1", 8080) == GATEWAY
    world.publish()


def test_publishing_without_a_table_names_the_remedy(world):
    world.call(world.rules.delete)
    with pytest.raises(Unavailable, match="pynetns-01234567 is gone"):
        world.publish(tcp(8080))


def test_thousands_of_ports_at_once(world):
    ports = [tcp(number, port=number) for number in range(20000, 30000)]
    world.publish(*ports)
    assert world.ports() == set(ports)
    world.withdraw(*ports)
    assert world.ports() == set()


def test_failed_transaction_changes_nothing_and_names_the_message(world):
    name = world.rules.table
    messages = rules.render_add(name, [tcp(8080)]) + rules.render_remove(name, [tcp(9)])
    with pytest.raises(KernelError, match="nf_tables delete port") as caught:
        world.call(nfnetlink.nft_transaction, messages)
    assert caught.value.name == "ENOENT"
    assert world.ports() == set()


def test_without_privilege(world):
    def as_nobody() -> None:
        class Header(ctypes.Structure):
            _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

        data = (ctypes.c_uint32 * 6)()
        ctypes.CDLL(None).capset(ctypes.byref(Header(0x20080522, 0)), data)  # this thread only
        world.rules.publish([tcp(8080)])

    with pytest.raises(KernelError) as caught:
        world.call(as_nobody)
    assert caught.value.name == "EPERM"


def test_several_networks_are_one_table_which_is_not_sent_again(world):
    """The kernel lists the rules as they were rendered, whatever the number of networks."""
    world.publish(tcp(8080))
    networks = [Segment(BRIDGE, SUBNET), Segment("pn-blue", "10.78.0.0/20")]
    world.ensure(*networks)
    text = world.ruleset()
    assert text.count("masquerade") == 6 and "10.78.0.0/20" in text

    class Unchanging(LinuxKernel):
        @staticmethod
        def nft_transaction(messages: Any) -> None:
            raise AssertionError("rules that are as they should be cost an RCU grace period")

    unchanging = Rules(Unchanging(), Mark(ENGINE, PLACE))
    world.call(unchanging.ensure, networks[::-1])
    world.ensure(networks[0])
    assert "pn-blue" not in world.ruleset() and world.ports() == {tcp(8080)}


def test_tables_of_a_root_that_is_gone(world):
    """Those of the same place and another engine, and no others."""
    gone, another = Mark("e" * 32, PLACE), Mark("d" * 32, "elsewhere0123456")
    for mark in (gone, another):
        world.call(Rules(LinuxKernel(), mark).ensure, [Segment("pn-two", "10.79.0.0/16")])
    world.call(lambda: subprocess.run(["nft", "add", "table", "ip", "pynetns-empty"], check=True))
    assert world.call(world.rules.remove_inherited, ["pn-two"]) == []
    assert world.call(world.rules.remove_inherited, ["pn-one"]) == ["rules pynetns-eeeeeeee"]
    assert world.call(world.rules.remove_inherited, []) == []
    assert re.findall(r"table ip (\S+)", world.ruleset()) == [
        "pynetns-01234567",
        "pynetns-dddddddd",
        "pynetns-empty",
    ]
