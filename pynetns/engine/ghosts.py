"""Containers that are only half there: a name without files, or files that are not on record.

Owns: telling and removing what a create left that was killed half way, and completing the record of
what is there. A create takes the name first and holds the container's lock until all is there; so a row
without files whose lock is free has nobody who would complete it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..errors import StateDamaged, Unavailable
from .lock import remove_lock, try_container_lock
from .record import container_directory, read_record, summarize
from .removal import remove_files

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services

log = logging.getLogger("pynetns")


def has_files(engine: Services, container_id: str) -> bool:
    """Whether the container's configuration is there; `hostconfig.json` is written last."""
    return os.path.exists(f"{container_directory(engine.root, container_id)}/hostconfig.json")


def adopt(engine: Services) -> None:
    """Put on record what lists show of containers that have their files, where a power cut lost it or
    an earlier version kept none. What they are made of cannot be removed from then on."""
    rows = [row for row in engine.store.unsettled() if row.summary is None]
    if not rows:
        return
    found = {}
    for row in rows:
        try:
            found[row.id] = summarize(read_record(engine.root, row.id))
        except FileNotFoundError:
            continue  # being created, or a ghost
        except (StateDamaged, OSError) as error:
            log.error("container %s : %s", row.name, error)

    def record() -> None:
        for container_id, summary in found.items():
            engine.store.set_summary(container_id, summary)

    try:
        engine.store.atomically(record)
    except Unavailable as error:
        log.info("containers of an earlier version are not listed : %s", error)


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
