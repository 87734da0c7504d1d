"""Where the end of a living container is recorded, when that was deleted: the directory of its task.

Owns: making it again, and telling the shim. The shim keeps an end that it cannot record until somebody
has asked for it; it records it as soon as it has a directory for that. What else was deleted is adopt.py's.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..errors import PynetnsError
from ..files import make_directories
from ..runtime.shim.client import Exit
from ..runtime.task import task_directory, write_exit
from .exec_root import make_parts
from .lock import try_container_lock

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services

log = logging.getLogger("pynetns")


def put_back(engine: Services, container_id: str) -> bool:
    """The directory of a task, where its end is recorded; whether the shim knows the task. An end that
    it has had to keep for itself is on record then."""
    make_parts(engine.exec_root, engine.kernel.is_mounted)
    directory = task_directory(engine.exec_root, container_id)
    make_directories(directory, 0o700, 0o700)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return engine.shim.record(container_id, fd)
    except PynetnsError as error:
        log.warning("container %s : its end is not recorded : %s", container_id[:12], error)
        return False
    finally:
        os.close(fd)


def ensure_bundle(engine: Services, row: ContainerRow) -> None:
    """Before an end is waited for: a place where it is recorded."""
    if os.path.isdir(task_directory(engine.exec_root, row.id)):
        return
    with try_container_lock(engine.exec_root, row.id) as held:
        if held and is_same_run(engine, row):
            put_back(engine, row.id)


def keep_exit(engine: Services, row: ContainerRow, ended: Exit) -> None:
    """An end that the shim has told and could not record: it tells it once."""
    directory = task_directory(engine.exec_root, row.id)
    if not os.path.isdir(directory) and is_same_run(engine, row):
        make_directories(directory, 0o700, 0o700)
        write_exit(directory, ended)


def is_same_run(engine: Services, row: ContainerRow) -> bool:
    """Whether the store still says that this very process runs."""
    current = engine.store.container(row.id)
    return current is not None and current.state.running and current.state.pid == row.state.pid
