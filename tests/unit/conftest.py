"""An engine on a fake machine for every unit test that asks for one; nothing of it may stay open."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator

import pytest

from pynetns.testing import FakeEngine, fake_engine

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # many engines, and nothing to keep


@pytest.fixture
def directory() -> Iterator[str]:
    """A place for an engine's roots."""
    with tempfile.TemporaryDirectory(prefix="pynetns-fake-", dir=MEMORY) as path:
        yield path


@pytest.fixture
def engine(directory: str) -> Iterator[FakeEngine]:
    """An engine without a machine: no root, no kernel, no shim."""
    before = set(os.listdir("/proc/self/fd"))
    with fake_engine(directory) as engine:
        yield engine
    engine.machine.close()
    gc.collect()  # what holds a descriptor as long as somebody has it
    assert set(os.listdir("/proc/self/fd")) == before
