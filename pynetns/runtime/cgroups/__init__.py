"""The cgroups of containers: one v2 cgroup each, v1 ones where a limit needs them, device rules.

Owns: `<hierarchy>/<parent>/<id>` in every hierarchy. Knows nothing of how a process gets there.
"""

from __future__ import annotations

from .hierarchy import Hierarchies
from .manager import DEFAULT_PARENT, Cgroup, CgroupManager, Stats, clean_parent

__all__ = ["DEFAULT_PARENT", "Cgroup", "CgroupManager", "Hierarchies", "Stats", "clean_parent"]
