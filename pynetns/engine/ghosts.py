"""Containers that are only half there: a name without files.

Owns: telling and removing what a create left that was killed half way. A create takes the name first
and holds the container's lock until all is there; so a row without files whose lock is free has nobody
who would complete it. The caller holds the lock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .lock import remove_lock
from .record import container_directory
from .removal import remove_files

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services


def has_files(engine: Services, container_id: str) -> bool:
    """Whether the container's configuration is there; `hostconfig.json` is written last."""
    return os.path.exists(f"{container_directory(engine.root, container_id)}/hostconfig.json")


def is_ghost(engine: Services, row: ContainerRow) -> bool:
    """Whether its create died half way, or (without the lock) is under way."""
    state = row.state
    if state.running or state.started_before or state.removal_in_progress:
        return False
    return not has_files(engine, row.id)


def remove_ghost(engine: Services, row: ContainerRow) -> None:
    """Remove what there is of it. No event: nobody was ever told of it."""
    remove_files(engine, row.id)
    engine.store.remove_container(row.id)
    engine.forget_record(row.id)
    remove_lock(engine.exec_root, row.id)
