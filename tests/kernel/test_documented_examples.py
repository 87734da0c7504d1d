"""The examples of docs/low-level.md and of the public modules run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
DOCUMENT = Path(__file__).parents[2] / "docs" / "low-level.md"


def test_the_document(tmp_path):
    result = doctest.testfile(
        str(DOCUMENT), module_relative=False, globs={"pin": str(tmp_path / "pin")}
    )
    assert result.attempted > 20
    assert result.failed == 0


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
