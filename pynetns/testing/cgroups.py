"""Cgroups of a fake machine: a directory instead of a hierarchy.

Owns: `<directory>/<parent>/<id>` with the files that limits are written to, as a machine of cgroup v2
with every controller has them. Which processes are in one, FakeKernel knows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import Conflict
from ..files import make_directories
from ..model.config import HostConfig
from ..runtime.cgroups.cgroup import Cgroup
from ..runtime.cgroups.hierarchy import CONTROLLERS, Hierarchies
from ..runtime.cgroups.limits import check_controllers, render
from ..runtime.cgroups.parents import clean_parent
from ..undo import Undo
from .kernel import FakeKernel
from .process import FakeProcess


class FakeCgroups:
    """The cgroups of one engine, below `directory`. `oom`: ids of containers that ran out of memory."""

    def __init__(self, kernel: FakeKernel, directory: str, parent: str) -> None:
        self.parent = clean_parent(parent)
        self.directory = directory
        self.oom: set[str] = set()
        self._kernel = kernel
        self._hierarchies = Hierarchies(directory, v2_controllers=frozenset(CONTROLLERS))

    @property
    def layout(self) -> str:
        """A machine of today."""
        return "v2"

    def private_namespace(self, privileged: bool) -> bool:
        return True

    def validate(self, host_config: HostConfig) -> None:
        check_controllers(host_config, self._hierarchies)

    def create(
        self, container_id: str, parent: str, resources: Mapping[str, Any], undo: Undo
    ) -> Cgroup:
        settings = render(resources, ())
        path = f"{self.directory}{clean_parent(parent) if parent else self.parent}/{container_id}"
        self._kernel.called("cgroup.create", path)
        if any(self._processes(path)):
            raise Conflict(f"cgroup {path}: is in use")
        undo.push(self.remove, container_id)
        make_directories(path, 0o755)
        for setting in settings:
            with open(f"{path}/{setting.file}", "w", encoding="ascii") as file:
                file.write(setting.value)
        return self._opened(path)

    def _opened(self, path: str) -> Cgroup:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return Cgroup(fd, (), {"": path}, (("", path),))

    def open(self, container_id: str) -> Cgroup:
        self._kernel.called("cgroup.open", container_id)
        for path in self.paths(container_id):
            return self._opened(path)
        raise Conflict(f"container {container_id}: has no cgroup, it is not running")

    def paths(self, container_id: str) -> list[str]:
        """Where a container's cgroup is; below more than one parent where one was left."""
        found = os.walk(self.directory)
        return [f"{place}/{container_id}" for place, names, _ in found if container_id in names]

    def _processes(self, path: str) -> Iterator[FakeProcess]:
        if os.path.isdir(path):
            status = os.stat(path)
            for process in self._kernel.living():
                if process.cgroup == (status.st_dev, status.st_ino):
                    yield process

    def oom_killed(self, container_id: str) -> bool:
        return container_id in self.oom

    def kill_all(self, container_id: str) -> None:
        self._kernel.called("cgroup.kill", container_id)
        for path in self.paths(container_id):
            for process in self._processes(path):
                process.deliver(9)

    def remove(self, container_id: str) -> None:
        self._kernel.called("cgroup.remove", container_id)
        for path in self.paths(container_id):
            for process in self._processes(path):
                process.deliver(9)
            shutil.rmtree(path)

    def collect(self, alive: set[str]) -> list[str]:
        self._kernel.called("cgroup.collect")
        removed = []
        for parent, names, _ in list(os.walk(self.directory)):
            for name in names:
                path = f"{parent}/{name}"
                if len(name) == 64 and name not in alive and not any(self._processes(path)):
                    shutil.rmtree(path)
                    removed.append(path)
        return removed

    def populated(self) -> dict[str, int]:
        top = f"{self.directory}{self.parent}"
        names = os.listdir(top) if os.path.isdir(top) else []
        counts = {name: len(list(self._processes(f"{top}/{name}"))) for name in names}
        return {name: count for name, count in counts.items() if count}

    def shim_pids(self) -> list[int]:
        return []  # it is no process

    def remove_parent(self) -> list[str]:
        self._kernel.called("cgroup.remove_parent")
        path = f"{self.directory}{self.parent}"
        try:
            os.rmdir(path)
        except OSError:
            return []
        return [path]
