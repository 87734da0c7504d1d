"""The network controller on a kernel of paper: order, settings, undo, repair, races."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pynetns.errors import Conflict, InvalidParameter, KernelError, NotFound, Unavailable
from pynetns.kernel.process import ProcessIdentity
from pynetns.model.config import Config, HostConfig, PortBinding
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.network.controller import NetworkController
from pynetns.network.endpoint import update_container_network_settings
from pynetns.network.networks import Networks
from pynetns.network.published import PublishedPort
from pynetns.network.request import (
    ContainerOptions,
    Networked,
    container_options,
)
from pynetns.store import SandboxRow
from pynetns.trace import Recorder
from pynetns.undo import Undo

from .network_world import BRIDGE, ID, World, make_world
from .rows import add_container


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


# ---- modes ----


@pytest.mark.parametrize("mode", ["default", "bridge"])
def test_bridge(world: World, mode: str) -> None:
    sandbox = world.start(network_mode=mode)
    endpoint = sandbox.settings.networks["bridge"]
    assert (endpoint.ip_address, endpoint.gateway, endpoint.ip_prefix_len) == (
        "172.17.0.2",
        "172.17.0.1",
        16,
    )
    assert endpoint.mac_address == "02:42:ac:11:00:02"
    assert sandbox.key == sandbox.settings.sandbox_key
    assert world.kernel.pins == {sandbox.key}
    assert os.path.basename(sandbox.key) == sandbox.settings.sandbox_id[:12]
    assert world.text("hosts").endswith("172.17.0.2\t" + ID[:12] + "\n")
    assert world.text("hostname") == ID[:12] + "\n"
    assert sandbox.settings.docker_json()["IPAddress"] == "172.17.0.2"
    (row,) = world.store.endpoints()
    assert row.host_ifname in world.kernel.links
    assert row.host_ifname.startswith("veth") and len(row.host_ifname) == 11


def test_what_the_kernel_is_asked_for(world: World) -> None:
    world.controller.find_network("bridge")
    world.kernel.calls.clear()
    world.start()
    asked = dict(world.kernel.calls)
    _, peer, options = asked["veth_create"]
    assert peer == "eth0"
    assert options["master"] == world.kernel.links[BRIDGE].ifindex
    assert options["mtu"] == 1500
    assert options["peer_mac"] == bytes.fromhex("0242ac110002")
    assert options["hairpin"] and options["no_ipv6"]
    expected = ("eth0", "172.17.0.2", 16, "172.17.0.1", "172.17.255.255")
    assert asked["link_configure"] == expected
    assert world.deeds() == ["netns_create", "ns_pin", "veth_create", "link_configure"]


def test_steps_have_the_names_of_the_flow(world: World) -> None:
    ports = (("80/tcp", (PortBinding("127.0.0.1", ""),)),)
    with Recorder() as recorder:
        world.start(port_bindings=ports)
    names = [span.name for span in sorted(recorder.spans, key=lambda s: (s.start, -s.end))]
    assert [name for name in names if name != "setup_bridge"] == [
        "allocate_network",
        "connect_to_network",
        "create_endpoint",
        "new_sandbox",
        "join",
        "add_link",
        "add_interface",
        "program_external_connectivity",
    ]


def test_none(world: World) -> None:
    sandbox = world.start(network_mode="none")
    assert sandbox.netns_fd == -1 and sandbox.key in world.kernel.pins
    assert world.store.endpoints() == []
    assert list(sandbox.settings.networks) == ["none"]
    assert ID[:12] not in world.text("hosts")
    assert BRIDGE not in world.kernel.links
    world.controller.sandbox_destroy(ID)
    world.assert_empty()


def test_host(world: World) -> None:
    sandbox = world.start(network_mode="host")
    assert (sandbox.key, sandbox.netns_fd) == ("", -1)
    assert sandbox.hostname == os.uname().nodename
    assert world.text("hosts") == Path("/etc/hosts").read_text()
    assert world.kernel.calls == []
    world.controller.sandbox_destroy(ID)
    world.assert_empty()


def test_host_with_extra_hosts_renders_its_own(world: World) -> None:
    world.start(network_mode="host", extra_hosts=("db:10.0.0.9",))
    assert "10.0.0.9\tdb\n" in world.text("hosts")


def test_container(world: World) -> None:
    process = ProcessIdentity(7, 1, "boot")
    files = ("/o/hosts", "/o/resolv.conf", "/o/hostname")
    key = world.start("d" * 64, network_mode="none").key
    other = Networked("d" * 64, process, key, "name", "dom", *files)
    world.kernel.calls.clear()
    sandbox = world.start(network_mode="container:x", networked=other)
    assert (sandbox.hostname, sandbox.domainname, sandbox.hosts_path) == ("name", "dom", "/o/hosts")
    assert world.kernel.calls == [("ns_open", (key, 0x40000000))]
    assert [row.container_id for row in world.store.sandboxes()] == ["d" * 64]
    other = replace(other, sandbox_key="")  # of network mode host: no pin
    with pytest.raises(ProcessLookupError):  # there is no process 7
        world.start(network_mode="container:x", networked=other)
    assert world.kernel.calls[1:] == [("process_namespace", (process, "net"))]


def test_unknown_network(world: World) -> None:
    with pytest.raises(NotFound, match="network blue not found"):
        world.start(network_mode="blue")
    world.assert_empty()


def test_published_ports_are_discarded_without_a_network(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ports = (("80/tcp", (PortBinding("", "8080"),)),)
    sandbox = world.start(network_mode="none", port_bindings=ports)
    assert "discarded" in caplog.text
    assert sandbox.held_fds == [] and dict(sandbox.settings.ports) == {}


# ---- options ----


def test_requested_address_and_mac(world: World) -> None:
    config = Config(mac_address="02:42:00:00:00:07", hostname="web", domainname="example.org")
    sandbox = world.start(config=config, ip_address="172.17.5.5")
    endpoint = sandbox.settings.networks["bridge"]
    assert (endpoint.ip_address, endpoint.mac_address) == ("172.17.5.5", "02:42:00:00:00:07")
    assert endpoint.requested_ip == "172.17.5.5"
    assert world.text("hosts").endswith("172.17.5.5\tweb.example.org web\n")
    with pytest.raises(Conflict, match="Address already in use"):
        world.start("d" * 64, ip_address="172.17.5.5")
    with pytest.raises(InvalidParameter, match="not in the network's subnet"):
        world.start("d" * 64, ip_address="10.0.0.1")
    assert len(world.store.endpoints()) == 1


def test_requested_address_survives_a_stop(world: World) -> None:
    first = world.start(ip_address="172.17.5.5")
    world.controller.sandbox_destroy(ID)
    again = world.start(settings=first.settings.clean_operational_data())
    assert again.settings.networks["bridge"].ip_address == "172.17.5.5"


def test_ports(world: World) -> None:
    config = Config(exposed_ports=("80/tcp", "90/tcp"))
    ports = (("80/tcp", (PortBinding("127.0.0.1", ""),)),)
    add_container(world.store, ID)
    with Undo() as undo:
        request = world.request(port_bindings=ports, config=config)
        sandbox = world.controller.initialize_networking(request, undo)
        world.controller.join_sandbox(sandbox)
        undo.dismiss()
    assert len(sandbox.held_fds) == 1
    ((proto, _, host_port, *target),) = world.ports()
    assert (proto, target) == ("tcp", ["172.17.0.2", 80])
    shown = sandbox.settings.docker_json()["Ports"]
    assert shown == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(host_port)}],
        "90/tcp": None,
    }
    sandbox.close()
    world.controller.sandbox_destroy(ID)
    world.assert_empty()


def test_dns_of_container_engine_and_host(world: World) -> None:
    world.controller = world.another(dns=("192.0.2.1",), dns_search=("lan",))
    world.start()
    assert world.text("resolv.conf").startswith("search lan\nnameserver 192.0.2.1\n")
    world.start("d" * 64, dns=("192.0.2.9",))
    assert "nameserver 192.0.2.9\n" in world.text("resolv.conf")
    assert "search lan\n" in world.text("resolv.conf")
    assert world.text("resolv.conf.hash").startswith("sha256:")


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("dns", "192.0.2.9", "nameserver 192.0.2.9"),
        ("dns_search", "corp", "search corp"),
        ("dns_options", "ndots:3", "options ndots:3"),
    ],
)
def test_each_resolver_option_takes_the_place_of_the_engines_and_of_no_other(
    world: World, option: str, value: str, line: str
) -> None:
    engines = {"dns": "192.0.2.1", "dns_search": "lan", "dns_options": "ndots:1"}
    world.controller = world.another(**{key: (text,) for key, text in engines.items()})
    world.start(**{option: (value,)})
    lines = {"nameserver 192.0.2.1", "search lan", "options ndots:1"}
    lines = {kept for kept in lines if kept.split()[0] != line.split()[0]} | {line}
    assert set(world.text("resolv.conf").splitlines()) == lines


def test_host_gateway(world: World) -> None:
    world.start(extra_hosts=("gw:host-gateway",))
    assert "172.17.0.1\tgw\n" in world.text("hosts")


def test_bip(world: World) -> None:
    world.controller = world.another(bip="10.20.0.9/24", mtu=1400)
    endpoint = world.start().settings.networks["bridge"]
    assert (endpoint.gateway, endpoint.ip_address) == ("10.20.0.9", "10.20.0.1")
    with pytest.raises(Conflict, match="bip"):
        world.another(bip="10.30.0.1/24").find_network("bridge")
    world.controller.sandbox_destroy(ID)
    moved = world.another(bip="10.30.0.1/24").find_network("bridge")
    assert moved.pool.gateway == "10.30.0.1"
    with pytest.raises(InvalidParameter, match="bip"):
        world.another(bip="10.30.0.1")


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"network_mode": "blue"}, NotFound),
        ({"network_mode": "none", "ip_address": "10.0.0.1"}, InvalidParameter),
        ({"ip_address": "10.0.0.300"}, InvalidParameter),
        ({"dns": ("x",)}, InvalidParameter),
        ({"dns_search": ("a b",)}, InvalidParameter),
        ({"extra_hosts": ("x",)}, InvalidParameter),
        ({"network_mode": "container:x", "dns": ("1.1.1.1",)}, Conflict),
        ({"network_mode": "container:x", "publish_all_ports": True}, Conflict),
        ({"network_mode": "container:"}, InvalidParameter),
        ({"port_bindings": (("80/tcp", (PortBinding("", "70000"),)),)}, InvalidParameter),
        ({"port_bindings": (("80/tcp", (PortBinding("::1", "80"),)),)}, InvalidParameter),
    ],
)
def test_validate(world: World, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        world.controller.validate(container_options(Config(), HostConfig(**changes)))
    world.controller.validate(ContainerOptions())


# ---- undo, stale state, repair ----


@pytest.mark.parametrize("method", ["netns_create", "ns_pin", "veth_create", "link_configure"])
def test_a_failing_step_leaves_nothing(world: World, method: str) -> None:
    world.kernel.fail[method] = errno.ENOMEM
    ports = (("80/tcp", (PortBinding("127.0.0.1", ""),)),)
    with pytest.raises(KernelError):
        world.start(port_bindings=ports)
    world.assert_empty()
    assert world.start().settings.networks["bridge"].ip_address == "172.17.0.3"


def test_failing_rules_leave_nothing(world: World) -> None:
    world.controller.find_network("bridge")
    world.kernel.fail["nft_transaction"] = errno.ENOSPC
    with pytest.raises(KernelError):
        world.start(port_bindings=(("80/tcp", (PortBinding("127.0.0.1", ""),)),))
    world.assert_empty()


def test_taken_port_leaves_nothing(world: World) -> None:
    ports = (("80/tcp", (PortBinding("192.0.2.1", "80"),)),)
    with pytest.raises(InvalidParameter):
        world.start(port_bindings=ports)
    world.assert_empty()


def test_stale_sandbox_is_destroyed_first(world: World) -> None:
    first = world.start()
    second = world.start()
    assert world.kernel.pins == {second.key} != {first.key}
    assert [row.container_id for row in world.store.sandboxes()] == [ID]


def test_destroying_twice_is_fine(world: World) -> None:
    world.start()
    world.controller.sandbox_destroy(ID)
    world.controller.sandbox_destroy(ID)
    world.assert_empty()


def test_links_of_a_shared_namespace_are_deleted(world: World) -> None:
    world.start()
    (row,) = world.store.endpoints()
    world.controller.sandbox_destroy(ID, links=True)
    assert row.host_ifname not in world.kernel.links


def test_deleted_bridge_is_made_again(world: World) -> None:
    world.start()
    del world.kernel.links[BRIDGE]
    world.start("d" * 64)
    assert BRIDGE in world.kernel.links
    assert world.set_ups() == 2


def test_flushed_rules_are_made_again(world: World) -> None:
    ports = (("80/tcp", (PortBinding("127.0.0.1", ""),)),)
    world.start(port_bindings=ports)
    world.kernel.ruleset.tables.clear()
    world.start("d" * 64, port_bindings=ports)
    assert world.ports() == world.recorded_ports()
    assert len(world.ports()) == 2


def test_other_link_failures_are_not_retried(world: World) -> None:
    world.start()
    world.kernel.fail["veth_create"] = errno.EINVAL
    with pytest.raises(KernelError):
        world.start("d" * 64)
    assert world.set_ups() == 1


def test_taken_link_name_is_replaced_on_record_first(world: World) -> None:
    world.controller.find_network("bridge")
    world.kernel.fail["veth_create"] = errno.EEXIST
    world.start()
    tried = [args[0] for name, args in world.kernel.calls if name == "veth_create"]
    assert len(set(tried)) == 2
    assert world.store.endpoints()[0].host_ifname == tried[1]


def test_full_bridge_names_its_limit(world: World) -> None:
    """The kernel says "Exchange full" for the 1,024th port of a bridge."""
    world.controller.find_network("bridge")
    world.kernel.fail["veth_create"] = errno.EXFULL
    with pytest.raises(Unavailable, match=r"1,023 ports.*remove containers"):
        world.start()
    assert world.store.endpoints() == []


def test_restore(world: World) -> None:
    live, dead = "a" * 64, "b" * 64
    for id in (live, dead):
        world.start(id)
    (world.top / "netns" / "stray").touch()
    bridge = world.kernel.links[BRIDGE].ifindex
    world.kernel.add_link("vethstray", kind="veth", master=bridge)
    world.kernel.add_link("other", kind="veth", master=bridge)
    world.kernel.add_link("vethelse", kind="veth")
    world.rules().publish([PublishedPort("tcp", "0.0.0.0", 80, "172.17.0.9", 80)])
    removed = world.controller.restore({live})
    # `dead` has a container: its own repair, under its lock, is the one to free it
    assert {row.container_id for row in world.store.sandboxes()} == {live, dead}
    assert "namespace stray" in removed and "link vethstray" in removed
    assert "port 0.0.0.0:80/tcp" in removed
    assert len(removed) == 3
    assert world.ports() == set()
    assert {"other", "vethelse"} < world.kernel.links.keys()
    assert not (world.top / "netns" / "stray").exists()


def test_restore_before_first_use_makes_nothing(world: World) -> None:
    assert world.controller.restore(()) == []
    assert world.kernel.links == {} and world.store.networks() == []


def test_remove_all(world: World) -> None:
    assert world.controller.remove_all() == []
    world.start()
    with pytest.raises(Conflict, match="active endpoints"):
        world.controller.remove_all()
    (key,) = world.kernel.pins
    dying = world.kernel.ns_open(key)
    world.controller.sandbox_destroy(ID)
    link = next(name for name in world.kernel.links if name != BRIDGE)
    assert world.controller.remove_all() == [
        f"rules {world.rules().table}",
        f"link {link}",
        f"bridge {BRIDGE}",
    ]
    os.close(dying)
    assert BRIDGE not in world.kernel.links and world.store.networks() == []
    world.start()


def test_no_address_of_a_network_that_another_engine_has_taken_down(world: World) -> None:
    """This engine knows the network still; the other one makes it anew, on another subnet."""
    world.start("a" * 64)
    world.controller.sandbox_destroy("a" * 64)
    other = world.another(bip="172.30.0.1/16")
    assert f"bridge {BRIDGE}" in other.remove_all()
    other.find_network("bridge")
    endpoint = world.start().settings.networks["bridge"]
    (network,) = world.store.networks()
    assert (endpoint.network_id, endpoint.ip_address) == (network.id, "172.30.0.2")


def test_no_address_of_a_network_that_is_being_taken_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other engine has looked for endpoints and found none: from there on nobody gets one, but
    waits until the network is gone, and makes it anew."""
    world.controller.find_network("bridge")
    add_container(world.store, ID)
    other, link_delete = world.another(), world.kernel.link_delete
    threads: list[threading.Thread] = []
    endpoints: list[int] = []

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(world.kernel, "link_delete", link_delete)
        threads.append(threading.Thread(target=world.start))
        threads[0].start()
        waits.acquire(timeout=10)  # it has an endpoint, or comes to wait for the network
        endpoints.append(len(world.store.endpoints()))
        link_delete(*args)

    waits = threading.Semaphore(0)
    ensure = Networks.ensure

    def waiting(self: Networks, name: str, seen: Any) -> Any:
        waits.release()
        return ensure(self, name, seen)

    monkeypatch.setattr(Networks, "ensure", waiting)
    monkeypatch.setattr(world.kernel, "link_delete", meanwhile)
    other.remove_all()
    threads[0].join()
    assert endpoints == [0]
    assert [row.container_id for row in world.store.endpoints()] == [ID]
    assert [row.id for row in world.store.networks()] == [world.store.endpoints()[0].network_id]
    assert BRIDGE in world.kernel.links


