"""The fake kernel answers as the real one does, wherever the engine depends on the answer: each test
runs on both."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import Kernel, LinuxKernel
from pynetns.kernel.process import ProcessIdentity
from pynetns.network import rules
from pynetns.network.published import PublishedPort
from pynetns.testing import FakeKernel, FakeProcess
from pynetns.testing.output import Output
from pynetns.testing.plan import Planned

BRIDGE = {"alias": "pynetns-test", "mtu": 1500, "address": "10.99.0.1", "prefix": 24}
SHORT = 5.0  # seconds that something may take which takes none


class Real:
    """This machine's kernel; tests run in a network namespace of their own."""

    kernel: Kernel = LinuxKernel()

    def process(self) -> tuple[ProcessIdentity, Callable[[], None]]:
        """A process, and how to be rid of it."""
        child = subprocess.Popen(["sleep", "300"])

        def end() -> None:
            child.kill()
            child.wait()

        return ProcessIdentity.of(child.pid), end

    def close(self) -> None:
        pass


class Fake(Real):
    """The other one."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()

    def process(self) -> tuple[ProcessIdentity, Callable[[], None]]:
        kernel = self.kernel
        assert isinstance(kernel, FakeKernel)
        planned = Planned(("sleep",), (), "/", (0, 0), "", -1, -1, ())
        process = FakeProcess(kernel.next_identity(), planned, Output({}, -1, None))
        process.root = ("/",)
        kernel.add_process(process)
        return process.identity, lambda: process.exit(137)

    def close(self) -> None:
        assert isinstance(self.kernel, FakeKernel)
        self.kernel.close()


@pytest.fixture(params=[pytest.param(Real, marks=pytest.mark.root), Fake])
def world(request: pytest.FixtureRequest, leak_check: None) -> Iterator[Real]:
    world = request.param()
    yield world
    world.close()


@pytest.fixture
def kernel(world: Real) -> Kernel:
    return world.kernel


@pytest.fixture
def nl(kernel: Kernel) -> Iterator[int]:
    fd = kernel.nl_open()
    yield fd
    os.close(fd)


@pytest.fixture
def bridge(kernel: Kernel, nl: int) -> Iterator[int]:
    """The index of a bridge."""
    yield kernel.bridge_create(nl, "pn-contract", **BRIDGE)
    kernel.link_delete(nl, "pn-contract")


@pytest.fixture
def inside(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """A namespace and a netlink socket in it."""
    fds = kernel.netns_create()
    yield fds
    for fd in fds:
        os.close(fd)


def refuses(number: int, deed: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(KernelError) as caught:
        deed(*args, **options)
    assert caught.value.errno == number


# ---- links ----


def test_a_bridge(kernel: Kernel, nl: int, bridge: int) -> None:
    refuses(errno.EEXIST, kernel.bridge_create, nl, "pn-contract", **BRIDGE)
    link = kernel.link_get("pn-contract")
    assert link is not None
    assert (link.name, link.ifindex, link.kind, link.alias) == (
        "pn-contract",
        bridge,
        "bridge",
        "pynetns-test",
    )
    assert link.up and link.master == 0
    assert kernel.link_index(nl, "pn-contract") == bridge
    refuses(errno.EEXIST, kernel.address_add, nl, "pn-contract", "10.99.0.1", 24)
    own = [one for one in kernel.addresses_dump() if one.ifindex == bridge]
    assert [(one.local, one.prefix) for one in own] == [(socket.inet_aton("10.99.0.1"), 24)]
    kernel.link_set_up(nl, "pn-contract", False)
    link = kernel.link_get("pn-contract")
    assert link is not None and not link.up
    kernel.link_sysctl("pn-contract", "forwarding")


def test_an_absent_link(kernel: Kernel, nl: int) -> None:
    assert kernel.link_get("pn-none") is None
    refuses(errno.ENODEV, kernel.link_index, nl, "pn-none")
    refuses(errno.ENODEV, kernel.link_set_up, nl, "pn-none", True)
    refuses(errno.ENODEV, kernel.address_add, nl, "pn-none", "10.99.0.1", 24)
    kernel.link_delete(nl, "pn-none")  # is fine
    with pytest.raises(FileNotFoundError):
        kernel.link_sysctl("pn-none", "forwarding")


def test_a_pair(kernel: Kernel, nl: int, bridge: int, inside: tuple[int, int]) -> None:
    namespace, within = inside
    kernel.veth_create(nl, "pn-host", "eth0", peer_netns=namespace, master=bridge)
    refuses(errno.EEXIST, kernel.veth_create, nl, "pn-host", "eth1", peer_netns=namespace)
    refuses(errno.EEXIST, kernel.veth_create, nl, "pn-other", "eth0", peer_netns=namespace)
    assert [link.name for link in kernel.links_dump(bridge)] == ["pn-host"]
    assert kernel.link_configure(within, "eth0", "10.99.0.2", 24, "10.99.0.1") > 0
    refuses(errno.ENODEV, kernel.link_configure, within, "eth7", "10.99.0.3", 24)
    kernel.link_delete(nl, "pn-host")
    assert kernel.link_get("pn-host") is None
    refuses(errno.ENODEV, kernel.link_configure, within, "eth0", "10.99.0.2", 24)


def test_a_pair_on_a_bridge_that_is_gone(kernel: Kernel, nl: int, inside: tuple[int, int]) -> None:
    refuses(
        errno.EINVAL, kernel.veth_create, nl, "pn-host", "eth0", peer_netns=inside[0], master=9999
    )
    assert kernel.link_get("pn-host") is None


# ---- namespaces ----


def test_a_pinned_namespace(kernel: Kernel, tmp_path: Path, inside: tuple[int, int]) -> None:
    pin = str(tmp_path / "pin")
    refuses(errno.ENOENT, kernel.ns_open, pin, 0x40000000)
    kernel.ns_pin(inside[0], pin)
    try:
        refuses(errno.EEXIST, kernel.ns_pin, inside[0], pin)
        os.close(kernel.ns_open(pin, 0x40000000))
    finally:
        kernel.ns_unpin(pin)
    assert not os.path.exists(pin)
    kernel.ns_unpin(pin)  # is fine
    (tmp_path / "plain").touch()
    refuses(errno.EINVAL, kernel.ns_open, str(tmp_path / "plain"), 0x40000000)


def test_a_namespace_begun(kernel: Kernel) -> None:
    begun = kernel.netns_begin()
    for fd in begun.finish():
        os.close(fd)
    begun.close()
    begun.close()
    kernel.netns_begin().close()


# ---- mounts and files ----


def test_an_overlay(kernel: Kernel, tmp_path: Path) -> None:
    for name in ("low", "up", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/file").write_text("below")
    (tmp_path / "low/both").write_text("below")
    (tmp_path / "up/both").write_text("above")
    places = [str(tmp_path / name) for name in ("low", "up", "work")]
    root = kernel.overlay_mount([places[0]], *places[1:])
    try:
        for name, text in (("file", b"below"), ("both", b"above")):
            fd = kernel.open_in_root(root, name, os.O_RDONLY)
            assert os.read(fd, 99) == text
            os.close(fd)
        refuses(errno.ENOENT, kernel.open_in_root, root, "etc/passwd", os.O_RDONLY)
        refuses(errno.ENOTDIR, kernel.open_in_root, root, "file/x", os.O_RDONLY)
    finally:
        os.close(root)
    refuses(errno.ENOENT, kernel.overlay_mount, [str(tmp_path / "none")], *places[1:])


def test_a_tmpfs(kernel: Kernel, tmp_path: Path) -> None:
    where = str(tmp_path / "point")
    refuses(errno.ENOENT, kernel.tmpfs_mount, where, "mode=700")
    os.mkdir(where)
    assert not kernel.is_mounted(where)
    kernel.tmpfs_mount(where, "mode=700")
    try:
        assert kernel.is_mounted(where)
        Path(f"{where}/file").touch()
    finally:
        kernel.umount(where)
    assert not kernel.is_mounted(where) and os.listdir(where) == []
    kernel.umount(where)  # is fine


def test_a_bind(kernel: Kernel, tmp_path: Path) -> None:
    os.close(kernel.tree_clone(str(tmp_path)))
    refuses(errno.ENOENT, kernel.tree_clone, str(tmp_path / "none"))


# ---- processes ----


def test_a_process_and_its_end(world: Real, kernel: Kernel) -> None:
    identity, end = world.process()
    pidfd = -1
    try:
        assert kernel.boot_id() == identity.boot_id
        assert kernel.start_ticks(identity.pid) == identity.start_ticks > 0
        assert kernel.process_lives(identity) and not kernel.process_is_ending(identity)
        pidfd = kernel.process_open(identity)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(0) == []
        for kind in ("net", "mnt"):
            os.close(kernel.process_namespace(identity, kind))
        os.close(kernel.process_root(identity))
        assert kernel.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert poll.poll(SHORT * 1000)
    finally:
        end()
        if pidfd >= 0:
            assert not kernel.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)
    assert not kernel.process_lives(identity) and kernel.process_is_ending(identity)
    assert kernel.start_ticks(identity.pid) != identity.start_ticks
    for deed in (
        kernel.process_open,
        kernel.process_root,
        lambda gone: kernel.process_namespace(gone, "net"),
    ):
        with pytest.raises(ProcessLookupError):
            deed(identity)


def test_another_process_with_its_number(world: Real, kernel: Kernel) -> None:
    identity, end = world.process()
    try:
        other = ProcessIdentity(identity.pid, identity.start_ticks + 1, identity.boot_id)
        before = ProcessIdentity(identity.pid, identity.start_ticks, "another boot")
        for stranger in (other, before):
            assert not kernel.process_lives(stranger)
            with pytest.raises(ProcessLookupError):
                kernel.process_open(stranger)
    finally:
        end()


# ---- ports ----


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("first", ["0.0.0.0", "127.0.0.1"])
def test_a_port_is_taken_while_somebody_has_its_socket(
    kernel: Kernel, kind: int, first: str
) -> None:
    held = kernel.port_bind(kind, first, 49999)
    for address in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(OSError) as caught:
            kernel.port_bind(kind, address, 49999)
        assert caught.value.errno == errno.EADDRINUSE
    copy = os.dup(held.fileno())
    held.close()
    with pytest.raises(OSError):
        kernel.port_bind(kind, first, 49999)
    os.close(copy)
    kernel.port_bind(kind, first, 49999).close()


def test_a_port_of_an_address_that_is_nobody_s(kernel: Kernel) -> None:
    with pytest.raises(OSError) as caught:
        kernel.port_bind(socket.SOCK_STREAM, "192.0.2.1", 49999)
    assert caught.value.errno == errno.EADDRNOTAVAIL


# ---- rules ----


def test_rules_and_ports(kernel: Kernel) -> None:
    table = "pynetns-contract"
    port = PublishedPort("tcp", "0.0.0.0", 8080, "10.99.0.2", 80)
    moved = port._replace(container_port=81)
    refuses(errno.ENOENT, kernel.nft_transaction, rules.render_add(table, [port]))
    assert kernel.nft_dump(rules.nf.GETRULE, rules.text(1, table)) == []
    kernel.nft_transaction(rules.render_table(table, []))
    try:
        kernel.nft_transaction(rules.render_add(table, [port]))
        kernel.nft_transaction(rules.render_add(table, [port]))  # the same is fine
        with pytest.raises(KernelError) as caught:
            kernel.nft_transaction(rules.render_add(table, [moved]))
        assert caught.value.errno in (errno.EBUSY, errno.EEXIST)
        kernel.nft_transaction(rules.render_remove(table, [port]))
        refuses(errno.ENOENT, kernel.nft_transaction, rules.render_remove(table, [port]))
    finally:
        kernel.nft_transaction(rules.render_delete_table(table))
    refuses(errno.ENOENT, kernel.nft_transaction, rules.render_delete_table(table))
    assert kernel.conntrack_dump([53]) == []
