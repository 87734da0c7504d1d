"""Containers that are only half there: a name without files.

Owns: telling and removing what a create left that was killed half way. A create takes the name first
and holds the container's lock until all is there; so a row without files whose lock is free has nobody
who would complete it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .lock import remove_lock, try_container_lock
from .record import container_directory
from .removal import remove_files

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services


def has_files(engine: Services, container_id: str) -> bool:
    """Whether the container's configuration is there; `hostconfig.json` is written last."""
    return os.path.exists(f"{container_directory(engine.root, container_id)}/hostconfig.json")


def remove_ghost(engine: Services, row: ContainerRow) -> bool:
    """Remove the container if it was never completed and nobody is at it; whether it is gone."""
    if row.state.started_before or row.state.running or has_files(engine, row.id):
        return False
    with try_container_lock(engine.exec_root, row.id) as held:
        if not held or has_files(engine, row.id):
            return False
        remove_files(engine, row.id)
        engine.store.remove_container(row.id)
        remove_lock(engine.exec_root, row.id)
    return True
