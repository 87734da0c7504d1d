"""docs/testing.md and the example of pynetns.testing say what is true."""

from __future__ import annotations

import doctest
from pathlib import Path

import pynetns.testing

DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_document():
    result = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert result.attempted > 20 and result.failed == 0


def test_the_module_s_example():
    result = doctest.testmod(pynetns.testing)
    assert result.attempted >= 2 and result.failed == 0
