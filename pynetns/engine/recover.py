"""Making true what is on record: the first act of every verb, and of opening an engine.

Owns: the order in which a container is made true, and who waits for its lock. Whoever crashed left one
of these: an end that nobody noticed, a start, a create or a removal that died half way. The bundle
(`<exec_root>/tasks/<id>`) is made first by a start and given back last by an end: while it is there
beside a container that does not run, something is to be given back. What nobody owns at all is
garbage.py's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import NotFound, Unavailable
from ..runtime.task import task_directory
from .adopt import adopt
from .ending import end_task, has_ended, process_has_ended, release_resources, settle_exit
from .ghosts import is_ghost, remove_ghost
from .lock import container_lock, remove_lock, try_container_lock
from .removal import remove_everything

if TYPE_CHECKING:
    from ..store import ContainerRow, RunningRow
    from .services import Services


log = logging.getLogger("pynetns")

_FEW = 16  # living containers that are looked at one by one: asking the shim costs as much
_PATIENCE = 0.1  # seconds within which the shim has to list what lives; else they are all looked at


# ---- one container ----


def recover(engine: Services, container_id: str) -> ContainerRow:
    """With the container's lock held: make what is on record true; the row as it is then.

    Settles an end that nobody noticed, undoes a start that died half way, completes a removal.
    NotFound when the container is gone, also when it goes by this: its create died half way, or it
    has ended and was to be removed then. Unavailable when the shim, which knows how it ended,
    cannot be asked; Conflict when its directory cannot be removed.
    """
    row = engine.store.container(container_id)
    if row is None:
        release_unowned(engine, container_id)
        raise not_found(container_id)
    if row.state.running:
        row = settle_exit(engine, row)
    elif not row.state.removal_in_progress:
        release_half_start(engine, row.id)
    if row.state.removal_in_progress:
        remove_everything(engine, row)
        raise not_found(container_id)
    if is_ghost(engine, row):
        remove_ghost(engine, row)
        raise not_found(container_id)
    return row


def not_found(container_id: str) -> NotFound:
    """The error of a container that there is not."""
    return NotFound(f"No such container: {container_id}")


def release_half_start(engine: Services, container_id: str) -> None:
    """End and give back what a start made that died half way, or an end did not come to."""
    bundle = os.path.exists(task_directory(engine.exec_root, container_id))
    if bundle or engine.store.sandbox_of(container_id) is not None:  # alone: before a reboot
        end_task(engine, container_id)
        release_resources(engine, container_id)


def release_unowned(engine: Services, container_id: str) -> None:
    """What is left in the exec root of a container that is gone altogether. One that runs is of a root
    that was deleted: only `gc` ends it."""
    bundle = os.path.exists(task_directory(engine.exec_root, container_id))
    if bundle and container_id in engine.shim.tasks():
        log.warning("%s runs, and its root is gone : gc ends and removes it", container_id[:12])
        return
    release_half_start(engine, container_id)
    remove_lock(engine.exec_root, container_id)


def current(engine: Services, container_id: str) -> ContainerRow:
    """First act of a verb that does not hold the container's lock itself: its row, true.

    One that runs needs no lock. Any other may be starting, ending or going: that is waited for.
    Raises as `recover` does.
    """
    row = engine.store.container(container_id)
    if row is not None and row.state.running and not has_ended(engine, row):
        return row
    return settle_now(engine, container_id)


def settle_now(engine: Services, container_id: str) -> ContainerRow:
    """Wait for the container's lock, then `recover`."""
    with container_lock(engine.exec_root, container_id):
        return recover(engine, container_id)


def read_row(engine: Services, container_id: str) -> ContainerRow:
    """First act of a reader that names a container: its row, see `refresh`. NotFound."""
    row = engine.store.container(container_id)
    row = None if row is None else refresh(engine, row)
    if row is None:
        raise not_found(container_id)
    return row


def refresh(engine: Services, row: ContainerRow) -> ContainerRow | None:
    """First act of a reader: the row, true if that takes no waiting; None when it is gone.

    A container that somebody is at work on, or that cannot be looked into, is shown as it is known.
    """
    try:
        if not needs_recovery(engine, row):
            return row
        with try_container_lock(engine.exec_root, row.id) as held:
            return recover(engine, row.id) if held else engine.store.container(row.id)
    except NotFound:
        return None
    except Exception as error:
        _tell(row.name, error)
        return row


def needs_recovery(engine: Services, row: ContainerRow) -> bool:
    """Cheap look without the lock: may it be otherwise than the row says?"""
    state = row.state
    if state.running:
        return has_ended(engine, row)
    if state.removal_in_progress or os.path.exists(task_directory(engine.exec_root, row.id)):
        return True
    return is_ghost(engine, row)


# ---- all of them ----


def restore(engine: Services) -> dict[str, ContainerRow]:
    """Recover every container that may need it; none keeps the others, or the engine, from use. Their
    rows, by id: on a full disk they tell of ends that could not be recorded."""
    try:
        running = {row.id: row for row in engine.store.running()}
        bundles = set(os.listdir(f"{engine.exec_root}/tasks"))
        found = suspects(engine, running, bundles)
    except Exception as error:
        log.error("containers are left as they are known : %s", error)
        return {}
    for container_id in running.keys() - bundles:
        attempt(engine, container_id, adopt)
    rows = (attempt(engine, container_id, recover) for container_id in found)
    return {row.id: row for row in rows if row is not None}


def attempt(
    engine: Services, container_id: str, repair: Callable[[Services, str], ContainerRow | None]
) -> ContainerRow | None:
    """Repair one, unless somebody is at work on it; its row then. What prevents it is logged."""
    try:
        with try_container_lock(engine.exec_root, container_id) as held:
            return repair(engine, container_id) if held else None
    except NotFound:
        pass
    except Exception as error:
        _tell(container_id[:12], error)
    return None


def _tell(name: str, error: Exception) -> None:
    log.log(
        logging.INFO if isinstance(error, Unavailable) else logging.ERROR,
        "container %s is left as it is known : %s",
        name,
        error,
    )
    log.debug("recovery of %s", name, exc_info=True)


def suspects(
    engine: Services, running: Mapping[str, RunningRow], bundles: Collection[str]
) -> list[str]:
    """The ids that need a closer look. What this costs for those that live and for those that are
    settled is a look at a table, at two directories and at the shim's list."""
    store = engine.store
    left = store.sandbox_owners()
    left.update(bundles)
    left.difference_update(running)
    locked = set(os.listdir(f"{engine.exec_root}/locks")).difference(running)
    if locked:
        left |= locked.difference(store.ids_by_prefix("", limit=-1))
    left.update(row.id for row in store.unsettled() if needs_recovery(engine, row))
    return [*_not_seen_alive(engine, running), *sorted(left)]


def _not_seen_alive(engine: Services, running: Mapping[str, RunningRow]) -> list[str]:
    listed = {}
    if len(running) > _FEW:
        try:
            listed = engine.shim.tasks(_PATIENCE)
        except Exception as error:
            log.debug("the shim's list is not to be had : %s", error)
    unlisted = [row for row in running.values() if listed.get(row.id) != row.pid]
    return [row.id for row in unlisted if process_has_ended(engine, row.id, row)]
