"""What the tables hold: one NamedTuple per table.

Owns: what a row is to those who use it. Knows nothing of connections; the tables are in schema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..model.network import NetworkSettings
from ..model.state import State
from ..model.summary import Summary


class ContainerRow(NamedTuple):
    """`name` has no leading slash; `created` is RFC 3339. `summary` is None until its files are
    there: the container is being created, or comes from a version that kept none."""

    id: str
    name: str
    created: str
    state: State
    network: NetworkSettings
    summary: Summary | None = None


class RunningRow(NamedTuple):
    """What is needed to see whether a container's process lives."""

    id: str
    pid: int
    start_ticks: int
    boot_id: str


class NetworkRow(NamedTuple):
    """`subnet` is a CIDR, `mtu` in bytes, `cursor` the last address handed out, as a number.
    `generation` grows when the network is about to be taken down."""

    id: str
    name: str
    driver: str
    subnet: str
    gateway: str
    bridge: str
    mtu: int
    cursor: int
    generation: int = 0


class EndpointRow(NamedTuple):
    """`address` is the IPv4 address as a number; the row is what holds that address."""

    id: str
    container_id: str
    network_id: str
    name: str
    address: int
    mac: str
    host_ifname: str
    sandbox_id: str


class SandboxRow(NamedTuple):
    """`key` is the path of the pinned namespace, "" for the host's own."""

    container_id: str
    id: str
    key: str


class PortRow(NamedTuple):
    """One published port. `host_ip` "0.0.0.0" is every address of the host."""

    proto: str
    host_ip: str
    host_port: int
    container_id: str
    endpoint_id: str
    container_ip: str
    container_port: int


class ImageRow(NamedTuple):
    """`name` is the one given at import, tags are further ones; `size` in bytes."""

    id: str
    name: str
    created: str
    layers: tuple[str, ...]
    config: Mapping[str, Any]
    size: int


class EventRow(NamedTuple):
    """`id` grows by one per event; `time_ns` nanoseconds since the epoch."""

    id: int
    time_ns: int
    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str]
