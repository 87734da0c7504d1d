"""The examples of docs/low-level.md, docs/oci-runtime.md and of the public modules run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from pynetns.runtime.oci import Runtime

from ..conftest import end_shim
from .oci_bench import SLEEP, left

pytestmark = pytest.mark.root
DOCUMENTS = Path(__file__).parents[2] / "docs"


def run_document(name: str, **names: str) -> int:
    """How many examples there are; all of them hold."""
    result = doctest.testfile(str(DOCUMENTS / name), module_relative=False, globs=names)
    assert result.failed == 0
    return result.attempted


def test_the_low_level_document(tmp_path):
    assert run_document("low-level.md", pin=str(tmp_path / "pin")) > 20


def test_the_oci_document(runtime, bundle):
    """In the runtime's root, so that what it leaves is removed."""
    assert run_document(
        "oci-runtime.md", root=runtime.exec_root, bundle=str(bundle.runs(*SLEEP).top)
    )
    assert left(runtime) == []
    with Runtime(runtime.exec_root) as theirs:  # the cgroups of a root that names none
        assert theirs.cgroups.parent != runtime.cgroups.parent
        end_shim(theirs)
        assert theirs.prune()


@pytest.mark.parametrize(
    "module",
    [
        "lowlevel.namespaces",
        "lowlevel.links",
        "lowlevel.spawn",
        "lowlevel.join",
        "kernel.operations",
    ],
)
def test_the_module(module):
    result = doctest.testmod(importlib.import_module(f"pynetns.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
