"""The network settings of a container: frozen values and their JSON.

Owns: Docker's NetworkSettings and EndpointSettings. Knows nothing of addresses being taken or of
links. Source: Docker Engine API 1.41, `NetworkSettings`; moby daemon/network/settings.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DEFAULT_NETWORK = "bridge"


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """One network of a container. What the user asked for (`requested_ip`, `aliases`, `gw_priority`)
    outlives a stop; everything else is operational and "" while the container does not run. The
    network of the highest `gw_priority` has the container's default route."""

    network_name: str = ""
    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    mac_address: str = ""
    aliases: tuple[str, ...] = ()
    requested_ip: str = ""
    gw_priority: int = 0

    def clean_operational_data(self) -> EndpointSettings:
        """Only what the user asked for. moby cleanOperationalData."""
        return EndpointSettings(
            network_name=self.network_name,
            aliases=self.aliases,
            requested_ip=self.requested_ip,
            gw_priority=self.gw_priority,
        )

    def docker_json(self) -> dict[str, Any]:
        """Docker's `EndpointSettings` object."""
        return {
            "IPAMConfig": {"IPv4Address": self.requested_ip} if self.requested_ip else None,
            "Links": None,
            "Aliases": list(self.aliases) or None,
            "NetworkID": self.network_id,
            "EndpointID": self.endpoint_id,
            "Gateway": self.gateway,
            "IPAddress": self.ip_address,
            "IPPrefixLen": self.ip_prefix_len,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "MacAddress": self.mac_address,
            "DriverOpts": None,
        }


HostAddress = tuple[str, str]  # (host IP, host port), as text as Docker has them


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """All networks of a container. `ports`: "80/tcp" -> host addresses, None when only exposed."""

    bridge: str = ""
    sandbox_id: str = ""
    sandbox_key: str = ""
    ports: Mapping[str, tuple[HostAddress, ...] | None] = field(default_factory=dict)
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)

    @property
    def default_endpoint(self) -> EndpointSettings:
        """The endpoint that Docker repeats at the top: that of the default network."""
        return self.networks.get(DEFAULT_NETWORK, _NO_ENDPOINT)

    def clean_operational_data(self) -> NetworkSettings:
        """The settings of a container that does not run."""
        networks = {name: ep.clean_operational_data() for name, ep in self.networks.items()}
        return NetworkSettings(networks=networks)

    def docker_json(self) -> dict[str, Any]:
        """Docker's `NetworkSettings` object of `inspect`."""
        top = self.default_endpoint
        return {
            "Bridge": self.bridge,
            "SandboxID": self.sandbox_id,
            "HairpinMode": False,
            "LinkLocalIPv6Address": "",
            "LinkLocalIPv6PrefixLen": 0,
            "Ports": {port: _host_addresses(bound) for port, bound in self.ports.items()},
            "SandboxKey": self.sandbox_key,
            "SecondaryIPAddresses": None,
            "SecondaryIPv6Addresses": None,
            "EndpointID": top.endpoint_id,
            "Gateway": top.gateway,
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "IPAddress": top.ip_address,
            "IPPrefixLen": top.ip_prefix_len,
            "IPv6Gateway": "",
            "MacAddress": top.mac_address,
            "Networks": {name: ep.docker_json() for name, ep in self.networks.items()},
        }

    def to_json(self) -> str:
        """One line of JSON for the store."""
        networks = {
            name: [
                ep.network_name,
                ep.network_id,
                ep.endpoint_id,
                ep.gateway,
                ep.ip_address,
                ep.ip_prefix_len,
                ep.mac_address,
                ep.aliases,
                ep.requested_ip,
                *([ep.gw_priority] if ep.gw_priority else ()),
            ]
            for name, ep in self.networks.items()
        }
        return _encode(
            {
                "bridge": self.bridge,
                "sandbox_id": self.sandbox_id,
                "sandbox_key": self.sandbox_key,
                "ports": dict(self.ports),
                "networks": networks,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> NetworkSettings:
        """The inverse of `to_json`; what is missing is its default. ValueError, TypeError or
        AttributeError on a damaged document."""
        data = json.loads(text)
        ports = {
            port: None if bound is None else tuple((ip, number) for ip, number in bound)
            for port, bound in data.pop("ports", {}).items()
        }
        networks = {name: _endpoint(values) for name, values in data.pop("networks", {}).items()}
        return cls(ports=ports, networks=networks, **data)


def _endpoint(values: list[Any]) -> EndpointSettings:
    endpoint = EndpointSettings(*values)
    return replace(endpoint, aliases=tuple(endpoint.aliases))


def _host_addresses(bound: tuple[HostAddress, ...] | None) -> list[dict[str, str]] | None:
    return None if bound is None else [{"HostIp": ip, "HostPort": port} for ip, port in bound]


_NO_ENDPOINT = EndpointSettings()
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
