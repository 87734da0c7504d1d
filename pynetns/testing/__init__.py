"""Fakes for tests, yours and ours: a whole engine without root, containers or a kernel.

    >>> import tempfile
    >>> from pynetns.testing import fake_engine
    >>> with tempfile.TemporaryDirectory() as directory, fake_engine(directory) as engine:
    ...     engine.containers.run("host", ["echo", "hello"])
    b'hello\\n'

Owns: what is public. docs/testing.md says how to use it. What runs is the engine itself: names, state,
addresses, plans, undo and events; only `Kernel`, `Shim` and `Cgroups` are others.
"""

from __future__ import annotations

from .cgroups import FakeCgroups
from .engine import FakeEngine, FakeMachine, fake_engine, fake_machine
from .kernel import FakeKernel
from .process import FakeProcess, Program
from .shim import FakeShim, not_found

__all__ = [
    "FakeCgroups",
    "FakeEngine",
    "FakeKernel",
    "FakeMachine",
    "FakeProcess",
    "FakeShim",
    "Program",
    "fake_engine",
    "fake_machine",
    "not_found",
]
