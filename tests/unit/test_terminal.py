"""streams/terminal.py: raw mode, size, detach keys."""

from __future__ import annotations

import os
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter
from pynetns.streams.terminal import (
    DETACH_KEYS,
    DetachFilter,
    parse_detach_keys,
    raw_mode,
    window_size,
)


def test_keys() -> None:
    assert parse_detach_keys(DETACH_KEYS) == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-[,ctrl-@") == b"a\x1b\0"
    assert parse_detach_keys("") == b""


@pytest.mark.parametrize("bad", ["ctrl-", "ctrl-1", "ab", "a,,b", "ctrl-é"])
def test_bad_keys(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="--detach-keys"):
        parse_detach_keys(bad)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"ab"], b"ab", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10a"], b"\x10a", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
    ],
)
def test_detaching(typed: list[bytes], passed: bytes, detached: bool) -> None:
    keys = DetachFilter(b"\x10\x11")
    assert b"".join(keys.feed(part) for part in typed) == passed
    assert keys.detached is detached


@given(st.binary(max_size=30), st.sampled_from([b"aab", b"aba", b"a", b""]))
def test_nothing_typed_is_lost(noise: bytes, wanted: bytes) -> None:
    typed = noise + b"aaabab"
    keys = DetachFilter(wanted)
    passed = b"".join(
        keys.feed(typed[at : at + 1]) for at in range(len(typed)) if not keys.detached
    )
    if not wanted:
        assert passed == typed
    else:
        assert keys.detached
        assert typed.startswith(passed + wanted)
        assert passed == typed[: typed.index(wanted)]


def test_raw_mode_is_undone() -> None:
    master, slave = os.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(RuntimeError), raw_mode(slave):
            assert not termios.tcgetattr(slave)[3] & termios.ECHO
            raise RuntimeError
        assert termios.tcgetattr(slave) == before
        termios.tcsetwinsize(slave, (24, 80)) if hasattr(termios, "tcsetwinsize") else None
        assert len(window_size(slave)) == 2
    finally:
        os.close(master)
        os.close(slave)


def test_no_terminal_has_no_size() -> None:
    reader, writer = os.pipe()
    assert window_size(reader) == (0, 0)
    os.close(reader)
    os.close(writer)
