"""IPAM against a model: a set of taken addresses and a cursor."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pynetns.errors import Conflict, InvalidParameter, Unavailable
from pynetns.network.ipam import (
    Subnet,
    format_address,
    format_mac,
    mac_from_address,
    parse_address,
    parse_mac,
    parse_subnet,
    request_address,
)
from pynetns.store import EndpointRow, NetworkRow, Store

from .rows import add_sandbox


def network(store: Store, cidr: str, gateway: str = "") -> Subnet:
    subnet = parse_subnet(cidr, gateway)
    row = NetworkRow("n", "net", "bridge", cidr, gateway, "br", 1500, subnet.first - 1)
    store.add_network(row)
    return subnet


def take(store: Store, subnet: Subnet, container: str, requested: int | None = None) -> int:
    """What create_endpoint does with an address."""

    def allocate() -> int:
        address = request_address(store, "n", "net", subnet, requested)
        add_sandbox(store, container)
        store.add_endpoint(EndpointRow(container, container, "n", container, address, "", "", ""))
        return address

    return store.atomically(allocate)


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path / "db"))
    yield store
    store.close()


def test_serial_and_wrapping(store: Store) -> None:
    subnet = network(store, "10.1.0.0/29")
    got = [format_address(take(store, subnet, f"c{n}")) for n in range(5)]
    assert got == [f"10.1.0.{n}" for n in range(2, 7)]
    with pytest.raises(Unavailable, match=r"no available IPv4 addresses .*: net"):
        take(store, subnet, "c5")
    store.remove_sandbox("c1")
    assert format_address(take(store, subnet, "c6")) == "10.1.0.3"


def test_address_given_back_is_not_reused_at_once(store: Store) -> None:
    subnet = network(store, "10.1.0.0/24")
    first = take(store, subnet, "a")
    store.remove_sandbox("a")
    assert take(store, subnet, "b") == first + 1


def test_gateway_in_the_middle_is_skipped(store: Store) -> None:
    subnet = network(store, "10.1.0.0/29", "10.1.0.3")
    got = [format_address(take(store, subnet, f"c{n}")) for n in range(5)]
    assert got == ["10.1.0.1", "10.1.0.2", "10.1.0.4", "10.1.0.5", "10.1.0.6"]


def test_requested(store: Store) -> None:
    subnet = network(store, "10.1.0.0/24")
    assert take(store, subnet, "a", parse_address("10.1.0.9")) == parse_address("10.1.0.9")
    for taken in ("10.1.0.9", "10.1.0.1"):
        with pytest.raises(Conflict, match="Address already in use"):
            take(store, subnet, "b", parse_address(taken))
    for outside in ("10.1.0.0", "10.1.0.255", "10.1.1.1"):
        with pytest.raises(InvalidParameter, match=r"10\.1\.0\.0/24"):
            take(store, subnet, "b", parse_address(outside))
    assert take(store, subnet, "c") == parse_address("10.1.0.2")


def test_failure_gives_the_address_back(store: Store) -> None:
    subnet = network(store, "10.1.0.0/24")

    def fail() -> None:
        take(store, subnet, "a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.atomically(fail)
    assert store.next_address("n") == (subnet.first - 1, False)
    assert not store.network_in_use("n")


@pytest.mark.parametrize(
    "cidr, gateway",
    [
        ("10.0.0.0", ""),
        ("10.0.0.0/31", ""),
        ("10.0.0.0/x", ""),
        ("10.0.0/24", ""),
        ("::/64", ""),
        ("10.0.0.0/24", "10.0.1.1"),
        ("10.0.0.0/24", "10.0.0.255"),
    ],
)
def test_bad_subnets(cidr: str, gateway: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_subnet(cidr, gateway)


@given(st.integers(0, 2**32 - 1))
def test_text_and_number(address: int) -> None:
    assert parse_address(format_address(address)) == address
    mac = mac_from_address(address)
    assert parse_mac(format_mac(mac)) == mac
    assert format_mac(mac).startswith("02:42:")


@pytest.mark.parametrize(
    "text",
    ["", "02:42", "02:42:ac:11:00:zz", "01:00:5e:00:00:01", "00:00:00:00:00:00", "2:2:2:2:2:2:2"],
)
def test_bad_mac(text: str) -> None:
    with pytest.raises(InvalidParameter, match="mac address"):
        parse_mac(text)


class Addresses(RuleBasedStateMachine):
    """Serial allocation in a /28, where wrapping and exhaustion happen all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store = Store(f"{self.directory.name}/db")
        self.subnet = network(self.store, "10.9.0.0/28", "10.9.0.5")
        self.held: dict[int, str] = {}
        self.cursor = self.subnet.first - 1
        self.count = 0

    def _expected(self) -> int | None:
        size = self.subnet.last - self.subnet.first + 1
        for n in range(1, size + 1):
            address = self.subnet.first + (self.cursor - self.subnet.first + n) % size
            if address != self.subnet.gateway and address not in self.held:
                return address
        return None

    @rule()
    def next_free(self) -> None:
        self.count += 1
        expected = self._expected()
        if expected is None:
            with pytest.raises(Unavailable):
                take(self.store, self.subnet, f"c{self.count}")
            return
        assert take(self.store, self.subnet, f"c{self.count}") == expected
        self.held[expected] = f"c{self.count}"
        self.cursor = expected

    @rule(offset=st.integers(0, 15))
    def requested(self, offset: int) -> None:
        self.count += 1
        address = self.subnet.network + offset
        if not self.subnet.first <= address <= self.subnet.last:
            error: type[Exception] | None = InvalidParameter
        else:
            taken = address == self.subnet.gateway or address in self.held
            error = Conflict if taken else None
        if error is not None:
            with pytest.raises(error):
                take(self.store, self.subnet, f"c{self.count}", address)
            return
        assert take(self.store, self.subnet, f"c{self.count}", address) == address
        self.held[address] = f"c{self.count}"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.held)))
        self.store.remove_sandbox(self.held.pop(address))

    @invariant()
    def the_store_agrees(self) -> None:
        assert {row.address: row.container_id for row in self.store.endpoints()} == self.held

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestAddresses = Addresses.TestCase
TestAddresses.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
