"""Removing a container: everything it has on disk, and its name. moby daemon/delete.go."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Conflict, NotFound, Unavailable, clear_errors
from ..trace import step
from .exit import await_end, release_resources, send_signal, settle_exit
from .lock import container_lock, remove_lock
from .record import container_directory, remove_container_directory

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .core import Engine


log = logging.getLogger("pynetns")


@clear_errors
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
    send_signal(engine, row, signal.SIGKILL)
    while row.state.running:
        await_end(engine, row)
        row = settle_exit(engine, row)
    return row


def remove_everything(engine: Engine, row: ContainerRow) -> None:
    """Mark, free, forget: in this order, so that a crash leaves a container that can be removed.

    On a full disk the mark may not be writable, nor may what is given back be struck off: what is
    freed then makes room for both.
    """
    try:
        engine.store.set_state(row.id, replace(row.state, status="removing"))
        release_resources(engine, row.id)
        remove_files(engine, row.id)
    except Unavailable as error:
        log.info("container %s is removed without a mark : %s", row.name, error)
        remove_files(engine, row.id)
        release_resources(engine, row.id)
    if os.path.exists(container_directory(engine.root, row.id)):
        engine.store.set_state(row.id, replace(row.state, status="dead"))
        raise Conflict(f"container {row.name}: its directory could not be removed")
    engine.store.atomically(lambda: strike_off(engine, row))
    engine.forget_record(row.id)
    remove_lock(engine.exec_root, row.id)


def remove_files(engine: Engine, container_id: str) -> None:
    """What a container has on disk."""
    engine.rootfs.remove_layer(container_id)
    remove_container_directory(engine.root, container_id)


def strike_off(engine: Engine, row: ContainerRow) -> None:
    """Give back id and name."""
    engine.store.remove_container(row.id)
    engine.store.add_event("container", "destroy", row.id, {"name": row.name})
