"""A container at the moment its start begins, and whether it may. moby ContainerStart, seed section 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Conflict, NotFound, NotModified
from ..model.network import NetworkSettings
from ..model.state import State
from ..runtime.task import prepare_bundle_dir
from .record import ContainerRecord
from .recover import recover, release_half_start

if TYPE_CHECKING:
    from ..undo import Undo
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
    """The container as it is now, under its lock. What a start left that died half way is found when
    the bundle is made; so the usual start asks for nothing more than its row."""
    row = engine.store.container(container_id)
    if row is None or row.state.running or row.state.removal_in_progress:
        row = recover(engine, container_id)
    try:
        record = engine.record(row.id)
    except NotFound:
        recover(engine, container_id)  # a name without files
        raise
    return Starting(row.id, row.name, record, row.state, row.network)


def claim_bundle(engine: Services, container_id: str, undo: Undo) -> str:
    """Make the bundle, which says that there is something to give back, before anything else. One
    that is there already is of a start or an end that died half way: nobody else is at it."""
    try:
        return prepare_bundle_dir(engine.exec_root, container_id, undo)
    except Conflict:
        release_half_start(engine, container_id)
        return prepare_bundle_dir(engine.exec_root, container_id, undo)


def check_startable(container: Starting) -> None:
    """moby ContainerStart validateState, seed section 1."""
    state = container.state
    if state.running:
        raise NotModified(f"container {container.name} is already running")
    if state.removal_in_progress or state.dead:
        raise Conflict("container is marked for removal and cannot be started")
