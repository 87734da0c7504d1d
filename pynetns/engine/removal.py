"""Taking a container apart: what it has in the kernel, on disk, and its name. moby daemon/delete.go.

Owns: the order of it. The caller holds the container's lock.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

from ..errors import Conflict, Unavailable
from .ending import await_end, release_resources, send_signal, settle_exit
from .lock import remove_lock
from .record import container_directory, remove_container_directory

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services


log = logging.getLogger("pynetns")


def kill_and_settle(engine: Services, row: ContainerRow) -> ContainerRow:
    """With the lock held: SIGKILL and wait for the end."""
    send_signal(engine, row, signal.SIGKILL)
    while row.state.running:
        await_end(engine, row, locked=True)
        row = settle_exit(engine, row)
    return row


def remove_everything(engine: Services, row: ContainerRow) -> None:
    """Mark, free, forget: in this order, so that a crash leaves a container that can be removed. The
    mark is on disk before anything is gone: a power cut leaves one that is whole, or marked.

    On a full disk the mark may not be writable, nor may what is given back be struck off: what is
    freed then makes room for both.
    """
    try:
        if not row.state.removal_in_progress:
            engine.store.atomically(lambda: mark_removing(engine, row), durable=True)
        release_resources(engine, row.id)
        remove_files(engine, row.id)
    except Unavailable as error:
        log.info("container %s is removed without a mark : %s", row.name, error)
        remove_files(engine, row.id)
        release_resources(engine, row.id)
    if os.path.exists(container_directory(engine.root, row.id)):
        engine.store.set_state(row.id, row.state.become("removing").become("dead"))
        raise Conflict(f"container {row.name}: its directory could not be removed")
    engine.store.atomically(lambda: strike_off(engine, row))
    engine.forget_record(row.id)
    remove_lock(engine.exec_root, row.id)


def mark_removing(engine: Services, row: ContainerRow) -> None:
    """From here on it is nothing but to be removed."""
    engine.store.set_state(row.id, row.state.become("removing"))


def remove_files(engine: Services, container_id: str) -> None:
    """What a container has on disk."""
    engine.rootfs.remove_layer(container_id)
    remove_container_directory(engine.root, container_id)


def strike_off(engine: Services, row: ContainerRow) -> None:
    """Give back id and name."""
    engine.store.remove_container(row.id)
    engine.store.add_event("container", "destroy", row.id, {"name": row.name})
