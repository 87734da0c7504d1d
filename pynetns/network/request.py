"""What a container asks of its network, in this package's own terms.

Owns: the values, and reading them out of a container's configuration: nothing else here knows that
there is more in one. Knows nothing of what comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model.network import DEFAULT_NETWORK

if TYPE_CHECKING:
    from ..kernel import Pending
    from ..kernel.process import ProcessIdentity
    from ..model.config import Config, HostConfig, PortBinding
    from ..model.network import NetworkSettings


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """The options of one container that concern its network; named as in Config and HostConfig.
    `mode` is the name of a network or "container:<name or id>"."""

    mode: str = DEFAULT_NETWORK
    hostname: str = ""
    domainname: str = ""
    mac_address: str = ""
    ip_address: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    port_bindings: tuple[tuple[str, tuple[PortBinding, ...]], ...] = ()
    publish_all_ports: bool = False

    @property
    def publishes(self) -> bool:
        """Whether any port is to be published."""
        return bool(self.port_bindings or self.publish_all_ports)


@dataclass(frozen=True, slots=True)
class Networked:
    """The running container whose network another one shares."""

    container_id: str
    process: ProcessIdentity
    sandbox_key: str
    hostname: str
    domainname: str
    hosts_path: str
    resolv_conf_path: str
    hostname_path: str


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """A container about to start. `settings` are the stored ones; `directory` holds its files."""

    container_id: str
    container_name: str
    options: ContainerOptions
    directory: str
    settings: NetworkSettings
    networked: Networked | None = None
    namespace: Pending | None = None  # begun beforehand; None: made when needed


def container_options(config: Config, host_config: HostConfig) -> ContainerOptions:
    """What a configuration says of the network."""
    return ContainerOptions(
        mode=network_name(host_config.network_mode),
        hostname=config.hostname,
        domainname=config.domainname,
        mac_address=config.mac_address,
        ip_address=host_config.ip_address,
        dns=host_config.dns,
        dns_search=host_config.dns_search,
        dns_options=host_config.dns_options,
        extra_hosts=host_config.extra_hosts,
        exposed_ports=config.exposed_ports,
        port_bindings=host_config.port_bindings,
        publish_all_ports=host_config.publish_all_ports,
    )


def network_name(mode: str) -> str:
    """The network a mode means; the default mode means the default network."""
    return DEFAULT_NETWORK if mode in ("", "default") else mode