def test_racing_starts_make_one_network(world: World) -> None:
    controllers = [world.another() for _ in range(2)] * 4
    failures: list[BaseException] = []

    def work(n: int, controller: NetworkController) -> None:
        try:
            add_container(world.store, f"{n:x}" * 64)
            request = replace(world.request(f"{n:x}" * 64), directory=str(world.top / f"d{n}"))
            (world.top / f"d{n}").mkdir()
            with Undo() as undo:
                sandbox = controller.initialize_networking(request, undo)
                controller.join_sandbox(sandbox)
                sandbox.close()
                undo.dismiss()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=args) for args in enumerate(controllers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(world.store.networks()) == 1
    assert len({row.address for row in world.store.endpoints()}) == 8
    assert world.set_ups() == 2  # once by each controller


def test_sandbox_on_record_is_found(world: World) -> None:
    assert world.store.sandbox_of(ID) is None
    sandbox = world.start()
    row = world.store.sandbox_of(ID)
    assert row == SandboxRow(ID, sandbox.settings.sandbox_id, sandbox.key)


def test_default_network_comes_first() -> None:
    stored = NetworkSettings(networks={"z": EndpointSettings("z"), "default": EndpointSettings()})
    assert list(update_container_network_settings(ContainerOptions(), stored)) == ["bridge", "z"]
