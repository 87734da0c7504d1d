"""The contenders, all behind one interface.

Owns: `Peer` and the table of contenders. A contender that cannot run here says why; it is then
reported as missing, never estimated.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from harness import Workspace


class Times(NamedTuple):
    """CLOCK_MONOTONIC ns: the moment before the call that starts, and that of its return (None for
    a command that ends only with its container)."""

    called: int
    returned: int | None


class Peer:
    """One contender. The life of container `i`: create, start, remove; only start is measured.

    The first byte is observed by the harness, for all contenders in the same way.
    """

    name = ""
    does = ""  # what a start comprises, as far as it differs from the floor's
    helper = ""  # "a, b": command names of what lives as long as containers do

    def __init__(self, work: Workspace) -> None:
        self.work = work

    def available(self) -> str | None:
        """Why it cannot run here, None when it can."""
        return None

    def prepare(self) -> None:
        """Start what runs before any container: daemons, bridges, images."""

    def create(self, i: int) -> None:
        """What `docker create` does: everything that may be made beforehand."""

    def start(self, i: int) -> Times:
        raise NotImplementedError

    def steps(self) -> dict[str, int]:
        """Durations (ns) of the steps of the last start, where the contender tells them."""
        return {}

    def remove(self, i: int) -> None:
        """End container `i` and wait until nothing of it is left."""

    def close(self) -> None:
        """Undo prepare, whatever state that reached."""


PEERS = {
    "floor": "floor.Floor",
    "pynetns": "pynetns.Pynetns",
    "dockerd": "dockerd.Dockerd",
    "runc": "runc.Runc",
    "crun": "crun.Crun",
    "bwrap": "bwrap.Bwrap",
}


def make_peer(name: str, work: Workspace) -> Peer:
    """The contender of that name; KeyError for an unknown one."""
    module, _, cls = PEERS[name].partition(".")
    peer = getattr(importlib.import_module(f"{__name__}.{module}"), cls)(work)
    assert isinstance(peer, Peer)
    return peer
