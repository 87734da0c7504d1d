"""The engine's configuration on a real machine: a bad file, the network's options, what `info` shows."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pynetns.engine.settings import BadConfiguration
from pynetns.errors import Conflict

from .test_cli import command

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


@pytest.fixture
def px(place):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(place, *args), capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def daemon_json(place) -> Path:
    os.makedirs(place.root, exist_ok=True)
    return Path(place.root, "daemon.json")


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


# ---- a bad file ----


def test_a_bad_file_keeps_from_creating_and_starting_alone(place, daemon_json):
    engine = place.engine()
    running = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    created = engine.containers.create("host", SLEEP, network_mode="none")
    daemon_json.write_text('{"mtu": "wide"}')
    other = place.engine()
    assert other.bad_configuration is not None
    for refused in (
        lambda: other.containers.create("host", ["true"]),
        lambda: other.containers.run("host", ["true"]),
        lambda: other.containers.get(created.id).start(),
    ):
        with pytest.raises(BadConfiguration, match=r"daemon\.json : mtu 'wide' : .*mend the file"):
            refused()
    assert len(other.containers.list(all=True)) == 2
    there = other.containers.get(running.id)
    assert there.exec_run(["echo", "alive"])[1] == b"alive\n"
    assert other.info()["Warnings"][0].startswith(str(daemon_json))
    there.stop(timeout=0)
    there.remove()
    assert other.gc() == []
    daemon_json.write_text('{"mtu": 1400}')
    place.engine().containers.get(created.id).start()


def test_a_bad_file_is_told_in_one_line_by_every_verb(px, engine, daemon_json):
    engine.containers.create("host", SLEEP, name="web")
    daemon_json.write_text('{"brigde": "br7"}')
    why = f"pynetns: {daemon_json} : 'brigde' is no key of this file (did you mean bridge?)"
    for line, code in (
        (["ps", "-aq"], 0),
        (["run", "host", "true"], 125),
        (["create", "host", "true"], 125),
        (["start", "web"], 125),
        (["rm", "web"], 0),
    ):
        result = px(*line)
        assert (result.returncode, result.stderr.count("\n")) == (code, 1), line
        assert result.stderr.startswith(why), line
        assert "nothing is created or started" in result.stderr
    assert engine.containers.list(all=True) == []


def test_options_of_the_command_line_are_refused_at_once(px):
    for option, value, words in (
        ("--mtu", "12", "--mtu '12' : must be a whole number of bytes from 68 to 65535"),
        ("--dns", "ns.example.org", "--dns : 'ns.example.org' is not an ip address"),
        ("--bridge", "none", "--bridge 'none' : there is no engine without a bridge"),
        ("--log-driver", "syslog", "--log-driver 'syslog' : no log driver named"),
        ("--log-opt", "max-sise=1m", "--log-opt max-sise"),
        ("--config-file", "/none", "--config-file /none : No such file or directory"),
    ):
        result = px(option, value, "ps")
        assert (result.returncode, result.stderr.count("\n")) == (125, 1), option
        assert words in result.stderr


# ---- the network ----


def test_a_bridge_that_failed_is_not_remembered(place, px):
    """A name that belongs to somebody else, then another, then none."""
    subprocess.run(["ip", "link", "add", "foreign0", "type", "bridge"], check=True)
    try:
        failed = px("--bridge", "foreign0", "run", "--rm", "host", "true")
        assert failed.returncode == 125
        assert "foreign0" in failed.stderr and "--bridge" in failed.stderr
        assert px("--bridge", "pn-second", "run", "--rm", "host", "true").returncode == 0
        assert "pn-second" in links()
        assert px("run", "--rm", "host", "true").returncode == 0
        assert "pn-second" not in links()
        assert "foreign0" in links()
        assert place.engine().network.bridge_name.startswith("pn-")
    finally:
        subprocess.run(["ip", "link", "del", "foreign0"], check=True)


def test_options_change_while_nobody_uses_the_network(place):
    first = place.engine(bridge="pn-one", bip="10.99.1.1/24", mtu=1400)
    container = first.containers.run("host", SLEEP, detach=True)
    assert {key: first.info()[key] for key in ("Bridge", "BIP", "MTU")} == {
        "Bridge": "pn-one", "BIP": "10.99.1.1/24", "MTU": 1400,
    }  # fmt: skip
    for option, value, found in (
        ("bridge", "pn-two", "pn-one"),
        ("bip", "10.99.2.1/24", "10.99.1.1/24"),
        ("mtu", 1300, "1400"),
    ):
        with pytest.raises(Conflict, match=rf"--{option} {value} : .*{found}"):
            place.engine(**{option: value}).containers.run("host", ["true"], remove=True)
    # who asks for nothing takes the network as it is
    inside = place.engine().containers.run("host", ["cat", "/sys/class/net/eth0/mtu"], remove=True)
    assert inside == b"1400\n"
    container.remove(force=True)

    second = place.engine(bridge="pn-two", mtu=1300)
    show = ["cat", "/sys/class/net/eth0/mtu"]
    assert second.containers.run("host", show, remove=True) == b"1300\n"
    assert second.info()["BIP"] == "10.99.1.1/24"  # nobody asked for another subnet
    assert "pn-one" not in links() and "pn-two" in links()
    third = place.engine(bip="10.99.2.1/24")
    third.containers.run("host", ["true"], remove=True)
    info = third.info()
    assert (info["BIP"], info["MTU"], info["Bridge"]) == ("10.99.2.1/24", 1500, links_of(third))
    assert "pn-two" not in links()


def links_of(engine) -> str:
    bridge = engine.network.bridge_name
    assert bridge in links()
    return bridge


def test_containers_get_what_is_configured(place, px, daemon_json):
    daemon_json.write_text(
        json.dumps(
            {"dns": ["10.9.8.7"], "dns-search": ["lan"], "dns-opts": ["ndots:3"], "mtu": 1380}
        )
    )
    out = px("run", "--rm", "host", "cat", "/etc/resolv.conf", "/sys/class/net/eth0/mtu").stdout
    for line in ("nameserver 10.9.8.7", "search lan", "options ndots:3", "1380"):
        assert line in out.splitlines()
    out = px("--dns", "10.1.1.1", "run", "--rm", "host", "cat", "/etc/resolv.conf").stdout
    assert "nameserver 10.1.1.1" in out and "10.9.8.7" not in out and "search lan" in out


def test_info_shows_what_holds_and_where_it_is_from(place, px, daemon_json):
    daemon_json.write_text('{"dns": ["10.9.8.7"], "log-opts": {"max-size": "1m"}}')
    shown = px("--mtu", "1400", "info", "--format", "json")
    info = json.loads(shown.stdout)
    assert {key: info[key] for key in ("BIP", "MTU", "DNS", "DNSSearch", "DNSOptions")} == {
        "BIP": "", "MTU": 1400, "DNS": ["10.9.8.7"], "DNSSearch": [], "DNSOptions": [],
    }  # fmt: skip
    assert (info["LoggingDriver"], info["LogOpts"]) == ("json-file", {"max-size": "1m"})
    assert info["ConfiguredBy"] == {
        "dns": str(daemon_json), "log-opts": str(daemon_json), "mtu": "--mtu",
    }  # fmt: skip
    assert info["Warnings"] == []
