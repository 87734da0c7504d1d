"""Published ports: the syntax, and reserving them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from pynetns.errors import Conflict, InvalidParameter
from pynetns.kernel import LinuxKernel
from pynetns.model.config import PortBinding
from pynetns.model.ports import (
    merge_bindings,
    parse_expose,
    parse_host_port,
    parse_mapping,
    parse_port,
    parse_publish,
    parse_publish_all,
)
from pynetns.network.ports import (
    FIRST_FREE,
    LAST_FREE,
    PortAllocator,
    PortRequest,
    Reserved,
    parse_socket_table,
    port_requests,
    port_rows,
)
from pynetns.network.request import ContainerOptions
from pynetns.store import Store

from .rows import add_container, add_sandbox

LOCAL = "127.0.0.1"


def release(reserved: Sequence[Reserved]) -> None:
    """Close the sockets that hold the ports."""
    for held in reserved:
        os.close(held.fd)


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("80", [("80/tcp", "", "")]),
        ("80/", [("80/tcp", "", "")]),
        (":80", [("80/tcp", "", "")]),
        ("::80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("8080:80/udp", [("80/udp", "", "8080")]),
        ("8080:80/UDP", [("80/udp", "", "8080")]),
        ("127.0.0.1:8080:80", [("80/tcp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("0:80", [("80/tcp", "", "")]),
        ("80-81", [("80/tcp", "", ""), ("81/tcp", "", "")]),
        ("8000-8001:80-81", [("80/tcp", "", "8000"), ("81/tcp", "", "8001")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
    ],
)
def test_publish(spec: str, expected: list[tuple[str, str, str]]) -> None:
    found = [(port, b.host_ip, b.host_port) for port, bs in parse_publish(spec) for b in bs]
    assert found == expected


@pytest.mark.parametrize(
    "spec",
    [
        "", ":", "80:", "x", "0", "65536", "8080:70000", "80/sctp", "80/x", "127.0.0.1:80", "1.2.3:80:80", "9-8",
        "8000-8002:80-81", "[::1]:80:80", "::1:80:80", "a:80:80", "-1", "80-", "٣", "1:2:3:4",
    ],
)  # fmt: skip
def test_bad_publish_names_the_spec(spec: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid port"):
        parse_publish(spec)


def test_ipv6_host_address_says_so() -> None:
    with pytest.raises(InvalidParameter, match="must be IPv4"):
        parse_publish("[::]:80:80")


def test_merging() -> None:
    assert parse_publish_all(["8080:80", "8081:80", "8080:80", "53:53/udp"]) == (
        ("80/tcp", (PortBinding("", "8080"), PortBinding("", "8081"))),
        ("53/udp", (PortBinding("", "53"),)),
    )
    assert merge_bindings([]) == ()


def test_docker_py_mapping() -> None:
    ports = {
        "80/tcp": 8080,
        53: ("127.0.0.1", 5353),
        "90/udp": None,
        "91": [1, 2],
        "92": ("1.2.3.4",),
    }
    assert parse_mapping(ports) == (
        ("80/tcp", (PortBinding("", "8080"),)),
        ("53/tcp", (PortBinding("127.0.0.1", "5353"),)),
        ("90/udp", (PortBinding("", ""),)),
        ("91/tcp", (PortBinding("", "1"), PortBinding("", "2"))),
        ("92/tcp", (PortBinding("1.2.3.4", ""),)),
    )
    for bad in ({"80": 70000}, {"x": 1}, {"80": 1.5}, {"80": ("::1", 80)}):
        with pytest.raises(InvalidParameter):
            parse_mapping(bad)


def test_small_parsers() -> None:
    assert parse_expose("80-82/udp") == ("80/udp", "81/udp", "82/udp")
    assert parse_port("80") == (80, "tcp")
    assert parse_host_port("") == (0, 0)
    assert parse_host_port("5-7") == (5, 7)
    with pytest.raises(InvalidParameter):
        parse_port("80-81")


def test_requests_of_a_configuration() -> None:
    options = ContainerOptions(
        exposed_ports=("9/tcp", "80/tcp"),
        publish_all_ports=True,
        port_bindings=(("80/tcp", (PortBinding("", "8000-8010"), PortBinding(LOCAL, "80"))),),
    )
    assert port_requests(options) == (
        PortRequest("tcp", 80, LOCAL, 80, 80),
        PortRequest("tcp", 80, "0.0.0.0", 8000, 8010),
        PortRequest("tcp", 9, "0.0.0.0", 0, 0),
    )


# ---- reserving ----


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path / "db"))
    yield store
    store.close()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((LOCAL, 0))
        return int(sock.getsockname()[1])


def one(port: int, proto: str = "tcp", host_ip: str = LOCAL) -> PortRequest:
    return PortRequest(proto, 80, host_ip, port, port)


@pytest.mark.parametrize("proto, kind", [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_reserved_port_is_taken(store: Store, proto: str, kind: int) -> None:
    port = free_port(kind)
    (reserved,) = PortAllocator(store, LinuxKernel()).reserve([one(port, proto)])
    try:
        assert reserved.host_port == port
        assert not os.get_inheritable(reserved.fd)
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if proto == "tcp":
                with pytest.raises(OSError):
                    sock.bind((LOCAL, port))
                    sock.listen()
            else:
                with pytest.raises(OSError):
                    sock.bind((LOCAL, port))
        with pytest.raises(Conflict, match=f"{LOCAL}:{port}/{proto} is already in use"):
            PortAllocator(store, LinuxKernel()).reserve([one(port, proto)])
        with pytest.raises(Conflict):
            PortAllocator(store, LinuxKernel()).reserve([one(port, proto, "0.0.0.0")])
    finally:
        release([reserved])
    release(PortAllocator(store, LinuxKernel()).reserve([one(port, proto)]))


def test_conflict_names_the_program(store: Store) -> None:
    with socket.create_server((LOCAL, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Conflict, match=rf"{LOCAL}:{port}/tcp .* by .+ \(pid {os.getpid()}\)"):
            PortAllocator(store, LinuxKernel()).reserve([one(port)])


def test_conflict_names_the_container(store: Store) -> None:
    add_container(store, "c1", "web")
    add_sandbox(store, "c1")
    port = free_port()
    reserved = PortAllocator(store, LinuxKernel()).reserve([one(port)])
    store.add_ports(port_rows(reserved, "c1", "e1", "10.0.0.2"))
    try:
        with pytest.raises(Conflict, match=f"{port}/tcp is already in use by container web"):
            PortAllocator(store, LinuxKernel()).reserve([one(port, host_ip="0.0.0.0")])
    finally:
        release(reserved)


def test_all_or_none(store: Store) -> None:
    first, second = free_port(), free_port()
    with socket.socket() as holder:
        holder.bind((LOCAL, second))
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(Conflict):
            PortAllocator(store, LinuxKernel()).reserve([one(first), one(second)])
        assert set(os.listdir("/proc/self/fd")) == before
    release(PortAllocator(store, LinuxKernel()).reserve([one(first)]))


def test_range_takes_the_first_free(store: Store) -> None:
    with socket.socket() as holder:
        holder.bind((LOCAL, 0))
        taken = holder.getsockname()[1]
        request = PortRequest("tcp", 80, LOCAL, taken, min(taken + 9, 65535))
        (reserved,) = PortAllocator(store, LinuxKernel()).reserve([request])
        release([reserved])
        assert taken < reserved.host_port <= taken + 9
        with pytest.raises(Conflict, match="all ports are allocated"):
            allocator = PortAllocator(store, LinuxKernel())
            held = []
            try:
                for _ in range(11):
                    held += allocator.reserve([request])
            finally:
                release(held)


def test_any_free_port_is_serial(store: Store) -> None:
    allocator = PortAllocator(store, LinuxKernel())
    any_port = PortRequest("tcp", 80, LOCAL, 0, 0)
    reserved = allocator.reserve([any_port, any_port])
    release(reserved)
    numbers = [r.host_port for r in reserved]
    assert FIRST_FREE <= numbers[0] < numbers[1] <= LAST_FREE
    (later,) = allocator.reserve([any_port])
    release([later])
    assert later.host_port > numbers[1]


def test_foreign_address(store: Store) -> None:
    with pytest.raises(InvalidParameter, match=r"no address 192\.0\.2\.1"):
        PortAllocator(store, LinuxKernel()).reserve([one(8080, host_ip="192.0.2.1")])


def test_socket_table() -> None:
    rest = "00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0"
    text = "\n".join(
        (
            "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid inode",
            f"   0: 0100007F:1F90 {rest} 4711 1",
            f"   1: 00000000:0050 {rest} 42 1",
        )
    )
    assert parse_socket_table(text, 8080) == {"4711"}
    assert parse_socket_table(text, 81) == set()
