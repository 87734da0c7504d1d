"""Making state true again when an engine opens, and removing what nobody owns.

Opening is cheap: it looks only at what the store says should be alive or should be gone. `gc` looks
at the machine as well: namespaces, links, rules, cgroups, directories.
Intent is always recorded before a kernel object is made, so the store knows of everything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import System, Unavailable
from .ending import end_task, has_ended, release_resources, settle_exit
from .ghosts import remove_ghost
from .lock import container_lock, remove_lock, try_container_lock
from .removal import remove_everything

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services


log = logging.getLogger("pynetns")


def restore(engine: Services) -> None:
    """Settle every container whose end nobody has noticed, undo every start that died half way."""
    leftovers = {row.container_id for row in engine.store.sandboxes()}
    leftovers |= set(os.listdir(f"{engine.exec_root}/tasks"))
    for row in engine.store.containers():
        _attempt(row.name, _settle, engine, row, row.id in leftovers)
        leftovers.discard(row.id)
    for container_id in leftovers:  # of containers that are gone altogether
        _attempt(container_id[:12], _release_unowned, engine, container_id)


def _attempt(name: str, repair: Callable[..., object], *args: object) -> None:
    """Repair one container; one that resists must not keep the others from use."""
    try:
        repair(*args)
    except Exception as error:
        log.error("container %s : %s", name, error)
        log.debug("repair of %s", name, exc_info=True)


def _settle(engine: Services, row: ContainerRow, left_something: bool) -> None:
    if row.state.running:
        if has_ended(engine, row):
            _repair(engine, row)
    elif row.state.status == "removing" or left_something:
        _repair(engine, row)
    elif not row.state.started_before:
        remove_ghost(engine, row)


def _repair(engine: Services, row: ContainerRow) -> None:
    with try_container_lock(engine.exec_root, row.id) as held:
        if not held:
            return  # somebody is at work on it
        current = engine.store.container(row.id)
        if current is None:
            return
        if current.state.running:
            current = settle_exit(engine, current)
        elif current.state.status == "removing":
            remove_everything(engine, current)
            return
        else:
            end_task(engine, current.id)  # its starter died before it could say that it runs
            release_resources(engine, current.id)
    remove_if_wanted(engine, current)


def _release_unowned(engine: Services, container_id: str) -> None:
    with try_container_lock(engine.exec_root, container_id) as held:
        if not held or engine.store.container(container_id) is not None:
            return
        end_task(engine, container_id)
        release_resources(engine, container_id)
        remove_lock(engine.exec_root, container_id)


def refresh(engine: Services, row: ContainerRow) -> ContainerRow:
    """For readers: settle an end that has its record, unless somebody else holds the container.

    Never waits for a lock; a container that is being changed is shown as the store has it, and so
    is one whose end cannot be looked into.
    """
    if not row.state.running:
        return row
    try:
        if not has_ended(engine, row):
            return row
        with try_container_lock(engine.exec_root, row.id) as held:
            current = engine.store.container(row.id) if held else None
            if current is None:
                return row
            row = settle_exit(engine, current)
        remove_if_wanted(engine, row)
    except (OSError, System, Unavailable) as error:
        log.info("container %s is shown as it was last known : %s", row.name, error)
    return row


def settle_now(engine: Services, container_id: str) -> ContainerRow | None:
    """Take the lock, settle, then auto-remove where wanted; the row as settled.

    None when the container was removed by somebody else before.
    """
    with container_lock(engine.exec_root, container_id):
        row = engine.store.container(container_id)
        if row is None:
            remove_lock(engine.exec_root, container_id)
            return None
        row = settle_exit(engine, row)
    remove_if_wanted(engine, row)
    return row


def remove_if_wanted(engine: Services, row: ContainerRow) -> bool:
    """Remove an ended container that was created with auto-remove, unless it has been started anew."""
    if row.state.running or not row.state.started_before:
        return False
    if row.summary is None or not row.summary.auto_remove:
        return False
    with container_lock(engine.exec_root, row.id):
        current = engine.store.container(row.id)
        if current is None:  # somebody else was faster
            remove_lock(engine.exec_root, row.id)
            return True
        if current.state.running:
            return False
        remove_everything(engine, current)
    return True
