"""What can be seen of the cgroups below an engine's own, without changing any.

Owns: which hierarchies there are, and who is in the shim's cgroup and in the containers'.
"""

from __future__ import annotations

from . import shim_place
from .files import containers_in, pids_below
from .hierarchy import Hierarchies


class CgroupView:
    """The cgroups below `parent` in every hierarchy of the machine."""

    def __init__(self, parent: str, hierarchies: Hierarchies) -> None:
        self.parent = parent
        self._hierarchies = hierarchies

    @property
    def layout(self) -> str:
        """ "v2", "v1", "hybrid" or "none"."""
        return self._hierarchies.layout

    @property
    def has_v2(self) -> bool:
        """Whether containers have a v2 cgroup."""
        return bool(self._hierarchies.v2)

    def private_namespace(self, privileged: bool) -> bool:
        """Whether a container gets a cgroup namespace of its own: with v2 alone each one does,
        privileged or not; beside v1 a privileged one sees the host's. moby adaptContainerSettings.
        """
        return self.has_v2 and not (privileged and self._hierarchies.v1)

    def populated(self) -> dict[str, int]:
        """How many processes each container has that has any, by id; of those below our own parent."""
        anchor = f"{self._hierarchies.anchor}{self.parent}"
        counts = {name: len(pids_below(f"{anchor}/{name}")) for name in containers_in(anchor)}
        return {name: count for name, count in counts.items() if count}

    def shim_pids(self) -> list[int]:
        """The processes in the shim's own cgroup, in the hierarchy where no container's are."""
        return [pid for pid in pids_below(shim_place.anchor(self._hierarchies, self.parent)) if pid]
