"""What may be chosen of the default network: its bridge, its address, its packets' size.

Owns: the values, and which of them differ from a network on record. A value that is not given is left
as it is while the network is used, and falls back while it is not. Knows nothing of files and keywords.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from ..store import NetworkRow
from .ipam import parse_subnet
from .pools import check_subnet

DEFAULT_MTU = 1500


class Difference(NamedTuple):
    """One option that a network on record does not follow. `label` is how a message names it;
    `given`: somebody asked for it."""

    option: str
    label: str
    wanted: str
    actual: str
    given: bool


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """bridge: the device's name; bip: its address as CIDR; mtu in bytes; None is not given. `labels`:
    how a message names each ("--bip" for "bip" where it says nothing)."""

    bridge: str | None = None
    bip: str | None = None
    mtu: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def label(self, option: str) -> str:
        """How a message names `option`."""
        return self.labels.get(option, f"--{option}")

    def check(self) -> None:
        """InvalidParameter for what no machine could do."""
        if self.bip is not None:
            parse_subnet(self.bip, self.bip.partition("/")[0], self.label("bip"))
            check_subnet(self.bip, self.label("bip"))

    def differences(self, row: NetworkRow, default_bridge: str) -> list[Difference]:
        """What is other on record than these options say."""
        bridge, mtu = self.bridge or default_bridge, self.mtu or DEFAULT_MTU
        found = [
            Difference("bridge", self.label("bridge"), bridge, row.bridge, self.bridge is not None),
            Difference("bip", self.label("bip"), self.bip or cidr(row), cidr(row), True),
            Difference("mtu", self.label("mtu"), str(mtu), str(row.mtu), self.mtu is not None),
        ]
        return [one for one in found if one.wanted != one.actual]


def cidr(row: NetworkRow) -> str:
    """The address of the host on a network, with the prefix of its subnet."""
    return f"{row.gateway}/{row.subnet.rpartition('/')[2]}"
