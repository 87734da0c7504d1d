"""What the tests of the C core share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.engine.services import default_cgroup_parent
from pynetns.runtime.oci import Runtime

from .. import leaks
from ..conftest import end_shim
from .oci_bench import Bundle
from .shim_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A shim of its own."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def runtime(tmp_path) -> Iterator[Runtime]:
    """A runtime of the test's own; what is left of it at the end goes."""
    root = str(tmp_path / "oci")
    leaks.watch_root(root)
    runtime = Runtime(root, cgroup_parent=default_cgroup_parent(root))
    try:
        yield runtime
    finally:
        for name in os.listdir(f"{runtime.exec_root}/tasks"):
            runtime.delete(name, force=True)
        end_shim(runtime)
        runtime.prune()
