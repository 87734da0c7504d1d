"""Cgroups as the engine sees them, as a Protocol.

Owns: the list of what can be asked, with types. `CgroupManager` works on the machine's hierarchies,
`testing.FakeCgroups` below a directory; mypy holds both to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ...model.config import HostConfig
from ...undo import Undo
from .cgroup import Cgroup


class Cgroups(Protocol):
    """The cgroups of one engine. What is raised is said in manager.py."""

    parent: str

    @property
    def layout(self) -> str:
        """ "v2", "v1", "hybrid" or "none"."""
        ...

    def private_namespace(self, privileged: bool) -> bool:
        """Whether a container gets a cgroup namespace of its own."""
        ...

    def validate(self, host_config: HostConfig) -> None:
        """Whether this machine can enforce the limits asked for."""
        ...

    def create(
        self, container_id: str, parent: str, resources: Mapping[str, Any], undo: Undo
    ) -> Cgroup:
        """Make a container's cgroups, with its limits; the result is the caller's to close."""
        ...

    def open(self, container_id: str) -> Cgroup:
        """Those of a running container, for one more process in it."""
        ...

    def oom_killed(self, container_id: str) -> bool:
        """Whether the kernel killed one of its processes for want of memory."""
        ...

    def kill_all(self, container_id: str) -> None:
        """SIGKILL to each of its processes."""
        ...

    def remove(self, container_id: str) -> None:
        """Remove a container's cgroups, killing what is left in them. Absent is fine."""
        ...

    def collect(self, alive: set[str]) -> list[str]:
        """Remove those of containers that are not in `alive`; their paths."""
        ...

    def populated(self) -> dict[str, int]:
        """How many processes each container has, by its id, of those that have any."""
        ...

    def shim_pids(self) -> list[int]:
        """The processes in the shim's own cgroup."""
        ...

    def remove_parent(self) -> list[str]:
        """Remove the engine's own, where nothing is below them; their paths."""
        ...
