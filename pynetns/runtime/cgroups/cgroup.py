"""What the manager hands out: a container's cgroups.

Owns: the record. Knows nothing of how it comes about.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The cgroups of one container. `v2_fd` is the directory to clone into, -1 without a v2
    hierarchy; `join_fds` are cgroup.procs files to write "0" to; `paths` maps a controller ("" for
    v2) to its directory; `mounts` are (name below /sys/fs/cgroup, directory) to show inside."""

    v2_fd: int
    join_fds: tuple[int, ...]
    paths: Mapping[str, str]
    mounts: tuple[tuple[str, str], ...]

    def close(self) -> None:
        """Release the descriptors, once."""
        for fd in (self.v2_fd, *self.join_fds):
            if fd >= 0:
                os.close(fd)
