"""A container at the moment its start begins, and whether it may. moby ContainerStart, seed section 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Conflict, NotFound, NotModified
from ..model.network import NetworkSettings
from ..model.state import State
from .ending import settle_exit
from .record import ContainerRecord

if TYPE_CHECKING:
    from .services import Services


@dataclass(frozen=True, slots=True)
class Starting:
    """A container at the moment its start begins."""

    id: str
    name: str
    record: ContainerRecord
    state: State
    network: NetworkSettings


def load_starting(engine: Services, container_id: str) -> Starting:
    """The container as it is now, under its lock."""
    row = engine.store.container(container_id)
    if row is None:
        raise NotFound(f"No such container: {container_id}")
    if row.state.running:
        row = settle_exit(engine, row)  # an end nobody has noticed yet
    return Starting(row.id, row.name, engine.record(row.id), row.state, row.network)


def check_startable(container: Starting) -> None:
    """moby ContainerStart validateState, seed section 1."""
    state = container.state
    if state.paused:
        raise Conflict("cannot start a paused container, try unpause instead")
    if state.running:
        raise NotModified(f"container {container.name} is already running")
    if state.removal_in_progress or state.dead:
        raise Conflict("container is marked for removal and cannot be started")
