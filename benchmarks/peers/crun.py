"""crun, as a command.

crun 1.8 refuses a hybrid cgroup layout, so it gets a mount namespace where only v1 is left.
"""

from __future__ import annotations

from harness import CGROUPS

from .oci import OciRuntime


class Crun(OciRuntime):
    name = "crun"

    def prepare(self) -> None:
        unified = CGROUPS / "unified"
        if unified.exists():
            self.launcher_options = ("-u", str(unified))
        super().prepare()
