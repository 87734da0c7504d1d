"""The driver of network "none": a namespace with nothing but its loopback.

Owns: that there is nothing to make. Docker's null driver.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...store import NetworkRow
from .base import Network, Segment


class NullDriver:
    """No address and no link, hence nothing to create, join, leave or delete."""

    name = "null"
    own_namespace = True
    has_endpoints = False

    def create(self, row: NetworkRow) -> Network:
        return Network(row.id, row.name, self)

    def delete(self, row: NetworkRow) -> list[str]:
        return []

    def segment(self, row: NetworkRow) -> Segment | None:
        return None

    def join(
        self, nl: int, network: Network, link: str, *, peer: str, netns: int, mac: bytes
    ) -> None:
        """Whoever is on such a network has no link to it."""

    def is_there(self, nl: int, network: Network) -> bool:
        return True

    def leave(self, links: Sequence[str]) -> None:
        """There are none."""
