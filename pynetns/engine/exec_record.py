"""The record directory of an exec: where its exit code waits for whoever started it.

Owns: `<exec_root>/tasks/<container>/<exec>/`, from before the start until the answer is given. Who waits
holds a flock(2) on it, which ends with its process: a record whose exec has ended and that nobody holds
has nobody to read it, and the next exec of the container (or `gc`) removes it.
"""

from __future__ import annotations

import fcntl
import os

from ..errors import Conflict
from ..forks import Descriptors
from ..locks import take_directory
from ..runtime.task import delete_bundle, task_directory


class ExecRecord:
    """A record directory of one's own, held until `remove`, or until nobody has this object."""

    def __init__(self, exec_root: str, container_id: str, exec_id: str) -> None:
        """Conflict when the container has no bundle (any more): it has ended."""
        self._held = Descriptors()
        self._exec_root = exec_root
        self.key = f"{container_id}/{exec_id}"
        self.directory = task_directory(exec_root, self.key)
        while not self._held:
            self._make(container_id)

    def _make(self, container_id: str) -> None:
        try:
            os.mkdir(self.directory, 0o700)
            self._held.open(os.open, self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if os.path.isdir(task_directory(self._exec_root, container_id)):
                return  # swept before it was held
            raise Conflict(f"Container {container_id} is not running") from error
        fcntl.flock(self._held[0], fcntl.LOCK_SH)
        if os.fstat(self._held[0]).st_nlink == 0:
            self._held.close()

    def remove(self) -> None:
        """The answer is given, or there was no start. Idempotent."""
        delete_bundle(self._exec_root, self.key)
        self._held.close()


def sweep_records(exec_root: str, container_id: str) -> list[str]:
    """Remove the records that nobody reads any more; their keys."""
    directory = task_directory(exec_root, container_id)
    removed = []
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    for name in names:
        if _remove_unread(exec_root, f"{container_id}/{name}"):
            removed.append(f"{container_id}/{name}")
    return removed


def _remove_unread(exec_root: str, key: str) -> bool:
    """Remove a record that nobody waits for and in which nothing is written any more: its exec has
    ended, or was never begun. Held meanwhile: who makes one looks again once it has the lock."""
    try:
        with take_directory(task_directory(exec_root, key), wait=False) as held:
            if "exit.tmp" in os.listdir(held.fileno()):  # into which the shim writes its end
                return False
            delete_bundle(exec_root, key)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False
