"""Making state true again when an engine opens, and removing what nobody owns.

Opening is cheap: it looks only at what the store says should be alive or should be gone. `gc` looks
at the machine as well: namespaces, links, rules, cgroups, directories.
Intent is always recorded before a kernel object is made, so the store knows of everything.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import Conflict
from .exit import has_ended, release_resources, remove_if_wanted, settle_exit
from .ghosts import remove_ghost
from .lock import remove_lock, try_container_lock
from .record import container_directory
from .remove import remove_everything
from .start import end_task

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .core import Engine


log = logging.getLogger("pynetns")


def restore(engine: Engine) -> None:
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


def _settle(engine: Engine, row: ContainerRow, left_something: bool) -> None:
    if row.state.running:
        if has_ended(engine, row):
            _repair(engine, row)
    elif row.state.status == "removing" or left_something:
        _repair(engine, row)
    elif not row.state.started_before:
        remove_ghost(engine, row)


def _repair(engine: Engine, row: ContainerRow) -> None:
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


def _release_unowned(engine: Engine, container_id: str) -> None:
    with try_container_lock(engine.exec_root, container_id) as held:
        if not held or engine.store.container(container_id) is not None:
            return
        end_task(engine, container_id)
        release_resources(engine, container_id)
        remove_lock(engine.exec_root, container_id)


def collect_garbage(engine: Engine, *, everything: bool = False) -> list[str]:
    """Remove what no container owns; one line for each thing removed."""
    restore(engine)
    rows = {row.id: row for row in engine.store.containers()}
    removed = _unowned_directories(engine, set(rows))
    removed += _containers_without_files(engine, rows)
    removed += engine.image_store.collect()
    alive = {row.id for row in rows.values() if row.state.running}
    removed += [f"network {what}" for what in engine.network.restore(alive)]
    removed += [f"cgroup {path}" for path in engine.cgroups.collect(alive)]
    _remove_stale_locks(engine, set(rows))
    if everything:
        removed += remove_engine(engine)
    return removed


def _unowned_directories(engine: Engine, ids: set[str]) -> list[str]:
    removed = []
    for where in ("containers", "overlay2"):
        for name in os.listdir(f"{engine.root}/{where}"):
            if name in ids or engine.image_store.owns_layer(name):
                continue
            with try_container_lock(engine.exec_root, name) as held:
                if not held or engine.store.container(name) is not None:
                    continue  # being created
                shutil.rmtree(f"{engine.root}/{where}/{name}", ignore_errors=True)
            removed.append(f"directory {engine.root}/{where}/{name}")
    return removed


def _containers_without_files(engine: Engine, rows: dict[str, ContainerRow]) -> list[str]:
    removed = []
    for row in rows.values():
        if os.path.exists(container_directory(engine.root, row.id)):
            continue
        with try_container_lock(engine.exec_root, row.id) as held:
            current = engine.store.container(row.id) if held else None
            if current is None or os.path.exists(container_directory(engine.root, row.id)):
                continue
            if current.state.running:
                log.warning("container %s runs without its files : remove it with -f", row.name)
                continue
            remove_everything(engine, current)
            removed.append(f"container {row.name}: it has no files")
    return removed


def _remove_stale_locks(engine: Engine, ids: set[str]) -> None:
    for name in os.listdir(f"{engine.exec_root}/locks"):
        if name in ids:
            continue
        with try_container_lock(engine.exec_root, name) as held:
            if held and engine.store.container(name) is None:
                remove_lock(engine.exec_root, name)


def remove_engine(engine: Engine) -> list[str]:
    """The engine's own kernel objects: rules, bridge, mounts. Refused while a container exists."""
    rows = engine.store.containers()
    if rows:
        raise Conflict(f"gc --all : {len(rows)} container(s) left, remove them first")
    removed = [f"network {what}" for what in engine.network.remove_all()]
    engine.shim.close()  # it ends once nobody is connected
    removed += [f"cgroup {path}" for path in engine.cgroups.remove_parent()]
    engine.kernel.umount(engine.exec_root)
    removed.append(f"mount {engine.exec_root}")
    return removed
