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
from .exec_record import sweep_records
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
    restore(engine)
    rows = {row.id: row for row in engine.store.containers()}
    removed = _unowned_directories(engine, set(rows))
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


def remove_engine(engine: Services) -> list[str]:
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
