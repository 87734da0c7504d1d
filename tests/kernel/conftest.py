"""What the tests of the C core share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .shim_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A shim of its own."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()
