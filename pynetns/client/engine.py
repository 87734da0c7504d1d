"""`pynetns.Engine`: the services of a root, its containers and images, and what it tells of itself.

Owns: the public object's shape. The wiring is engine/services.py's, the work that of engine/verbs/.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from .. import __version__
from ..engine.garbage import collect_garbage
from ..engine.recover import restore
from ..engine.services import Services
from ..engine.summaries import complete_summaries
from ..trace import metrics
from .containers import ContainerCollection
from .images import ImageCollection


class Engine(Services):
    __doc__ = Services.__doc__

    def _open(self) -> None:
        super()._open()
        self.containers = ContainerCollection(self)
        self.images = ImageCollection(self)
        complete_summaries(self)
        restore(self)

    def ping(self) -> bool:
        """Whether state can be read. True, or an exception that says why not."""
        self.store.meta()
        return True

    def version(self) -> dict[str, Any]:
        """Versions of the package, the kernel and the interpreter."""
        return {
            "Version": __version__,
            "KernelVersion": platform.release(),
            "Os": "linux",
            "Arch": platform.machine(),
            "PythonVersion": platform.python_version(),
        }

    def info(self) -> dict[str, Any]:
        """Counts, places and the machine, with Docker's keys where it has them."""
        count = self.store.count_by_status()
        total, running = count.total(), count["running"]
        return {
            "ID": self.store.engine_id,
            "Containers": total,
            "ContainersRunning": running,
            "ContainersPaused": 0,
            "ContainersStopped": total - running,
            "Images": len(self.image_store.list()),
            "Driver": "overlay2",
            "LoggingDriver": self.settings.log_config.type or "json-file",
            "LogOpts": dict(self.settings.log_config.config),
            "DockerRootDir": self.root,
            "ExecRoot": self.exec_root,
            **self.network.describe(),
            "DNS": list(self.settings.dns),
            "DNSSearch": list(self.settings.dns_search),
            "DNSOptions": list(self.settings.dns_options),
            "ConfiguredBy": dict(self.settings.sources),
            "CgroupLayout": self.cgroups.layout,
            "KernelVersion": platform.release(),
            "NCPU": os.cpu_count(),
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Warnings": [str(self.bad_configuration)] if self.bad_configuration else [],
        }

    def metrics(self) -> dict[str, dict[str, float]]:
        """Count and seconds of every step this process has taken."""
        return metrics.snapshot()

    def events(self, since: int = 0) -> list[Any]:
        """Recorded events with an id above `since`, oldest first."""
        return self.store.events(since)

    def gc(self, *, all: bool = False) -> list[str]:
        """Remove what nobody owns; says what, one line each. With `all` also the engine's own
        bridge, rules and mounts, if no container is left."""
        return collect_garbage(self, everything=all)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
