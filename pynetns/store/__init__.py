"""Embedded state: what must be unique, or found fast, across processes. SQLite, one file.

Owns: names, ids, states, addresses, host ports, endpoints, images, events. Knows nothing of kernel
objects or of files elsewhere. A start performs two transactions: one records what is about to be
made in the kernel, one that it runs.
"""

from __future__ import annotations

from .containers import MAX_EVENTS, ContainerTable
from .images import ImageTable
from .networks import NetworkGone, NetworkTable
from .rows import (
    ContainerRow,
    EndpointRow,
    EventRow,
    ImageRow,
    NetworkRow,
    PortRow,
    RunningRow,
    SandboxRow,
)
from .schema import SCHEMA_VERSION


class Store(ContainerTable, NetworkTable, ImageTable):
    """The state below one root, in the file `path` (made when absent; its directory must exist).

    `engine_id`: 32 hex digits, made with the file. Any number of threads and processes may use it
    at once, a forked child too. Raises StateDamaged, Unavailable (see Database).
    """


__all__ = [
    "MAX_EVENTS",
    "SCHEMA_VERSION",
    "ContainerRow",
    "EndpointRow",
    "EventRow",
    "ImageRow",
    "NetworkGone",
    "NetworkRow",
    "PortRow",
    "RunningRow",
    "SandboxRow",
    "Store",
]
