"""floor: the bare C program of benchmarks/floor.c."""

from __future__ import annotations

from pathlib import Path

from harness import BUILD, run

from . import Peer, Times
from .process import LineProcess


class Floor(Peer):
    name = "floor"
    does = "the kernel work of a cold start on a bridge, nothing else"
    helper = "floor"

    _process: LineProcess | None = None
    _steps: dict[str, int]

    def prepare(self) -> None:
        work = self.work
        runtime = work.directory("floor", "run")
        run("mount", "-t", "tmpfs", "tmpfs", runtime)
        host = work.rootfs == "host"
        command: list[str | Path] = [BUILD / "floor", "--trace"]
        command += ["--lower", "/" if host else work.plain, *(["--nested"] if host else [])]
        command += ["--dir", work.directory("floor", "data"), "--runtime", runtime]
        command += ["--mark", work.mark, "--mark-destination", work.mark_destination]
        command += ["--program", work.program, "--fifo", work.fifo]
        command += ["--cgroup", work.cgroup_v2() / work.name]
        command += ["--seccomp", self._filter(), *(["--stay"] if work.stay else [])]
        self._process = LineProcess(command, work.path / "floor.log")

    def _filter(self) -> Path:
        """The default filter, compiled by pynetns: both load the same program."""
        from pynetns.runtime.security.capabilities import tweak_capabilities
        from pynetns.runtime.security.seccomp import container_seccomp, load_filter

        block = container_seccomp((), tweak_capabilities())
        assert block is not None
        path = self.work.path / "seccomp.bpf"
        path.write_bytes(load_filter(block, str(self.work.directory("seccomp"))))
        return path

    def create(self, i: int) -> None:
        self._ask(f"create {i}")

    def start(self, i: int) -> Times:
        _, _, called, returned, *steps = self._ask(f"start {i}")
        pairs = (step.partition("=")[::2] for step in steps)
        self._steps = {name: int(value) for name, value in pairs}
        return Times(int(called), int(returned))

    def steps(self) -> dict[str, int]:
        return self._steps

    def remove(self, i: int) -> None:
        self._ask(f"remove {i}")

    def _ask(self, line: str) -> list[str]:
        assert self._process is not None
        return self._process.ask(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
