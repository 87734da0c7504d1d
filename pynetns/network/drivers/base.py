"""A network, and what a driver does for it.

Owns: the values, and the interface. A network is made from its row in the store and used by many
starts: what those need is text and numbers made once. libnetwork driverapi.Driver, by behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ...store import NetworkRow
from ..ipam import Subnet


class Pool(NamedTuple):
    """The addresses of a network; `gateway` is the host's own."""

    subnet: Subnet
    gateway: str
    broadcast: str


class Segment(NamedTuple):
    """Where packet rules find a network: its bridge, and its subnet as CIDR."""

    bridge: str
    subnet: str


NO_POOL = Pool(Subnet(0, 0, 1, 0, 32, 0), "", "")


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How links of a network are made: the bridge they belong to (name, ifindex), mtu in bytes."""

    bridge: str = ""
    ifindex: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Network:
    """A network that exists. `generation` tells one that is still in use from one that is being taken
    down; a network without addresses has NO_POOL."""

    id: str
    name: str
    driver: Driver
    pool: Pool = NO_POOL
    options: LinkOptions = LinkOptions()
    generation: int = 0


class Driver(Protocol):
    """`own_namespace`: whether a container on such a network gets a namespace of its own;
    `has_endpoints`: whether it gets an address and a link."""

    @property
    def name(self) -> str: ...
    @property
    def own_namespace(self) -> bool: ...
    @property
    def has_endpoints(self) -> bool: ...

    def create(self, row: NetworkRow) -> Network:
        """Make what all containers of the network share; what is there is adopted and repaired."""
        ...

    def delete(self, row: NetworkRow) -> list[str]:
        """Remove it; what was removed. An absent one is fine, another's is left alone."""
        ...

    def segment(self, row: NetworkRow) -> Segment | None:
        """Where packet rules find it; None where there are none."""
        ...

    def join(
        self, nl: int, network: Network, link: str, *, peer: str, netns: int, mac: bytes
    ) -> None:
        """Make a container's link: `link` on the host, `peer` with `mac` in namespace `netns`."""
        ...

    def is_there(self, nl: int, network: Network) -> bool:
        """Whether what the containers share still exists, as it was made."""
        ...

    def leave(self, links: Sequence[str]) -> None:
        """Remove links by their names on the host; absent ones are fine."""
        ...
