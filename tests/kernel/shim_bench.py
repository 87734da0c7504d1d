"""A shim of its own for a test, and tasks in the machine's root: no engine, no container."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from pynetns.kernel import frame
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWNS, CLONE_NEWPID
from pynetns.runtime.shim.client import ShimClient
from pynetns.runtime.task import Task, read_exit

from ..conftest import end_shim, shim_processes

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def run(task: Task, plan: Plan) -> int:
    task.create(plan)
    return task.start()


class Bench:
    """A shim of its own, and tasks in the machine's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shim = ShimClient(str(root))
        self.mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.keys: list[str] = []
        self.replaced = False  # a test kills the shim, or lets it end
        self._shim = 0

    def plan(
        self,
        script: str,
        *,
        tty: bool = False,
        namespaces: int = CLONE_NEWPID,
        program: str = "sh",
    ) -> Plan:
        plan = Plan(namespaces)
        plan.setns(self.mounts, CLONE_NEWNS)
        if tty:
            plan.tty(24, 80, console=False)
        else:
            plan.setsid()
            plan.stdio()
        plan.exec([program, "-c", script], ENV)
        return plan

    def task(
        self,
        key: str,
        script: str,
        *,
        tty: bool = False,
        namespaces: int = CLONE_NEWPID,
        logs: Path | None = None,
        program: str = "sh",
        **options,
    ) -> Task:
        directory = self.root / key
        directory.mkdir()
        plan = self.plan(script, tty=tty, namespaces=namespaces, program=program)
        log = os.open(logs or directory, os.O_PATH | os.O_DIRECTORY)
        self.keys.append(key)
        flags = options.pop("flags", 0) | (frame.SPAWN_TTY if tty else 0)
        options.setdefault("log_options", frame.log_options(frame.LOG_JSON_FILE, "log"))
        task = Task(self.shim, key, str(directory), flags=flags, log_dir_fd=log, **options)
        try:
            run(task, plan)
        finally:
            os.close(log)
        self._shim = self._shim or shim_processes(self)[0]
        return task

    def wait(self, key: str) -> int:
        ended = self.shim.wait(key) or read_exit(str(self.root / key))
        assert ended is not None
        return ended.code

    def log(self, key: str) -> list[dict]:
        lines = (self.root / key / "log").read_text().splitlines()
        return json.loads(f"[{','.join(lines)}]")  # in one: faster than each alone

    def close(self) -> None:
        for key in self.keys:
            if self.shim.signal(key, signal.SIGKILL):
                self.shim.wait(key)
        crashed = self._shim and not self.replaced and shim_processes(self)[0] != self._shim
        end_shim(self)
        self.shim.close()
        os.close(self.mounts)
        assert not crashed, "the shim has crashed; its keeper has hidden it"
