"""Removing a container on request. moby daemon/delete.go ContainerRm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import Conflict, clear_errors
from ...trace import step
from ..ending import settle_exit
from ..ghosts import is_ghost, remove_ghost
from ..lock import container_lock
from ..recover import not_found, release_half_start, release_unowned
from ..removal import kill_and_settle, remove_everything

if TYPE_CHECKING:
    from ..services import Services


@clear_errors
def container_remove(engine: Services, container_id: str, *, force: bool = False) -> None:
    """Remove a container; with `force` a running one is killed first.

    Raises NotFound, or Conflict for a running one without `force`.
    """
    with step("container_remove"), container_lock(engine.exec_root, container_id):
        row = engine.store.container(container_id)
        if row is None:
            release_unowned(engine, container_id)
            raise not_found(container_id)
        row = settle_exit(engine, row)
        if row.state.running:
            if not force:
                raise Conflict(
                    f"You cannot remove a running container {row.id}. Stop the container "
                    "before attempting removal or force remove"
                )
            row = kill_and_settle(engine, row)
        else:
            release_half_start(engine, container_id)
        if is_ghost(engine, row):
            remove_ghost(engine, row)
            raise not_found(container_id)  # it never was one
        remove_everything(engine, row)
