"""The record directory of an exec: where its exit code waits for whoever started it.

Owns: `<exec_root>/tasks/<container>/<exec>/`, from before the start until the answer is given. Who waits
holds a flock(2) on it, which ends with its process: a record whose exec has ended and that nobody holds
has nobody to read it, and the next exec of the container (or `gc`) removes it.
"""

from __future__ import annotations

import fcntl
import os

from ..errors import Conflict
from ..runtime.task import delete_bundle, task_directory


class ExecRecord:
    """A record directory of one's own, held until `remove`, or until nobody has this object."""

    def __init__(self, exec_root: str, container_id: str, exec_id: str) -> None:
        """Conflict when the container has no bundle (any more): it has ended."""
        self._fd = -1
        self._exec_root = exec_root
        self.key = f"{container_id}/{exec_id}"
        self.directory = task_directory(exec_root, self.key)
        while self._fd < 0:
            self._make(container_id)

    def _make(self, container_id: str) -> None:
        try:
            os.mkdir(self.directory, 0o700)
            self._fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if os.path.isdir(task_directory(self._exec_root, container_id)):
                return  # swept before it was held
            raise Conflict(f"Container {container_id} is not running") from error
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        if os.fstat(self._fd).st_nlink == 0:
            self._close()

    def remove(self) -> None:
        """The answer is given, or there was no start. Idempotent."""
        delete_bundle(self._exec_root, self.key)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._close()


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
        fd = os.open(task_directory(exec_root, key), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if "exit.tmp" in os.listdir(fd):  # the page that the shim writes its end into
            return False
        delete_bundle(exec_root, key)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
