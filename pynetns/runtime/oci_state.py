"""What an OCI container's directory holds: state.json, the lock, and the pipe that its process waits at.

Owns: `<root>/tasks/<id>/` but for the shim's `exit`. state.json is written whole or not at all. The
directory itself is what is locked (flock(2)); the pipe exec.fifo has a reader exactly as long as a
created container waits for its start. Knows nothing of shims or cgroups.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from ..errors import Conflict, NotFound, StateDamaged
from ..kernel.process import ProcessIdentity

_STATE, _FIFO = "state.json", "exec.fifo"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What is written down of a container. `process` None: it is being made, or its maker was killed.
    `run`: the shim's name for its task; `joins`: it starts in another's pid namespace, as another
    process; `cgroup`: its path in every hierarchy; `created`: RFC 3339."""

    id: str
    oci_version: str = "1.0.2"
    bundle: str = ""
    rootfs: str = ""
    created: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    program: str = ""
    cgroup: str = ""
    joins: bool = False
    process: ProcessIdentity | None = None
    run: int = 0


class StateDirectory:
    """The directory of one container."""

    def __init__(self, path: str, container_id: str) -> None:
        self.path = path
        self._id = container_id

    def _missing(self) -> NotFound:
        return NotFound(f"container {self._id}: does not exist")

    # ---- state.json ----

    def read(self) -> ContainerState:
        """What is written down; of a container whose maker has not come so far, its id. Raises
        NotFound, StateDamaged."""
        try:
            with open(f"{self.path}/{_STATE}", encoding="utf-8") as file:
                fields = json.load(file)
            process = fields.pop("process")
            return ContainerState(**fields, process=process and ProcessIdentity(**process))
        except FileNotFoundError as error:
            if not os.path.isdir(self.path):
                raise self._missing() from error
            return ContainerState(self._id)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateDamaged(f"{self.path}/{_STATE}: {error}") from error

    def write(self, state: ContainerState) -> None:
        """Write it down, whole or not at all. Under the lock."""
        fresh = f"{self.path}/{_STATE}.new"
        with open(os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
            json.dump(asdict(state), file)
        os.replace(fresh, f"{self.path}/{_STATE}")

    # ---- the lock ----

    @contextmanager
    def locked(self) -> Iterator[StateDirectory]:
        """Hold the container's lock; waits for it. NotFound, also of one that is removed meanwhile."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                if not self._is_there(fd):
                    raise self._missing()
                yield self
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has a copy
        finally:
            os.close(fd)

    def is_locked(self) -> bool:
        """Whether somebody holds the lock. NotFound."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(fd, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise self._missing() from error

    def _is_there(self, fd: int) -> bool:
        mine = os.fstat(fd)
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    # ---- the pipe ----

    def make_fifo(self) -> int:
        """Make the pipe; a descriptor of it, the caller's, from which a process can read that waits
        for its start: it is a writer as well, so that the pipe does not end."""
        os.mkfifo(f"{self.path}/{_FIFO}", 0o600)
        return os.open(f"{self.path}/{_FIFO}", os.O_RDWR | os.O_CLOEXEC)

    def open_fifo(self) -> int:
        """The pipe's write end, the caller's. Conflict when nobody waits there (any more)."""
        try:
            return os.open(f"{self.path}/{_FIFO}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
            raise Conflict(f"container {self._id}: does not wait for its start") from error

    def has_waiter(self) -> bool:
        """Whether a process waits for its start. fifo(7)."""
        try:
            os.close(self.open_fifo())
        except Conflict:
            return False
        return True
