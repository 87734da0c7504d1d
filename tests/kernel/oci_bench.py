"""A bundle and a runtime for the tests of runtime/oci.py, without an engine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from pynetns.runtime.oci import Runtime

from .. import leaks
from .child_root import ChildRoot

GOLDEN = Path(__file__).parents[1] / "golden/runc-1.1.5-spec.json"
SLEEP = ["sleep", "1000"]


class Bundle:
    """A bundle as `runc spec` makes it, with a small root of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = ChildRoot(top / "rootfs")
        for applet in ("grep", "hostname", "sort", "sed", "ulimit", "umask", "ps", "touch", "tty"):
            (self.root.top / "bin" / applet).symlink_to("busybox")
        shutil.copy(GOLDEN, top / "config.json")
        self.change(lambda spec: spec["process"].update(terminal=False))

    def change(self, do) -> None:
        """Have `do` change config.json."""
        path = self.top / "config.json"
        spec = json.loads(path.read_text())
        do(spec)
        path.write_text(json.dumps(spec))

    def runs(self, *args: str) -> Bundle:
        self.change(lambda spec: spec["process"].update(args=list(args)))
        return self

    def script(self, text: str) -> Bundle:
        return self.runs("sh", "-c", text)


def again(runtime: Runtime) -> Runtime:
    """Another process's look at the same root."""
    return Runtime(runtime.exec_root, cgroup_parent=runtime.cgroups.parent)


def output(runtime: Runtime, bundle: Bundle, name: str = "c") -> tuple[int, str]:
    """Exit code and output of a run from create to delete."""
    reader, writer = os.pipe()
    try:
        runtime.create(name, str(bundle.top), stdio=(-1, writer, writer))
        os.close(writer)
        writer = -1
        runtime.start(name)
        with open(reader, closefd=False) as file:
            text = file.read()
        ended = runtime.wait(name)
        assert ended is not None
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    runtime.delete(name)
    return ended.code, text


def left(runtime: Runtime) -> list[str]:
    """What there is of containers: directories, cgroups, tasks of the shim."""
    tasks = f"{runtime.exec_root}/tasks"
    groups = [path for path in leaks.cgroups() if runtime.cgroups.parent in path]
    ours = [g for g in groups if not g.endswith((runtime.cgroups.parent, "/shim"))]
    return [*os.listdir(tasks), *ours, *runtime.shim.tasks()]
