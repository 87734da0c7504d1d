"""The cgroups of containers: one v2 cgroup each, v1 ones where a limit needs them, device rules.

Owns: `<hierarchy>/<parent>/<id>` in every hierarchy, and `<hierarchy>/<parent>/shim`. Knows nothing
of how a process gets there.
"""

from __future__ import annotations

from .cgroup import Cgroup
from .hierarchy import Hierarchies
from .manager import DEFAULT_PARENT, CgroupManager
from .parents import clean_parent

__all__ = ["DEFAULT_PARENT", "Cgroup", "CgroupManager", "Hierarchies", "clean_parent"]
