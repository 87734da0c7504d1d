"""streams/stdcopy.py: frames, however they arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import System
from pynetns.streams import stdcopy
from pynetns.streams.stdcopy import Demux, demux, mux

_CHUNKS = st.lists(st.tuples(st.sampled_from(stdcopy.STREAMS), st.binary(min_size=1, max_size=50)))


def test_the_header_is_dockers() -> None:
    assert mux("stdout", b"hi") == b"\x01\0\0\0\0\0\0\x02hi"
    assert mux("stderr", b"!") == b"\x02\0\0\0\0\0\0\x01!"
    assert mux("stdout", b"") == b""


@given(_CHUNKS, st.data())
def test_round_trip_however_it_is_cut(chunks: list[tuple[str, bytes]], data: st.DataObject) -> None:
    stream = b"".join(mux(name, text) for name, text in chunks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    parts = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    assert list(demux(parts)) == chunks


def test_large_data_becomes_several_frames() -> None:
    data = bytes(stdcopy.MAX_FRAME + 5)
    chunks = Demux().feed(mux("stdout", data))
    assert [len(text) for _, text in chunks] == [stdcopy.MAX_FRAME, 5]


@pytest.mark.parametrize("bad", [b"\x03\0\0\0\0\0\0\x01", b"\x01\x01\0\0\0\0\0\x01", b"HTTP/1.1"])
def test_no_frame_is_an_error(bad: bytes) -> None:
    with pytest.raises(System, match="no frame header"):
        Demux().feed(bad)


def test_an_end_within_a_frame_is_an_error() -> None:
    with pytest.raises(System, match="ended within a frame"):
        list(demux([mux("stdout", b"hello")[:-1]]))


def test_unknown_stream() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        mux("stdlog", b"x")
