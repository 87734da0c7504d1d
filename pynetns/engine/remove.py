"""Removing a container: everything it has on disk, and its name. moby daemon/delete.go."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Conflict, NotFound
from ..trace import step
from .exit import release_resources, settle_exit
from .lock import container_lock, remove_lock
from .record import container_directory, remove_container_directory

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .core import Engine


def container_remove(engine: Engine, container_id: str, *, force: bool = False) -> None:
    """Remove a container; with `force` a running one is killed first.

    Raises NotFound, or Conflict for a running one without `force`.
    """
    with step("container_remove"), container_lock(engine.exec_root, container_id):
        row = engine.store.container(container_id)
        if row is None:
            remove_lock(engine.exec_root, container_id)
            raise NotFound(f"No such container: {container_id}")
        row = settle_exit(engine, row)
        if row.state.running:
            if not force:
                raise Conflict(
                    f"You cannot remove a running container {row.id}. Stop the container "
                    "before attempting removal or force remove"
                )
            row = kill_and_settle(engine, row)
        remove_everything(engine, row)


def kill_and_settle(engine: Engine, row: ContainerRow) -> ContainerRow:
    """With the lock held: SIGKILL and wait for the end."""
    engine.shim.signal(row.id, signal.SIGKILL)
    while row.state.running:
        engine.shim.wait(row.id)
        row = settle_exit(engine, row)
    return row


def remove_everything(engine: Engine, row: ContainerRow) -> None:
    """Mark, free, forget: in this order, so that a crash leaves a container that can be removed."""
    engine.store.set_state(row.id, replace(row.state, status="removing"))
    release_resources(engine, row.id)
    engine.rootfs.remove_layer(row.id)
    remove_container_directory(engine.root, row.id)
    if os.path.exists(container_directory(engine.root, row.id)):
        engine.store.set_state(row.id, replace(row.state, status="dead"))
        raise Conflict(f"container {row.name}: its directory could not be removed")
    with engine.store.transaction():
        engine.store.remove_container(row.id)
        engine.store.add_event("container", "destroy", row.id, {"name": row.name})
    engine.forget_record(row.id)
    remove_lock(engine.exec_root, row.id)
