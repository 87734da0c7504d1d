"""network/flows.py: which flows a change of published ports makes the kernel forget; that it does is
in tests/kernel/test_nftables.py."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import conntrack
from pynetns.kernel.conntrack import Flow
from pynetns.network.flows import forget_misled, forget_withdrawn
from pynetns.network.published import PublishedPort

HOST, OTHER_HOST, ELSEWHERE = "192.0.2.1", "192.0.2.2", "198.51.100.7"
CONTAINER, BEFORE = ("10.0.0.2", 53), ("10.0.0.9", 53)


def flow(to: str, port: int, answered_by: tuple[str, int]) -> Flow:
    identity = f"{to}:{port} {answered_by[0]}".encode()
    answering = (socket.inet_aton(answered_by[0]), answered_by[1])
    return Flow((socket.inet_aton(to), port), answering, identity)


def udp(host_ip: str = "0.0.0.0", port: int = 5353, proto: str = "udp") -> PublishedPort:
    return PublishedPort(proto, host_ip, port, *CONTAINER)


class Flows:
    """A kernel that tracks given flows, on a machine with two addresses."""

    def __init__(self, *flows: Flow) -> None:
        self.flows, self.deleted = list(flows), []

    def conntrack_dump(self, ports: list[int]) -> list[Flow]:
        assert ports, "nothing is to be looked for"
        return self.flows

    def conntrack_delete(self, flow: Flow) -> None:
        self.deleted.append(flow)

    def addresses_dump(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(local=socket.inet_aton(address)) for address in (HOST, OTHER_HOST)]


def forgotten(change: Callable[..., None], ports: list[PublishedPort], *flows: Flow) -> list[Flow]:
    """What is forgotten of given flows when `change` happens to `ports`."""
    kernel = Flows(*flows)
    change(kernel, ports)
    return kernel.deleted


def test_published_a_flow_that_leads_elsewhere_goes_and_one_that_leads_there_stays():
    stale, right = flow(HOST, 5353, BEFORE), flow(HOST, 5353, CONTAINER)
    other = flow(HOST, 5353, (CONTAINER[0], 54))
    assert forgotten(forget_misled, [udp()], stale, right, other) == [stale, other]


def test_withdrawn_a_flow_that_leads_there_goes_and_one_that_leads_elsewhere_stays():
    stale, other = flow(HOST, 5353, CONTAINER), flow(HOST, 5353, BEFORE)
    assert forgotten(forget_withdrawn, [udp()], stale, other) == [stale]


def test_what_only_passes_through_or_goes_to_another_port_stays():
    loopback = flow("127.0.0.5", 5353, BEFORE)
    flows = [flow(ELSEWHERE, 5353, BEFORE), flow(HOST, 53, BEFORE), loopback]
    assert forgotten(forget_misled, [udp()], *flows) == [loopback]


def test_only_of_the_address_that_it_is_published_on():
    flows = [flow(address, 5353, BEFORE) for address in (HOST, OTHER_HOST)]
    assert forgotten(forget_misled, [udp(OTHER_HOST)], *flows) == [flows[1]]


def test_each_of_several_ports():
    flows = [flow(HOST, port, BEFORE) for port in (1, 2, 3)]
    assert forgotten(forget_misled, [udp(port=1), udp(port=3)], *flows) == [flows[0], flows[2]]


def test_without_udp_nothing_is_asked():
    assert forgotten(forget_misled, [udp(proto="tcp")]) == []
    assert forgotten(forget_withdrawn, []) == []


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM])
def test_a_kernel_without_connection_tracking_has_no_flows(monkeypatch, code):
    def dump(*args: object) -> None:
        raise KernelError(code, "netlink", "flows")

    monkeypatch.setattr(conntrack.netlink, "dump", dump)
    if code == errno.EPERM:
        with pytest.raises(KernelError):
            conntrack.conntrack_dump([53])
    else:
        assert conntrack.conntrack_dump([53]) == []
