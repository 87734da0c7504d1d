"""What is shown of containers, on a fake machine: ps, inspect, logs, events; and published ports."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from typing import Any

import pytest

from pynetns import errors
from pynetns.client.containers import Container
from pynetns.client.output import collect
from pynetns.testing import FakeEngine, fake_engine, fake_machine

from .verbs import SLEEP, descriptors, left, start

# ---- ps ----


def test_ps_shows_what_runs(engine: FakeEngine) -> None:
    first = start(engine, name="first", network_mode="none")
    start(engine, ["true"], name="ended", network_mode="none")
    engine.containers.create("host", SLEEP, name="created")
    assert [c.name for c in engine.containers.list()] == ["first"]
    every = {c.name: c.status for c in engine.containers.list(all=True)}
    assert every == {"first": "running", "ended": "exited", "created": "created"}
    assert [c.name for c in engine.containers.list(all=True)] == ["created", "ended", "first"]
    assert len(engine.containers.list(all=True, limit=2)) == 2
    engine.shim.task(first.id).exit(1)
    assert engine.containers.list() == []


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": "we"}, ["web"]),
        ({"status": "created"}, ["db"]),
        ({"label": "tier"}, ["db", "web"]),
        ({"label": "tier=front"}, ["web"]),
        ({"ancestor": "host"}, ["db", "web"]),
        ({"exited": 0}, []),
    ],
)
def test_filters(engine: FakeEngine, filters, names) -> None:
    start(engine, name="web", labels={"tier": "front"}, network_mode="none")
    engine.containers.create("host", SLEEP, name="db", labels={"tier": "back"})
    assert [c.name for c in engine.containers.list(all=True, filters=filters)] == names


def test_one_by_name_id_and_prefix(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="web")
    for wanted in ("web", "/web", container.id, container.id[:6]):
        assert engine.containers.get(wanted).id == container.id
    with pytest.raises(errors.NotFound, match="No such container: nosuch"):
        engine.containers.get("nosuch")
    with pytest.raises(errors.InvalidParameter, match="must not be empty"):
        engine.containers.get("")


# ---- inspect ----


def test_inspect(engine: FakeEngine) -> None:
    container = start(engine, name="web", hostname="named", labels={"a": "b"})
    shown = container.attrs
    assert (shown["Id"], shown["Name"], shown["Path"], shown["Args"]) == (
        container.id, "/web", "sleep", ["300"],
    )  # fmt: skip
    assert shown["Config"]["Hostname"] == "named" and shown["Config"]["Labels"] == {"a": "b"}
    network = shown["NetworkSettings"]["Networks"]["bridge"]
    assert network["IPAddress"] == "172.17.0.2" and network["Gateway"] == "172.17.0.1"
    task = engine.shim.task(container.id)
    assert task.network is not None
    assert task.network.addresses == {"eth0": "172.17.0.2/16"}
    assert task.network.gateways == {"eth0": "172.17.0.1"}
    container.kill()
    after = container.attrs["NetworkSettings"]["Networks"]["bridge"]
    assert after["IPAddress"] == "" and after["EndpointID"] == ""


def test_out_of_memory_is_told(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none", mem_limit="64m")
    engine.cgroups.oom.add(container.id)
    container.kill()
    assert container.attrs["State"]["OOMKilled"] is True


# ---- logs and output ----


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs(engine: FakeEngine, driver: str) -> None:
    container = start(engine, network_mode="none", log_config={"Type": driver})
    task = engine.shim.task(container.id)
    task.write("one\ntwo\n")
    task.write("bad\n", "stderr")
    task.write("no end")
    assert container.logs() == b"one\ntwo\nbad\nno end"
    assert container.logs(stderr=False, tail=3) == b"two\nno end"
    assert container.logs(stdout=False) == b"bad\n"
    stamped = container.logs(timestamps=True, tail=1)
    assert stamped.startswith(b"20") and stamped.endswith(b" no end")


def test_logs_are_followed_to_the_end(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    task = engine.shim.task(container.id)
    task.write("one\n")
    lines = container.logs(stream=True)
    assert next(lines) == b"one\n"
    task.write("two\n")
    task.exit(0)
    assert list(lines) == [b"two\n"]


def test_a_driver_that_keeps_none(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none", log_config={"Type": "none"})
    engine.shim.task(container.id).write("lost\n")
    with pytest.raises(errors.NotSupported):
        container.logs()


def test_run_returns_output_or_the_error(engine: FakeEngine) -> None:
    assert engine.containers.run("host", ["echo", "a", "b"]) == b"a b\n"
    engine.shim.programs["bad"] = lambda process: process.write("why\n", "stderr") or 3
    with pytest.raises(errors.PynetnsError) as caught:
        engine.containers.run("host", ["bad"])
    assert caught.value.exit_status == 3 and caught.value.stderr == b"why\n"


def test_what_is_typed_reaches_the_program(engine: FakeEngine) -> None:
    typed: list[bytes] = []

    def cat(process) -> int:
        typed.append(os.read(process.stdin, 99))
        return 0

    engine.shim.programs["cat"] = cat
    container = engine.containers.create("host", ["cat"], stdin_open=True, network_mode="none")
    reader, writer = os.pipe()
    os.write(writer, b"words")
    with collect(True, True) as output:
        container.start(replace(output.attach, stdin_fd=reader))
    for fd in (reader, writer):
        os.close(fd)
    assert typed == [b"words"]


# ---- published ports ----


def ports(container: Container) -> dict[str, Any]:
    return container.attrs["NetworkSettings"]["Ports"]  # type: ignore[no-any-return]


def published(engine: FakeEngine) -> list[str]:
    (table,) = [line for line in engine.kernel.left() if line.startswith("table")]
    return [*(line for line in engine.kernel.left() if line.startswith("socket")), table]


def test_published_ports(engine: FakeEngine) -> None:
    container = start(engine, ports={"80/tcp": 8080, "53/udp": ("127.0.0.1", 53)})
    assert ports(container) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    *sockets, table = published(engine)
    assert sockets == ["socket 0.0.0.0:8080", "socket 127.0.0.1:53"]
    assert table.endswith(", 2 ports")
    container.kill()
    assert not any(ports(container).values())
    assert left(engine) == []


def test_a_free_port_is_found(engine: FakeEngine) -> None:
    engine.kernel.taken.add((socket.SOCK_STREAM, "0.0.0.0", 49153))
    container = start(engine, ports={"80/tcp": None})
    assert ports(container)["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "49154"}]


@pytest.mark.parametrize("by", ["another container", "another program"])
def test_a_taken_port(engine: FakeEngine, by: str) -> None:
    if by == "another program":
        engine.kernel.taken.add((socket.SOCK_STREAM, "127.0.0.1", 8080))
        text = "0.0.0.0:8080/tcp is already in use"
    else:
        start(engine, name="first", ports={"80/tcp": 8080})
        text = "already in use by container first"
    before = left(engine)
    container = engine.containers.create("host", SLEEP, ports={"80/tcp": 8080})
    open_before = descriptors(engine)
    with pytest.raises(errors.Conflict, match=text):
        container.start()
    assert left(engine) == before and descriptors(engine) == open_before


def test_an_address_that_the_machine_has_not(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, ports={"80/tcp": ("192.0.2.1", 80)})
    with pytest.raises(errors.InvalidParameter, match=r"no address 192\.0\.2\.1"):
        container.start()


def test_flushed_rules_come_back(engine: FakeEngine) -> None:
    start(engine, ports={"80/tcp": 8080})
    engine.kernel.ruleset.tables.clear()
    start(engine, ports={"80/tcp": 8081})
    assert published(engine)[-1].endswith(", 2 ports")


def test_a_bridge_that_somebody_deleted_is_made_again(engine: FakeEngine) -> None:
    container = start(engine)
    container.kill()
    engine.kernel.link_delete(-1, engine.network.bridge_name)
    container.start()
    assert engine.network.bridge_name in engine.kernel.links


def test_a_machine_without_nf_tables(engine: FakeEngine, monkeypatch) -> None:
    def lacking(messages: object) -> None:
        raise errors.KernelError(errno.EOPNOTSUPP, "nf_tables", "new chain")

    monkeypatch.setattr(engine.kernel, "nft_transaction", lacking)
    container = engine.containers.create("host", SLEEP)
    with pytest.raises(errors.Unavailable, match="lacks nf_tables"):
        container.start()
    assert left(engine) == []


# ---- the engine ----


def test_not_root(directory: str) -> None:
    machine = fake_machine(directory)
    machine.kernel.root_user = False
    with pytest.raises(errors.Unavailable, match="must run as root"):
        fake_engine(directory, machine)


def test_info_and_metrics(engine: FakeEngine) -> None:
    start(engine, network_mode="none")
    info = engine.info()
    assert (info["Containers"], info["ContainersRunning"], info["CgroupLayout"]) == (1, 1, "v2")
    assert engine.metrics()["container_start"]["count"] >= 1 and engine.ping()
