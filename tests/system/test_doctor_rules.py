"""The doctor names a firewall that stands between containers, and its remedy helps."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from pynetns.doctor import check
from pynetns.doctor.outcome import Check

pytestmark = pytest.mark.root


def nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@pytest.fixture(params=["ip filter FORWARD", "inet fw through"])
def dropping(request: pytest.FixtureRequest) -> Iterator[str]:
    """A chain such as Docker's, or a firewall's own."""
    family, table, chain = request.param.split()
    hook = "type filter hook forward priority filter; policy drop;"
    nft(f"table {family} {table} {{ chain {chain} {{ {hook} }}; }}")
    yield request.param
    nft(f"delete table {family} {table}")


def outcome(place) -> Check:
    return next(one for one in check(place.root, place.exec_root) if one.name == "forwarding rules")


def test_a_policy_is_named_with_the_rules_that_help(place, engine, dropping):
    bridge = engine.network.bridge_name
    one = outcome(place)
    assert one.ok is None
    assert one.detail.startswith(f"{dropping} drops")
    assert bridge in one.fix
    family, table, chain = dropping.split()
    for way in "io":  # what the fix says, in nft's words: iptables may not be there
        nft(f"insert rule {family} {table} {chain} {way}ifname {bridge} accept")
        assert outcome(place).ok is (True if way == "o" else None)


def test_the_remedy_lets_containers_reach_each_other(place, engine, dropping):
    if not dropping.startswith("inet"):
        pytest.skip("its remedy is said in iptables' words")
    server = engine.containers.run(
        "host",
        ["python3", "-c", "import socket; s = socket.create_server(('', 80)); print('up', flush=True); "
         "[s.accept() for _ in range(9)]"],
        detach=True,
    )  # fmt: skip
    assert next(server.logs(stream=True)) == b"up\n"
    server.reload()
    address = server.attrs["NetworkSettings"]["IPAddress"]
    ask = ["python3", "-c", f"import socket; socket.create_connection(('{address}', 80), 1)"]
    client = engine.containers.run("host", ["sleep", "1000"], detach=True)
    filtered = client.exec_run(ask)[0] != 0  # only where br_netfilter is loaded
    assert filtered == ("nor each other" in outcome(place).detail)
    subprocess.run(["sh", "-c", outcome(place).fix], check=True)
    assert client.exec_run(ask)[0] == 0
