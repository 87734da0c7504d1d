"""Network modes, addresses, published ports, name files (S6-S13): from inside, outside, between."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns import errors

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]

# A server in the container that answers each connection with the peer's address.
SERVER = """
import socketserver, sys
class H(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(self.client_address[0].encode())
with socketserver.TCPServer(("0.0.0.0", int(sys.argv[1])), H) as s:
    print("ready", flush=True)
    s.serve_forever()
"""
PYTHON = "/usr/bin/python3"
NETLINK_ROUTE, RTMGRP_LINK = 0, 1


def start_server(engine, port: int = 80, **options):
    container = engine.containers.run(
        "host", [PYTHON, "-c", SERVER, str(port)], detach=True, **options
    )
    assert next(container.logs(stream=True, follow=True)) == b"ready\n"
    container.reload()
    return container


def ask(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.settimeout(5)
        return connection.recv(100)


def bound_port(container, port: str = "80/tcp") -> int:
    return int(container.attrs["NetworkSettings"]["Ports"][port][0]["HostPort"])


def wait_for_carrier(name: str) -> None:
    """Until the kernel has told of the link's carrier, which it does in the background."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        sock.bind((0, RTMGRP_LINK))
        sock.settimeout(10)
        while Path(f"/sys/class/net/{name}/operstate").read_text() != "up\n":
            sock.recv(65536)  # TimeoutError: it has none


def test_bridge_container_has_address_route_and_mac(engine, run):
    script = "ip -4 -o addr show eth0; ip route; cat /sys/class/net/eth0/address"
    container = engine.containers.create("host", ["sh", "-c", script])
    container.start()
    container.wait()
    lines = container.logs().decode().splitlines()
    address = re.search(r"inet ([\d.]+)/(\d+)", lines[0])
    network = engine.store.network_by_name("bridge")
    assert address
    assert lines[1] == f"default via {network.gateway} dev eth0 "
    assert lines[-1] == "02:42:" + ":".join(f"{int(b):02x}" for b in address[1].split("."))


def test_inspect_tells_the_network(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    settings = container.attrs["NetworkSettings"]
    inside = container.exec_run(["ip", "-4", "-o", "addr", "show", "eth0"])[1].decode()
    assert f"inet {settings['IPAddress']}/{settings['IPPrefixLen']} " in inside
    assert settings["Networks"]["bridge"]["Gateway"] == settings["Gateway"]
    assert os.path.exists(settings["SandboxKey"])
    container.kill()
    container.reload()
    assert container.attrs["NetworkSettings"]["IPAddress"] == ""


def test_namespace_is_bind_mounted_and_gone_with_the_container(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    key = container.attrs["NetworkSettings"]["SandboxKey"]
    pid = container.attrs["State"]["Pid"]
    assert key.startswith(f"{engine.exec_root}/netns/")
    assert os.stat(key).st_ino == os.stat(f"/proc/{pid}/ns/net").st_ino
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert any(line.split()[4] == key for line in mounts)
    container.kill()
    container.wait()
    assert not os.path.exists(key)


def test_host_end_is_a_quiet_bridge_port_with_hairpin(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    endpoint = engine.store.endpoints_of(container.id)[0]
    port = Path(f"/sys/class/net/{endpoint.host_ifname}")
    assert os.readlink(port / "master").endswith(engine.network.bridge_name)
    assert (port / "brport/hairpin_mode").read_text() == "1\n"
    wait_for_carrier(endpoint.host_ifname)
    assert (port / "operstate").read_text() == "up\n"
    assert endpoint.host_ifname not in Path("/proc/net/if_inet6").read_text()


def test_an_independent_netlink_library_sees_the_same(engine):
    """Link, bridge and address read back by pyroute2, which shares no code with ours."""
    from pyroute2 import IPRoute

    container = engine.containers.run("host", SLEEP, detach=True)
    endpoint = engine.store.endpoints_of(container.id)[0]
    network = engine.store.network_by_name("bridge")
    wait_for_carrier(endpoint.host_ifname)
    with IPRoute() as ipr:
        bridge = ipr.link_lookup(ifname=engine.network.bridge_name)[0]
        port = ipr.get_links(ipr.link_lookup(ifname=endpoint.host_ifname)[0])[0]
        (address,) = ipr.get_addr(index=bridge, family=2)
        assert port.get_attr("IFLA_MASTER") == bridge
        assert port.get_attr("IFLA_OPERSTATE") == "UP"
        assert port.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "veth"
        assert address.get_attr("IFA_ADDRESS") == network.gateway
        assert f"/{address['prefixlen']}" == network.subnet[network.subnet.index("/") :]
        alias = ipr.get_links(bridge)[0].get_attr("IFLA_IFALIAS")
        assert alias.startswith(f"pynetns:{engine.store.engine_id}:")


def test_ipv6_is_off_inside(run):
    assert run(["cat", "/proc/net/if_inet6"]) == ""


@pytest.mark.parametrize(("mtu", "expected"), [(1500, "1500"), (1400, "1400")])
def test_mtu(place, mtu, expected):
    engine = place.engine(mtu=mtu)
    out = engine.containers.run("host", ["cat", "/sys/class/net/eth0/mtu"], remove=True)
    assert out.decode().strip() == expected


def test_containers_reach_each_other_and_the_gateway(engine):
    server = start_server(engine)
    address = server.attrs["NetworkSettings"]["IPAddress"]
    client = engine.containers.run("host", SLEEP, detach=True)
    script = f"import socket; print(socket.create_connection(('{address}', 80)).recv(99).decode())"
    code, out = client.exec_run([PYTHON, "-c", script])
    assert (code, out.decode().strip()) == (0, client.attrs["NetworkSettings"]["IPAddress"])
    assert ask(address, 80).decode() == engine.store.network_by_name("bridge").gateway


def test_requested_address(engine):
    engine.containers.run("host", ["true"], remove=True)  # makes the network
    gateway = engine.store.network_by_name("bridge").gateway
    wanted = gateway.rsplit(".", 1)[0] + ".77"
    container = engine.containers.run("host", SLEEP, detach=True, ip=wanted)
    assert container.attrs["NetworkSettings"]["IPAddress"] == wanted
    other = engine.containers.create("host", SLEEP, ip=wanted)
    with pytest.raises(errors.Conflict, match="in use"):
        other.start()
    container.remove(force=True)
    other.start()
    outside = engine.containers.create("host", SLEEP, ip="203.0.113.9")
    with pytest.raises(errors.InvalidParameter, match=r"203\.0\.113\.9"):
        outside.start()


def test_addresses_are_unique_and_given_back(engine):
    containers = [engine.containers.run("host", SLEEP, detach=True) for _ in range(5)]
    addresses = {c.attrs["NetworkSettings"]["IPAddress"] for c in containers}
    assert len(addresses) == 5
    for container in containers:
        container.remove(force=True)
    assert engine.store.endpoints() == []


def test_network_none_has_only_loopback(run):
    assert run(["ls", "/sys/class/net"], network_mode="none") == "lo\n"
    assert "LOOPBACK,UP" in run(["ip", "addr", "show", "lo"], network_mode="none")


def test_network_host_is_the_callers(run):
    assert run(["readlink", "/proc/self/ns/net"], network_mode="host").strip() == os.readlink(
        "/proc/self/ns/net"
    )
    assert run(["hostname"], network_mode="host").strip() == os.uname().nodename


def test_network_of_another_container(engine, run):
    server = start_server(engine, hostname="shared")
    script = "hostname; cat /etc/hosts; ip -4 -o addr show eth0"
    out = run(["sh", "-c", script], network_mode=f"container:{server.id}")
    assert out.startswith("shared\n")
    assert server.attrs["NetworkSettings"]["IPAddress"] in out
    other = engine.containers.run("host", SLEEP, detach=True, network_mode=f"container:{server.id}")
    link = engine.store.endpoints_of(server.id)[0].host_ifname
    server.remove(force=True)
    assert not os.path.exists(f"/sys/class/net/{link}"), "the address is free, the link is gone"
    other.remove(force=True)
    container = engine.containers.create("host", SLEEP, network_mode=f"container:{'0' * 64}")
    with pytest.raises(errors.NotFound):
        container.start()


def test_unknown_network(engine):
    with pytest.raises(errors.NotFound, match="network nowhere not found"):
        engine.containers.create("host", SLEEP, network_mode="nowhere")


def test_name_files(engine):
    container = engine.containers.create(
        "host", ["sh", "-c", "cat /etc/hostname /etc/hosts /etc/resolv.conf"],
        hostname="box", domainname="example.org", dns=["192.0.2.53"], dns_search=["a.example"],
        dns_opt=["ndots:2"], extra_hosts={"other": "192.0.2.9"},
    )  # fmt: skip
    container.start()
    container.wait()
    out = container.logs().decode()
    address = re.search(r"^([\d.]+)\tbox\.example\.org box$", out, re.M)
    assert out.startswith("box\n") and address
    assert "127.0.0.1\tlocalhost\n" in out
    assert "192.0.2.9\tother\n" in out
    assert "nameserver 192.0.2.53\n" in out
    assert "search a.example\n" in out
    assert "options ndots:2\n" in out


@contextlib.contextmanager
def holding(port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", port))
        yield


def own_addresses() -> list[str]:
    """Addresses of this machine that are not loopback, by the routing table's own list."""
    text = Path("/proc/net/fib_trie").read_text()
    found = re.findall(r"\|-- ([\d.]+)\n\s+/32 host LOCAL", text)
    return sorted({a for a in found if not a.startswith("127.")})


def test_published_port_answers_on_every_address(engine):
    server = start_server(engine, ports={"80/tcp": None})
    port = bound_port(server)
    gateway = engine.store.network_by_name("bridge").gateway
    for address in ["127.0.0.1", gateway, *own_addresses()]:
        assert ask(address, port), address
    # and from the container itself, through the host's address (hairpin)
    script = f"import socket; print(socket.create_connection(('{gateway}', {port})).recv(99))"
    assert server.exec_run([PYTHON, "-c", script])[0] == 0
    server.kill()
    server.wait()
    with pytest.raises(OSError):
        ask("127.0.0.1", port)


def test_port_published_on_one_address_only(engine):
    server = start_server(engine, ports={"80/tcp": ("127.0.0.1", None)})
    port = bound_port(server)
    assert ask("127.0.0.1", port)
    for address in own_addresses():
        with pytest.raises(OSError):
            ask(address, port)


def test_udp_port(engine):
    script = (
        "import socket\ns = socket.socket(2, 2)\ns.bind(('0.0.0.0', 53))\nprint('ready', flush=True)\n"
        "while True:\n d, a = s.recvfrom(99)\n s.sendto(d.upper(), a)\n"
    )
    container = engine.containers.run(
        "host", [PYTHON, "-c", script], detach=True, ports={"53/udp": None}
    )
    assert next(container.logs(stream=True, follow=True)) == b"ready\n"
    container.reload()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"ping", ("127.0.0.1", bound_port(container, "53/udp")))
        assert client.recvfrom(99)[0] == b"PING"


def test_port_in_use_by_a_container(engine):
    first = start_server(engine, ports={"80/tcp": None}, name="holder")
    port = bound_port(first)
    second = engine.containers.create("host", SLEEP, ports={"80/tcp": port})
    with pytest.raises(errors.Conflict, match=f"{port}.*holder"):
        second.start()
    first.remove(force=True)
    second.start()
    assert bound_port(second) == port


def test_port_in_use_by_a_program(engine):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        container = engine.containers.create("host", SLEEP, ports={"80/tcp": port})
        with pytest.raises(errors.Conflict, match=f"{port}.*{os.getpid()}"):
            container.start()
    assert engine.store.ports() == []


def test_reserved_port_is_taken_by_nobody_else(engine):
    server = start_server(engine, ports={"80/tcp": None})
    with pytest.raises(OSError, match="in use"), holding(bound_port(server)):
        pass


def test_two_bindings_and_publish_all(engine):
    container = engine.containers.run(
        "host", SLEEP, detach=True, expose=["81", "82/udp"], publish_all_ports=True,
        ports={"80/tcp": [("127.0.0.1", None), ("127.0.0.2", None)]},
    )  # fmt: skip
    ports = container.attrs["NetworkSettings"]["Ports"]
    assert len(ports["80/tcp"]) == 2
    assert ports["81/tcp"] and ports["82/udp"]


def test_bridge_that_was_deleted_comes_back(engine):
    engine.containers.run("host", ["true"], remove=True)
    nl = engine.kernel.nl_open()
    engine.kernel.link_delete(nl, engine.network.bridge_name)
    os.close(nl)
    container = engine.containers.run("host", SLEEP, detach=True)
    assert container.status == "running"


def test_outbound_traffic_is_masqueraded(place):
    """In a private network namespace as "the machine", where forwarding may be switched on."""
    from pynetns.lowlevel.namespaces import NetworkNamespace

    with NetworkNamespace.create() as outside, NetworkNamespace.create() as inside:
        import subprocess
        import sys

        server = outside.run(
            lambda: subprocess.Popen(
                [sys.executable, "-c", "import os;os.system('ip link set lo up');" + SERVER_WAIT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        outside_pid = server.pid
        try:
            assert server.stdout.readline() == b"waiting\n"
            out = None

            def whole() -> None:
                nonlocal out
                os.system(f"ip link add up0 type veth peer name peer0 netns {outside_pid}")
                os.system("ip addr add 198.51.100.1/24 dev up0 && ip link set up0 up")
                server.stdin.write(b"go\n")
                server.stdin.flush()
                assert server.stdout.readline() == b"ready\n"
                out = machine_body(place)

            inside.run(whole)
            assert out == b"198.51.100.1\n"
        finally:
            server.kill()
            server.communicate()


SERVER_WAIT = (
    "import sys;print('waiting',flush=True);sys.stdin.readline();"
    "os.system('ip addr add 198.51.100.2/24 dev peer0 && ip link set peer0 up');"
    "sys.argv=['','80'];exec(" + repr(SERVER) + ")"
)


def machine_body(place) -> bytes:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    engine = place.engine()
    script = (
        "import socket; print(socket.create_connection(('198.51.100.2', 80)).recv(99).decode())"
    )
    out = engine.containers.run("host", [PYTHON, "-c", script], remove=True)
    engine.network.remove_all()
    return out
