"""streams/logs/selection.py: moments of `logs` as docker-py's users give them."""

from __future__ import annotations

from datetime import datetime

import pytest

from pynetns.errors import InvalidParameter
from pynetns.streams.logs.selection import parse_moment


@pytest.mark.parametrize("bad", [[], {}, b"now", "now", float("nan"), float("inf"), 1e300])
def test_what_is_no_moment_is_refused(bad):
    with pytest.raises(InvalidParameter, match="since"):
        parse_moment(bad, "since")


def test_numbers_and_datetimes_are_moments():
    stamp = b"2023-11-14T22:13:20.500000000Z"
    assert parse_moment(1700000000.5, "since") == stamp
    assert parse_moment(datetime(2023, 11, 14, 22, 13, 20, 500000), "since") == stamp
    assert parse_moment(None, "since") == b""
