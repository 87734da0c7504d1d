"""What the tables hold: one NamedTuple per table, and the schema.

Owns: column names and order, the schema's version. Knows nothing of connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..model.network import NetworkSettings
from ..model.state import State

SCHEMA_VERSION = 1

# Each table and index that a start touches costs it a page, some 10 us: hence WITHOUT ROWID and
# few indexes. An endpoint is named after its container, whose name is unique already; ids are 32
# random bytes and need no index to be unique.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created TEXT NOT NULL,
    state TEXT NOT NULL, network TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE networks (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, subnet TEXT NOT NULL,
    gateway TEXT NOT NULL, bridge TEXT NOT NULL, mtu INTEGER NOT NULL, cursor INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE endpoints (
    id TEXT NOT NULL, container_id TEXT NOT NULL, network_id TEXT NOT NULL, name TEXT NOT NULL,
    address INTEGER NOT NULL, mac TEXT NOT NULL, host_ifname TEXT NOT NULL,
    sandbox_id TEXT NOT NULL, PRIMARY KEY (container_id, network_id)) WITHOUT ROWID;
CREATE UNIQUE INDEX endpoints_address ON endpoints (network_id, address);
CREATE TABLE sandboxes (
    container_id TEXT PRIMARY KEY, id TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE ports (
    proto TEXT NOT NULL, host_ip TEXT NOT NULL, host_port INTEGER NOT NULL,
    container_id TEXT NOT NULL, endpoint_id TEXT NOT NULL, container_ip TEXT NOT NULL,
    container_port INTEGER NOT NULL, PRIMARY KEY (proto, host_port, host_ip)) WITHOUT ROWID;
CREATE INDEX ports_container ON ports (container_id);
CREATE TABLE images (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, created TEXT NOT NULL, layers TEXT NOT NULL,
    config TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE image_tags (name TEXT PRIMARY KEY, image_id TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX image_tags_image ON image_tags (image_id);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL,
    actor_id TEXT NOT NULL, attributes TEXT NOT NULL);
"""


class ContainerRow(NamedTuple):
    """`name` has no leading slash; `created` is RFC 3339."""

    id: str
    name: str
    created: str
    state: State
    network: NetworkSettings


class RunningRow(NamedTuple):
    """What is needed to see whether a container's process lives."""

    id: str
    pid: int
    start_ticks: int
    boot_id: str


class NetworkRow(NamedTuple):
    """`subnet` is a CIDR, `mtu` in bytes, `cursor` the last address handed out, as a number."""

    id: str
    name: str
    driver: str
    subnet: str
    gateway: str
    bridge: str
    mtu: int
    cursor: int


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
