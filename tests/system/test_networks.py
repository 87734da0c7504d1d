"""Several networks, a root that was lost while its network lived, options that cannot be followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pynetns import errors
from pynetns.kernel import LinuxKernel
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.network.drivers.base import Segment
from pynetns.network.mark import Mark
from pynetns.network.rules import Rules
from pynetns.store import NetworkRow

from .. import leaks
from ..conftest import end_shim
from ..leaks import nft_tables
from .test_network import PYTHON, SERVER, ask, start_server

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]
BLUE = NetworkRow(
    "b" * 64, "blue", "bridge", "10.231.78.0/24", "10.231.78.1", "pn-blue", 1400, 0x0AE74E01
)


def ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def links() -> dict[str, str]:
    """Every link's alias."""
    return {link["ifname"]: link.get("ifalias", "") for link in json.loads(ip("-j", "link"))}


def on_both(engine, *, priority: int) -> NetworkSettings:
    if engine.store.network_by_name("blue") is None:
        engine.store.add_network(BLUE)
    blue = EndpointSettings("blue", gw_priority=priority)
    return NetworkSettings(networks={"bridge": EndpointSettings("bridge"), "blue": blue})


# ---- several networks ----


@pytest.mark.parametrize(("priority", "device"), [(1, "eth1"), (-1, "eth0")])
def test_container_on_two_networks(engine, priority, device):
    """Reached on both, sent out by one."""
    container = engine.containers.create(
        "host", [PYTHON, "-c", SERVER, "80"], ports={"80/tcp": None}
    )
    row = engine.store.container(container.id)
    engine.store.set_run(row.id, row.state, on_both(engine, priority=priority))
    container.start()
    assert next(container.logs(stream=True, follow=True)) == b"ready\n"
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"]
    assert networks["blue"]["IPAddress"] == "10.231.78.2"
    for name in ("bridge", "blue"):
        assert ask(networks[name]["IPAddress"], 80).decode() == networks[name]["Gateway"]
    routes = json.loads(container.exec_run(["ip", "-j", "route", "show", "default"])[1])
    gateway = networks["blue" if device == "eth1" else "bridge"]["Gateway"]
    assert [(route["dev"], route["gateway"]) for route in routes] == [(device, gateway)]
    hosts = container.exec_run(["cat", "/etc/hosts"])[1].decode()
    assert all(f"{networks[name]['IPAddress']}\t" in hosts for name in networks)
    port = int(container.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
    assert ask("127.0.0.1", port)
    container.remove(force=True)
    assert engine.store.endpoints() == []
    engine.containers.run("host", ["true"], remove=True)  # on what is left as it was


def test_networks_are_apart(engine):
    """From one network nothing gets to another one but to published ports."""
    server = engine.containers.create("host", [PYTHON, "-c", UDP], ports={"53/udp": None})
    row = engine.store.container(server.id)
    engine.store.set_run(row.id, row.state, on_both(engine, priority=1))
    only = NetworkSettings(networks={"blue": EndpointSettings("blue")})
    server.start()
    stranger = engine.containers.create("host", SLEEP)
    row = engine.store.container(stranger.id)
    engine.store.set_run(row.id, row.state, only)
    stranger.start()
    lines = server.logs(stream=True, follow=True)
    assert next(lines) == b"ready\n"
    server.reload()
    address = server.attrs["NetworkSettings"]["IPAddress"]
    port = int(server.attrs["NetworkSettings"]["Ports"]["53/udp"][0]["HostPort"])
    send = (
        "import socket; s = socket.socket(2, 2);"
        f"s.sendto(b'no', ('{address}', 53)); s.sendto(b'yes', ('{BLUE.gateway}', {port}))"
    )
    code, out = stranger.exec_run([PYTHON, "-c", send])
    assert code == 0, out
    assert next(lines) == b"yes\n"  # sent last, so the other would be here


UDP = """
import socket
s = socket.socket(2, 2)
s.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    print(s.recv(9).decode(), flush=True)
"""


# ---- a lost root ----


@pytest.fixture
def neighbours():
    """What others have on this machine: made to look like ours, but for the mark."""
    there = Mark("f" * 32, "elsewhere0123456")
    rules = Rules(LinuxKernel(), there)
    rules.ensure([Segment("pn-else", "10.231.79.0/24")])
    ip("link", "add", "pn-else", "alias", there.alias(), "type", "bridge")
    ip("link", "add", "vethfeedbee", "master", "pn-else", "type", "veth", "peer", "name", "peer0")
    before = links(), nft_tables()
    yield before
    ip("link", "del", "vethfeedbee")
    ip("link", "del", "pn-else")
    rules.delete()


class Lost(NamedTuple):
    """What a container had that runs on without a root: it publishes a port that answers."""

    bridge: str
    table: str
    link: str
    namespace: str
    address: str


def lose_root(place) -> Lost:
    """Run a server, then `rm -rf ROOT`."""
    with place.engine() as engine:
        container = start_server(engine, ports={"80/tcp": None})
        (endpoint,) = engine.store.endpoints()
        settings = container.attrs["NetworkSettings"]
        table = f"pynetns-{engine.store.engine_id[:8]}"
        lost = Lost(
            engine.network.bridge_name,
            table,
            endpoint.host_ifname,
            settings["SandboxKey"],
            settings["IPAddress"],
        )
    shutil.rmtree(place.root)
    assert {lost.bridge, lost.link} <= set(links()) and f"table {table}" in nft_tables()
    return lost


def test_lost_root_is_taken_over_by_the_next_start(place, neighbours):
    """All containers have ended before."""
    others, tables = neighbours
    with place.engine() as engine:
        assert engine.containers.run("host", ["true"], remove=True) == b""
        bridge, gateway = engine.network.bridge_name, engine.store.networks()[0].gateway
        leaks.wait_for_links({f"link {name}" for name in (*others, bridge)})
    shutil.rmtree(place.root)
    assert bridge in links()
    engine = place.engine()
    server = start_server(engine, ports={"80/tcp": None})
    assert ask(server.attrs["NetworkSettings"]["IPAddress"], 80)
    assert server.attrs["NetworkSettings"]["Gateway"] == gateway
    now = links()
    assert now[bridge].startswith(f"pynetns:{engine.store.engine_id}:")
    assert {name: now[name] for name in others} == others
    assert nft_tables() == tables | {f"table pynetns-{engine.store.engine_id[:8]}"}
    assert engine.network.restore({server.id}) == []


def test_what_runs_of_a_lost_root_keeps_its_network_until_gc(place, neighbours):
    others, tables = neighbours
    lost = lose_root(place)
    command = [
        sys.executable,
        "-m",
        "pynetns",
        "--root",
        place.root,
        "--exec-root",
        place.exec_root,
    ]
    with place.engine() as engine:
        server = start_server(engine, ports={"80/tcp": None})
        assert ask(server.attrs["NetworkSettings"]["IPAddress"], 80)
        assert ask(lost.address, 80), "the one without a root is reached as before"
        assert engine.network.bridge_name == f"{lost.bridge}-2"
        assert {lost.bridge, lost.link, f"{lost.bridge}-2", *others} <= set(links())
        gone = subprocess.run([*command, "gc"], capture_output=True, text=True, check=True).stdout
        for line in (f"bridge {lost.bridge}", f"rules {lost.table}"):
            assert f"network {line}\n" in gone, gone
        assert f"network namespace {Path(lost.namespace).name}\n" in gone
        assert not os.path.exists(lost.namespace)
        assert ask(server.attrs["NetworkSettings"]["IPAddress"], 80)
        server.remove(force=True)
        end_shim(engine)
    last = subprocess.run([*command, "gc", "--all"], capture_output=True, text=True, check=True)
    assert f"network bridge {lost.bridge}-2\n" in last.stdout
    leaks.wait_for_links({f"link {name}" for name in others})
    assert links() == others and nft_tables() == tables


def test_bridge_of_another_root_is_never_taken(place, neighbours):
    others, _ = neighbours
    with place.engine(bridge="pn-else") as engine:
        with pytest.raises(errors.Conflict, match=r"pn-else .*not this engine's.*--bridge"):
            engine.containers.run("host", ["true"], remove=True)
        engine.gc()
    assert links() == others
    # and the name that failed is not remembered
    assert place.engine().containers.run("host", ["echo", "up"], remove=True) == b"up\n"


# ---- options ----


@pytest.mark.parametrize("bip", ["127.0.0.1/8", "224.0.0.1/16", "169.254.1.1/16", "250.1.1.1/16"])
def test_bip_that_cannot_be(place, bip):
    with pytest.raises(errors.InvalidParameter, match=rf"--bip {bip} : .*choose a private subnet"):
        place.engine(bip=bip)


def test_bip_over_a_network_of_the_machine(place):
    ip("link", "add", "pn-taken", "type", "bridge")
    try:
        ip("addr", "add", "10.231.80.1/24", "dev", "pn-taken")
        engine = place.engine(bip="10.231.0.1/16")
        with pytest.raises(errors.Conflict, match=r"--bip 10\.231\.0\.1/16 : overlaps 10\.231\.80"):
            engine.containers.run("host", ["true"], remove=True)
    finally:
        ip("link", "del", "pn-taken")
    assert engine.containers.run("host", ["echo", "up"], remove=True) == b"up\n"
