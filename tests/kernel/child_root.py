"""A small root file system for plans of this process, and running one there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pynetns.kernel import LinuxKernel
from pynetns.kernel.mount import MS_PRIVATE
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWNS, CLONE_NEWPID
from pynetns.lowlevel.spawn import spawn

BUSYBOX = "/bin/busybox"
ENV = {"PATH": "/bin"}


class ChildRoot:
    """Directory `top` becomes the root of what runs; it is written through, so its host can look."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
            (top / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, top / "bin/busybox")
        for applet in ("sh", "ls", "cat", "stat", "readlink", "test", "id", "sleep", "true"):
            (top / "bin" / applet).symlink_to("busybox")

    def run(
        self, steps: Callable[[Plan], None], script: str = "true", *, null: bool = False
    ) -> tuple[int, str]:
        """Exit code and output of `script` after `steps` in the root, with a /proc of its own; `null`:
        with the host's null device as standard input, and stdio left to the steps.

        KernelError when a step fails. What the steps hand in as descriptors stays theirs.
        """
        root = LinuxKernel.tree_clone(str(self.top), recursive=False, propagation=MS_PRIVATE)
        reader, writer = os.pipe()
        stdin = os.open("/dev/null", os.O_RDWR) if null else 0
        try:
            plan = Plan(CLONE_NEWNS | CLONE_NEWPID)
            plan.private()
            plan.root(root)
            plan.mount("proc", "proc", "/proc", 0)
            plan.mount("tmpfs", "tmpfs", "/dev", 0, "mode=755")
            plan.mknod("/dev/null", 0o020666, os.makedev(1, 3))
            steps(plan)
            if not null:
                plan.stdio()
            plan.exec(["/bin/sh", "-c", script], ENV)
            with spawn(plan, stdio=(stdin, writer, writer)) as process:
                os.close(writer)
                writer = -1
                with open(reader, closefd=False) as out:
                    text = out.read()
                return process.wait(), text
        finally:
            if null:
                os.close(stdin)
            os.close(root)
            os.close(reader)
            if writer >= 0:
                os.close(writer)
