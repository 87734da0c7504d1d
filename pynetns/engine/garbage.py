"""Removing what nobody owns: directories, locks, cgroups, links, rules. `gc`.

Opening an engine looks only at what the store says should be alive or gone; this looks at the machine
as well. Intent is always recorded before a kernel object is made, so the store knows of everything.
"""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from ..errors import Conflict
from ..runtime.shim.lost import exec_root_of
from .ending import end_task, release_resources
from .exec_record import sweep_records
from .exec_root import make_parts
from .lock import remove_lock, try_container_lock
from .record import container_directory
from .recover import restore
from .removal import remove_everything

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services

log = logging.getLogger("pynetns")


def collect_garbage(engine: Services, *, everything: bool = False) -> list[str]:
    """Remove what no container owns; one line for each thing removed."""
    make_parts(engine.exec_root, engine.kernel.is_mounted)
    removed = _unowned_tasks(engine)
    restore(engine)
    rows = {row.id: row for row in engine.store.containers()}
    removed += _unowned_directories(engine, set(rows))
    removed += _containers_without_files(engine, rows)
    removed += engine.image_store.collect()
    alive = {row.id for row in rows.values() if row.state.running}
    removed += [f"network {what}" for what in engine.network.restore(alive)]
    removed += [f"cgroup {path}" for path in engine.cgroups.collect(alive)]
    removed += _unread_exits(engine, alive)
    if everything:
        removed += remove_engine(engine)
    return removed


def _unread_exits(engine: Services, alive: set[str]) -> list[str]:
    """What execs left that nobody waits for."""
    return [f"exec {key}" for id in sorted(alive) for key in sweep_records(engine.exec_root, id)]


def _unowned_tasks(engine: Services) -> list[str]:
    """Bundles without a container: it went half way, or its root was deleted while it ran."""
    removed = []
    for name in os.listdir(f"{engine.exec_root}/tasks"):
        with try_container_lock(engine.exec_root, name) as held:
            if not held or engine.store.container(name) is not None:
                continue
            lives = name in engine.shim.tasks()
            end_task(engine, name)
            release_resources(engine, name)
            remove_lock(engine.exec_root, name)
        what = "which ran without its root" if lives else "what was left of it"
        removed.append(f"container {name[:12]}: {what}")
    return removed


def _unowned_directories(engine: Services, ids: set[str]) -> list[str]:
    removed = []
    for where in ("containers", "overlay2"):
        for name in os.listdir(f"{engine.root}/{where}"):
            if name in ids or engine.image_store.owns_layer(name):
                continue
            with try_container_lock(engine.exec_root, name) as held:
                if not held or engine.store.container(name) is not None:
                    continue  # being created
                shutil.rmtree(f"{engine.root}/{where}/{name}", ignore_errors=True)
                remove_lock(engine.exec_root, name)
            removed.append(f"directory {engine.root}/{where}/{name}")
    return removed


def _containers_without_files(engine: Services, rows: dict[str, ContainerRow]) -> list[str]:
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
            try:
                remove_everything(engine, current)
            except Exception as error:
                log.error("container %s is left : %s", row.name, error)
                continue
            removed.append(f"container {row.name}: it has no files")
    return removed


def _living_cgroups(engine: Services) -> list[str]:
    """Containers of an earlier root of the same path, whose exec root is lost as well: their cgroups
    are all that tells of them. Those of another exec root's shim are not ours."""
    if any(place != engine.exec_root for place in map(exec_root_of, engine.cgroups.shim_pids())):
        return []
    removed = []
    for container_id, pids in engine.cgroups.populated().items():
        if engine.store.container(container_id) is None:
            engine.cgroups.remove(container_id)
            removed.append(f"container {container_id[:12]}: {pids} processes without a root")
    return removed


def remove_engine(engine: Services) -> list[str]:
    """The engine's own kernel objects: rules, bridge, mounts. Refused while a container exists."""
    rows = engine.store.containers()
    if rows:
        raise Conflict(f"gc --all : {len(rows)} container(s) left, remove them first")
    removed = _living_cgroups(engine)
    removed += [f"network {what}" for what in engine.network.remove_all()]
    engine.shim.close()  # it ends once nobody is connected
    removed += [f"cgroup {path}" for path in engine.cgroups.remove_parent()]
    engine.kernel.umount(engine.exec_root)
    removed.append(f"mount {engine.exec_root}")
    return removed
