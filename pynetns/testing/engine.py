"""An engine on a fake machine.

Owns: what belongs to one machine, and the wiring of an engine to it. All verbs are the real ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..client.engine import Engine
from ..engine.services import default_cgroup_parent
from ..runtime.cgroups.protocol import Cgroups
from ..runtime.shim.protocol import Shim
from .cgroups import FakeCgroups
from .kernel import FakeKernel
from .shim import FakeShim


@dataclass(frozen=True)
class FakeMachine:
    """What engines on one machine share: its kernel, the shim, a directory for its cgroups."""

    kernel: FakeKernel
    shim: FakeShim
    cgroups: str

    def close(self) -> None:
        """Give its descriptors back: no process is left. Idempotent."""
        self.kernel.close()


class FakeEngine(Engine):
    """A `pynetns.Engine` whose kernel and shim are fakes; `close` leaves the machine as it is."""

    kernel: FakeKernel
    shim: FakeShim

    def __init__(self, machine: FakeMachine, **options: Any) -> None:
        self.machine = machine
        super().__init__(kernel=machine.kernel, **options)

    def _make_cgroups(self) -> Cgroups:
        parent = default_cgroup_parent(self.root)
        return FakeCgroups(self.machine.kernel, self.machine.cgroups, parent)

    def _make_shim(self) -> Shim:
        return self.machine.shim


def fake_machine(directory: str | os.PathLike[str]) -> FakeMachine:
    """A machine without anything; `directory` is where its cgroups are."""
    kernel = FakeKernel()
    cgroups = os.path.join(os.path.realpath(directory), "cgroup")
    os.makedirs(cgroups, exist_ok=True)
    return FakeMachine(kernel, FakeShim(kernel), cgroups)


def fake_engine(
    directory: str | os.PathLike[str], machine: FakeMachine | None = None, **options: Any
) -> FakeEngine:
    """An engine with its roots below the existing `directory`, on a machine of its own or on `machine`
    (a second engine, or one after a crash). `options`: those of Engine. Needs no root.
    """
    top = os.path.realpath(directory)
    config_file = os.path.join(top, "daemon.json")  # not the one of this machine
    if not os.path.exists(config_file):
        with open(config_file, "w", encoding="ascii") as file:
            file.write("{}\n")
    options = {
        "root": os.path.join(top, "root"),
        "exec_root": os.path.join(top, "exec"),
        "config_file": config_file,
        **options,
    }
    return FakeEngine(machine or fake_machine(top), **options)
