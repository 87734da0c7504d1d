"""The set of networks on a kernel of paper: several of them, their options, what a lost root left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import Conflict, InvalidParameter, KernelError, NotFound
from pynetns.kernel.interfaces import Address, Route
from pynetns.model.config import HostConfig
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.network.drivers.base import Segment
from pynetns.network.mark import Mark, mark_of, parse_alias
from pynetns.network.pools import check_subnet
from pynetns.network.request import container_options
from pynetns.network.rules import Rules
from pynetns.store import NetworkRow, Store

from .network_world import BRIDGE, ID, World, make_world

BLUE = NetworkRow("b" * 64, "blue", "bridge", "10.9.0.0/24", "10.9.0.1", "br-blue", 1400, 0)
BOTH = {"bridge": EndpointSettings("bridge"), "blue": EndpointSettings("blue")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from make_world(tmp_path, monkeypatch)


def on_both(priority: int = 0) -> NetworkSettings:
    blue = EndpointSettings("blue", gw_priority=priority)
    return NetworkSettings(networks={"blue": blue, "bridge": BOTH["bridge"]})


# ---- several networks ----


def test_container_on_two_networks(world: World) -> None:
    world.store.add_network(BLUE._replace(cursor=(10 << 24) + (9 << 16) + 1))
    sandbox = world.start(settings=on_both())
    settings = sandbox.settings
    assert [end.ip_address for end in settings.networks.values()] == ["172.17.0.2", "10.9.0.2"]
    assert settings.bridge == BRIDGE and settings.docker_json()["IPAddress"] == "172.17.0.2"
    hosts = world.text("hosts").splitlines()
    assert hosts[-2:] == [f"172.17.0.2\t{ID[:12]}", f"10.9.0.2\t{ID[:12]}"]
    made = [args for name, args in world.kernel.calls if name == "veth_create"]
    masters = [world.kernel.links[name].ifindex for name in (BRIDGE, "br-blue")]
    assert [(peer, options["master"], options["mtu"]) for _, peer, options in made] == [
        ("eth0", masters[0], 1500),
        ("eth1", masters[1], 1400),
    ]
    (table,) = world.kernel.ruleset.tables.values()
    stamps = Rules(world.kernel, mark_of(world.store.engine_id, str(world.top)))  # type: ignore[arg-type]
    text = " ".join(stamps.stamps(world.rules().table))
    assert "br-blue 10.9.0.0/24" in text and f"{BRIDGE} 172.17.0.0/16" in text
    world.controller.sandbox_destroy(ID)
    world.assert_empty()


@pytest.mark.parametrize(("priority", "gateways"), [
    (0, [None, "10.9.0.1"]),  # among equals the first name
    (-1, ["172.17.0.1", None]),
    (1, [None, "10.9.0.1"]),
])  # fmt: skip
def test_one_default_route_by_priority(
    world: World, priority: int, gateways: list[str | None]
) -> None:
    world.store.add_network(BLUE)
    sandbox = world.start(settings=on_both(priority))
    configured = [args for name, args in world.kernel.calls if name == "link_configure"]
    assert [args[0] for args in configured] == ["eth0", "eth1"]
    assert [args[3] for args in configured] == gateways
    kept = NetworkSettings.from_json(sandbox.settings.clean_operational_data().to_json())
    assert kept.networks["blue"].gw_priority == priority


def test_priority_is_not_in_the_way_of_what_older_versions_wrote() -> None:
    text = NetworkSettings(networks=BOTH).to_json()
    assert text.count(",") == NetworkSettings.from_json(text).to_json().count(",")
    assert '["bridge","","","","",0,"",[],""]' in text


@pytest.mark.parametrize("method", ["ns_pin", "veth_create", "link_configure"])
def test_failure_on_the_second_network_leaves_nothing_of_either(world: World, method: str) -> None:
    world.store.add_network(BLUE)
    world.controller.find_network("bridge")
    world.controller.find_network("blue")
    world.kernel.fail[method] = errno.ENOMEM
    with pytest.raises(KernelError):
        world.start(settings=on_both())
    world.assert_empty()


def test_second_network_full_leaves_nothing(world: World) -> None:
    world.store.add_network(BLUE)
    world.start("a" * 64, settings=NetworkSettings(
        networks={"blue": EndpointSettings("blue", requested_ip="10.9.0.7")}
    ), network_mode="blue")  # fmt: skip
    taken = EndpointSettings("blue", requested_ip="10.9.0.7")
    with pytest.raises(Conflict, match="in use"):
        world.start(settings=NetworkSettings(networks={**BOTH, "blue": taken}))
    assert [row.container_id for row in world.store.sandboxes()] == ["a" * 64]


def test_unknown_networks_are_refused_and_known_ones_are_not(world: World) -> None:
    blue = container_options(*_configs("blue"))
    with pytest.raises(NotFound, match="network blue not found"):
        world.controller.validate(blue)
    world.store.add_network(BLUE)
    world.controller.validate(blue)


def _configs(mode: str):  # type: ignore[no-untyped-def]
    from pynetns.model.config import Config

    return Config(), HostConfig(network_mode=mode)


def test_removing_all_removes_each_and_says_what_there_was(world: World) -> None:
    world.store.add_network(BLUE)
    world.start(settings=on_both())
    with pytest.raises(Conflict, match="active endpoints"):
        world.controller.remove_all()
    world.controller.sandbox_destroy(ID, links=True)
    table = world.rules().table
    assert world.controller.remove_all() == ["bridge br-blue", f"rules {table}", f"bridge {BRIDGE}"]
    assert world.kernel.links == {} and world.kernel.ruleset.tables == {}


def test_removing_all_does_not_claim_what_was_not_there(world: World) -> None:
    world.controller.find_network("bridge")
    world.kernel.link_delete(-1, BRIDGE)
    world.kernel.ruleset.tables.clear()
    assert world.controller.remove_all() == []
    assert world.store.networks() == []


def test_gc_of_an_engine_that_knows_its_network_repairs_it(world: World) -> None:
    """Bridge and rules are gone, and a container lives: also where this very process made them."""
    world.start()
    world.kernel.ruleset.tables.clear()
    world.kernel.link_delete(-1, BRIDGE)
    assert world.controller.restore({ID}) == []
    assert BRIDGE in world.kernel.links
    assert world.rules().table in world.kernel.ruleset.tables


# ---- options ----


@pytest.mark.parametrize(
    ("bip", "why"),
    [
        ("127.0.0.1/8", "127.0.0.0/8 is the loopback network"),
        ("127.5.0.1/24", "127.0.0.0/8 is the loopback network"),
        ("169.254.3.1/24", "169.254.0.0/16 is link-local"),
        ("169.0.0.1/8", "169.254.0.0/16 is link-local"),
        ("224.1.0.1/16", "224.0.0.0/4 is multicast"),
        ("250.0.0.1/16", "240.0.0.0/4 is reserved"),
        ("0.1.0.1/16", '0.0.0.0/8 is "this network"'),
    ],
)
def test_bip_in_which_no_host_can_be(world: World, bip: str, why: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"--bip {bip} : {why}: choose a private subnet"):
        world.another(bip=bip)
    with pytest.raises(InvalidParameter, match=r"/etc/x\.json : bip 1"):
        world.another(bip="127.0.0.1/8", labels={"bip": "/etc/x.json : bip"})
    check_subnet("10.0.0.1/8", "--bip")


def test_bip_over_what_the_machine_uses(world: World) -> None:
    world.kernel.add_link("up0")
    world.kernel.addresses.append(Address(99, b"\x0a\x14\0\1", b"\x0a\x14\0\1", 16))
    world.kernel.routes.append(Route(b"\x0a\x1e\0\0", 16, 99))
    with pytest.raises(Conflict, match=r"--bip 10\.20\.5\.1/24 : overlaps 10\.20\.0\.0/16, which"):
        world.another(bip="10.20.5.1/24").find_network("bridge")
    with pytest.raises(Conflict, match=r"10\.30\.0\.0/16, which this machine has a route to"):
        world.another(bip="10.30.5.1/24").find_network("bridge")
    assert world.store.networks() == [] and BRIDGE not in world.kernel.links
    assert world.another(bip="10.40.5.1/24").find_network("bridge").pool.gateway == "10.40.5.1"


def test_bip_over_another_network(world: World) -> None:
    world.store.add_network(BLUE)
    with pytest.raises(Conflict, match=r"10\.9\.0\.0/24, which another network has"):
        world.another(bip="10.9.0.129/25").find_network("bridge")


def test_refused_bip_leaves_the_network_that_there_is(world: World) -> None:
    world.controller.find_network("bridge")
    world.kernel.addresses.append(Address(99, b"\x0a\x14\0\1", b"\x0a\x14\0\1", 16))
    with pytest.raises(Conflict, match="overlaps"):
        world.another(bip="10.20.5.1/24").find_network("bridge")
    assert world.store.networks()[0].subnet == "172.17.0.0/16" and BRIDGE in world.kernel.links


def test_bip_within_our_own_subnet(world: World) -> None:
    """What the old bridge is on is about to be free."""
    world.another(bip="10.20.0.1/16").find_network("bridge")
    assert world.another(bip="10.20.0.9/24").find_network("bridge").pool.gateway == "10.20.0.9"


def test_bridge_that_could_not_be_made_is_not_remembered(world: World) -> None:
    world.kernel.add_link("docker0", kind="bridge")
    with pytest.raises(Conflict, match=r"bridge docker0 .* not this engine's.*--bridge"):
        world.another(bridge="docker0").find_network("bridge")
    assert world.store.networks() == [] and world.kernel.ruleset.tables == {}
    assert world.another().find_network("bridge").options.bridge == BRIDGE
    assert list(world.kernel.links) == ["docker0", BRIDGE]


def test_bridge_that_a_killed_process_failed_to_make_is_not_remembered(world: World) -> None:
    """Its row was on record, and it died before it could take it back."""
    world.kernel.add_link("docker0", kind="bridge")
    world.store.add_network(BLUE._replace(name="bridge", bridge="docker0"))
    assert world.controller.find_network("bridge").options.bridge == BRIDGE
    assert world.kernel.links["docker0"].kind == "bridge"


def test_bridge_and_mtu_are_changeable_while_unused(world: World) -> None:
    first = world.controller.find_network("bridge")
    second = world.another(bridge="other0", mtu=1400).find_network("bridge")
    assert (second.options.bridge, second.options.mtu) == ("other0", 1400)
    assert second.pool == first.pool, "without bip the subnet stays"
    assert list(world.kernel.links) == ["other0"]
    assert world.another().find_network("bridge").options.bridge == BRIDGE


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "bridge",
            "other0",
            rf"--bridge other0 : network bridge has bridge {BRIDGE} and containers",
        ),
        ("mtu", 1400, "--mtu 1400 : network bridge has mtu 1500 and containers"),
        (
            "bip",
            "10.1.0.1/16",
            r"--bip 10\.1\.0\.1/16 : network bridge has bip 172\.17\.0\.1/16 and",
        ),
    ],
)
def test_given_options_are_refused_while_a_container_is_on_the_network(
    world: World, option: str, value: str, message: str
) -> None:
    world.start()
    other = world.another(**{option: value})  # type: ignore[arg-type]
    with pytest.raises(Conflict, match=message):
        other.find_network("bridge")
    assert other.describe() == {"Bridge": BRIDGE, "BIP": "172.17.0.1/16", "MTU": 1500}
    world.controller.sandbox_destroy(ID)
    will_be = other.describe()
    assert value in will_be.values()
    other.find_network("bridge")
    assert other.describe() == will_be


def test_options_that_are_not_given_are_as_they_are_while_in_use(world: World) -> None:
    world.controller = world.another(bridge="other0", bip="10.1.0.1/16", mtu=1400)
    world.start()
    plain = world.another()
    assert plain.find_network("bridge").options.bridge == "other0"
    assert plain.describe() == {"Bridge": "other0", "BIP": "10.1.0.1/16", "MTU": 1400}
    assert plain.bridge_name == "other0"


def test_description_before_the_first_use(world: World) -> None:
    assert world.controller.describe() == {"Bridge": BRIDGE, "BIP": "", "MTU": 1500}
    assert world.kernel.calls == []


# ---- a lost root ----


def lose_root(world: World) -> None:
    """`rm -rf ROOT`, and another engine at the same place."""
    world.store.close()
    for name in os.listdir(world.top):
        if name.startswith("db"):
            os.unlink(world.top / name)
    world.store = Store(str(world.top / "db"))
    world.controller = world.another()


def foreign(world: World) -> None:
    """What others have: links and tables that look like ours, but for the mark."""
    there = Mark("f" * 32, "elsewhere0123456")
    world.kernel.add_link("pn-else", kind="bridge", alias=there.alias())
    world.kernel.add_link("pn-old", kind="bridge", alias="pynetns:" + "e" * 32)
    world.kernel.add_link("docker0", kind="bridge")
    world.kernel.add_link("vethalone", kind="veth")
    world.kernel.add_link("dummy", kind="dummy", alias=world.kernel.links[BRIDGE].alias)
    Rules(world.kernel, there).ensure([Segment("pn-else", "10.0.0.0/24")])  # type: ignore[arg-type]


def test_lost_root_is_taken_over(world: World) -> None:
    world.start()
    world.controller.sandbox_destroy(ID, links=True)
    old_table = world.rules().table
    foreign(world)
    before = set(world.kernel.links) - {BRIDGE}
    lose_root(world)
    network = world.controller.find_network("bridge")
    assert network.pool.gateway == "172.17.0.1", "its subnet is free again"
    assert set(world.kernel.links) == before | {BRIDGE}
    assert parse_alias(world.kernel.links[BRIDGE].alias) == mark_of(
        world.store.engine_id, str(world.top)
    )
    assert old_table not in world.kernel.ruleset.tables
    assert set(world.kernel.ruleset.tables) == {"pynetns-ffffffff", world.rules().table}
    world.start()


def test_what_runs_of_a_lost_root_keeps_its_network(world: World) -> None:
    """The next engine works beside it, and takes the names once nobody is there any more."""
    world.start()
    old_table, (link,) = world.rules().table, world.store.endpoints()
    before = dict(world.kernel.links)
    lose_root(world)
    beside = world.controller.find_network("bridge")
    assert (beside.options.bridge, beside.pool.gateway) == (f"{BRIDGE}-2", "172.18.0.1")
    world.start()
    assert before.items() <= world.kernel.links.items()
    assert set(world.kernel.ruleset.tables) == {old_table, world.rules().table}
    world.controller.sandbox_destroy(ID, links=True)
    assert world.another().find_network("bridge").id == beside.id, "as long as it is so"
    with pytest.raises(Conflict, match=r"containers of a root that was deleted.*with gc"):
        world.another(bridge=BRIDGE).find_network("bridge")
    world.kernel.link_delete(-1, link.host_ifname)
    assert world.another().find_network("bridge").options.bridge == BRIDGE
    assert list(world.kernel.links) == [BRIDGE]
    assert set(world.kernel.ruleset.tables) == {world.rules().table}


def test_gc_removes_what_a_lost_root_left_and_says_so(world: World) -> None:
    sandbox = world.start()
    old_table, (link,) = world.rules().table, world.store.endpoints()
    foreign(world)
    before = set(world.kernel.links) - {BRIDGE, link.host_ifname}
    lose_root(world)
    assert world.controller.restore(()) == [
        f"link {link.host_ifname}",
        f"bridge {BRIDGE}",
        f"rules {old_table}",
        f"namespace {os.path.basename(sandbox.key)}",
    ]
    assert set(world.kernel.links) == before
    assert set(world.kernel.ruleset.tables) == {"pynetns-ffffffff"}
    assert world.controller.restore(()) == world.controller.remove_all() == []


def test_bridge_of_a_lost_row_is_taken_over(world: World) -> None:
    """A store restored from before: the mark is ours, but no network on record has the bridge."""
    world.another(bridge="other0").find_network("bridge")
    (row,) = world.store.networks()
    world.store.remove_network(row.id)
    assert world.controller.find_network("bridge").pool.gateway == "172.17.0.1"
    assert list(world.kernel.links) == [BRIDGE]


def test_mark_tells_roots_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        root.mkdir()
    mark = mark_of("a" * 32, str(one))
    assert parse_alias(mark.alias()) == mark
    assert mark.owns(parse_alias(f"pynetns:{'a' * 32}"))  # by a version that wrote no place
    assert mark.inherits(mark_of("b" * 32, str(one)))
    assert not mark.inherits(mark) and not mark.inherits(mark_of("b" * 32, str(other)))
    on_proc = mark_of("b" * 32, "/proc/self")
    assert on_proc.place != mark.place
    for alias in ("", "web", "pynetns:"):
        assert not mark.owns(parse_alias(alias)) and not mark.inherits(parse_alias(alias))
