"""An endpoint: one container on one network, from its options to its row.

Owns: what a container asks of a network, and the record of what it got. Intent comes before deed:
the row (with the name of the link to be made) is written before any kernel object exists. Knows
nothing of links. libnetwork network.CreateEndpoint, moby buildCreateEndpointOptions; seed sections
1.2.1.1.1 and 1.2.1.1.2.3-5.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidParameter
from ..model.network import DEFAULT_NETWORK, EndpointSettings, HostAddress, NetworkSettings
from ..store import EndpointRow, PortRow, SandboxRow, Store
from .drivers.base import Network
from .drivers.bridge import VETH_PREFIX
from .ipam import (
    format_address,
    format_mac,
    mac_from_address,
    parse_address,
    parse_mac,
    request_address,
)
from .ports import PortRequest, Reserved, port_requests, port_rows
from .request import ContainerOptions, network_name

CONTAINER_INTERFACE_PREFIX = "eth"


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """What one container wants of one network. `priority`: see `default_route_of`."""

    name: str
    mac: bytes | None
    address: int | None
    aliases: tuple[str, ...]
    ports: tuple[PortRequest, ...]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What it got."""

    row: EndpointRow
    network: Network
    address: str
    mac: bytes
    aliases: tuple[str, ...]
    requested_ip: str
    ports: tuple[PortRow, ...]
    priority: int = 0


def update_container_network_settings(
    options: ContainerOptions, stored: NetworkSettings
) -> dict[str, EndpointSettings]:
    """The networks a container is to be connected to, the default one first.

    Only the default network supports links, which must be known when the sandbox is made; hence it
    comes first. moby updateContainerNetworkSettings.
    """
    own = options.mode
    networks = {
        network_name(name): settings.clean_operational_data()
        for name, settings in stored.networks.items()
    } or {own: EndpointSettings(network_name=own)}
    if options.ip_address and own in networks:
        networks[own] = replace(networks[own], requested_ip=options.ip_address)
    if DEFAULT_NETWORK in networks and len(networks) > 1:
        networks = {DEFAULT_NETWORK: networks.pop(DEFAULT_NETWORK), **networks}
    return networks


def build_create_endpoint_options(
    container_name: str, options: ContainerOptions, network: str, settings: EndpointSettings
) -> EndpointOptions:
    """Options of an endpoint on `network`. The MAC address and the published ports belong to the
    network of the container's mode. InvalidParameter for a bad address or MAC.

    A requested address is accepted on the default network too, which Docker refuses; its reason, a
    subnet that may change under the container, does not hold here: it is kept in the store.
    """
    name = container_name.removeprefix("/")
    if not name.strip():
        raise InvalidParameter(f"invalid endpoint name: {name!r}")
    own = options.mode == network
    requested = settings.requested_ip
    return EndpointOptions(
        name=name,
        mac=parse_mac(options.mac_address) if own and options.mac_address else None,
        address=parse_address(requested, "ip address") if requested else None,
        aliases=settings.aliases,
        ports=port_requests(options) if own and options.publishes else (),
        priority=settings.gw_priority,
    )


def create_endpoint(
    store: Store,
    network: Network,
    options: EndpointOptions,
    sandbox: SandboxRow,
    reserved: Sequence[Reserved],
    *,
    first: bool,
) -> Endpoint:
    """Record endpoint, address, ports and with the first endpoint the sandbox, in one transaction.
    Nothing of it exists yet.

    Raises Conflict (address in use; the container is connected already), InvalidParameter
    (address outside the subnet), Unavailable (no address left), NetworkGone (somebody has removed
    the network since it was looked up).
    """
    endpoint_id = secrets.token_hex(32)

    def allocate() -> tuple[EndpointRow, str, bytes, list[PortRow]]:
        if first:
            store.add_sandbox(sandbox)
        number = request_address(
            store, network.id, network.name, network.pool.subnet, options.address
        )
        address = format_address(number)
        mac = options.mac or mac_from_address(number)
        row = EndpointRow(
            endpoint_id,
            sandbox.container_id,
            network.id,
            options.name,
            number,
            format_mac(mac),
            host_interface_name(),
            sandbox.id,
        )
        store.add_endpoint(row, network.generation)
        ports = port_rows(reserved, sandbox.container_id, endpoint_id, address)
        store.add_ports(ports)
        return row, address, mac, ports

    row, address, mac, ports = store.atomically(allocate)
    requested = address if options.address is not None else ""
    return Endpoint(
        row, network, address, mac, options.aliases, requested, tuple(ports), options.priority
    )


def default_route_of(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint by whose network everything else is reached: that of the highest priority, among
    equals the one whose network's name comes first. libnetwork sandbox.getGatewayEndpoint."""
    return min(endpoints, key=lambda end: (-end.priority, end.network.name), default=None)


def host_interface_name() -> str:
    """A name for the host's end of a veth pair: "veth" and 7 hex digits. moby GenerateIfaceName."""
    return VETH_PREFIX + secrets.token_hex(4)[:7]


def build_endpoint_info(endpoint: Endpoint) -> EndpointSettings:
    """What `inspect` shows of an endpoint. moby buildEndpointInfo."""
    network = endpoint.network
    return EndpointSettings(
        network_name=network.name,
        network_id=network.id,
        endpoint_id=endpoint.row.id,
        gateway=network.pool.gateway,
        ip_address=endpoint.address,
        ip_prefix_len=network.pool.subnet.prefix,
        mac_address=endpoint.row.mac,
        aliases=endpoint.aliases,
        requested_ip=endpoint.requested_ip,
        gw_priority=endpoint.priority,
    )


def get_port_map_info(
    exposed_ports: Sequence[str], ports: Sequence[PortRow]
) -> dict[str, tuple[HostAddress, ...] | None]:
    """Exposed and published ports with their host addresses. moby getPortMapInfo."""
    bound: dict[str, tuple[HostAddress, ...] | None] = dict.fromkeys(exposed_ports)
    for row in ports:
        key = f"{row.container_port}/{row.proto}"
        bound[key] = (*(bound.get(key) or ()), (row.host_ip, str(row.host_port)))
    return bound
