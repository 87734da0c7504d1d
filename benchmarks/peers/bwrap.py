"""bubblewrap, as a command: namespaces, a few mounts and no container life.

It does less than all others: no cgroup, no veth, no overlay, no masks, no seccomp filter, nothing
to find the container again. The command ends with its program: there is no return to measure.
"""

from __future__ import annotations

import shutil

from harness import BUILD

from . import Peer, Times
from .process import LineProcess


class Bwrap(Peer):
    name = "bwrap"
    does = "the command up to the first byte; no cgroup, veth, overlay, masks, filter, log"

    _launcher: LineProcess | None = None

    def available(self) -> str | None:
        if shutil.which("bwrap") is None:
            return "bwrap is not installed (Debian: benchmarks/setup.sh --peers)"
        if self.work.stay:
            return "bwrap has no containers that outlive the command"
        return None

    def prepare(self) -> None:
        self._launcher = LineProcess([BUILD / "launch"], self.work.path / "bwrap.log")

    def start(self, i: int) -> Times:
        assert self._launcher is not None
        work = self.work
        words = ["bwrap", "--unshare-all", "--new-session", "--hostname", "bwrap"]
        words += ["--ro-bind", str(work.plain), "/", "--proc", "/proc", "--dev", "/dev"]
        words += ["--mqueue", "/dev/mqueue", "--bind", str(work.mark), "/mark"]
        called, _, status = self._launcher.ask("\t".join((*words, *work.plain_command())))
        if status != "0":
            raise RuntimeError(f"bwrap: {self._launcher.errors() or status}")
        return Times(int(called), None)

    def close(self) -> None:
        if self._launcher is not None:
            self._launcher.close()
