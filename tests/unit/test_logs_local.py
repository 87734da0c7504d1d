"""streams/logs/local.py: records in, the exact bytes out, whatever is damaged between them."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.streams.logs import local
from pynetns.streams.logs.selection import Selection

from .log_files import local_record, stamp, varint

STREAMS = st.sampled_from(["stdout", "stderr"])
GOOD = local_record(b"good\n")


def decode(
    content: bytes, cuts: list[int] | None = None, **options: Any
) -> list[tuple[str, bytes]]:
    """The chunks of a file that is read in blocks which end at `cuts`."""
    decoder = local.Decoder(Selection(**options))
    chunks = []
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts or ()), len(content)]
    for start, end in pairwise(edges):
        chunks += decoder.feed(content[start:end])
    return chunks + decoder.finish()


def text(chunks: list[tuple[str, bytes]], stream: str) -> bytes:
    return b"".join(data for name, data in chunks if name == stream)


@given(
    st.lists(st.tuples(st.binary(max_size=300), STREAMS, st.booleans()), max_size=20),
    st.lists(st.integers(0, 3000), max_size=4),
)
def test_every_byte_comes_back(entries: list[tuple[bytes, str, bool]], cuts: list[int]) -> None:
    expected = [
        (stream, data + b"\n" if ended else data.rstrip(b"\n")) for data, stream, ended in entries
    ]
    content = b"".join(local_record(data, s, n) for n, (s, data) in enumerate(expected))
    assert decode(content, cuts, apart=True) == expected
    stamped = [(s, f"{stamp(n)} ".encode() + data) for n, (s, data) in enumerate(expected)]
    assert decode(content, cuts, apart=True, timestamps=True) == stamped
    for stream in ("stdout", "stderr"):
        assert text(decode(content, cuts), stream) == text(expected, stream)
    assert text(decode(content, cuts, stdout=False), "stdout") == b""


def test_a_line_longer_than_an_entry_is_whole_again() -> None:
    """Docker marks every piece as partial, the last with more; without that it has no newline."""
    last = b"\x2a" + varint(6) + b"\x08\x01\x12\x02id"
    content = local_record(b"a" * 16384) + local_record(b"b", more=last)
    assert decode(content) == [("stdout", b"a" * 16384 + b"b\n")]
    earlier = b"\x2a\x02\x12\x00"
    assert decode(local_record(b"a", more=earlier)) == [("stdout", b"a")]


def test_fields_in_any_order_and_unknown_ones() -> None:
    payload = b"\x1a\x01x\x7a\x01y\x20\x00\x10\x05\x0a\x06stderr"
    record = struct.pack(">I", len(payload)) + payload + struct.pack(">I", len(payload))
    assert decode(record) == [("stderr", b"x\n")]
    assert decode(record, timestamps=True) == [("stderr", b"1970-01-01T00:00:00.000000005Z x\n")]


def test_a_time_that_looks_like_the_usual_layout() -> None:
    """A clock of 1970: the time is a byte shorter, and the line's own bytes stand for its header."""
    line = b"\x19" + b"x" * 25
    payload = b"\n\x06stdout\x10" + varint(1 << 50) + b"\x1a\x1a" + line
    record = struct.pack(">I", len(payload)) + payload + struct.pack(">I", len(payload))
    assert decode(record) == [("stdout", line + b"\n")]
    shown = decode(record, timestamps=True)
    assert shown == [("stdout", b"1970-01-14T00:44:59.906842624Z " + line + b"\n")]


def test_since_and_until() -> None:
    content = b"".join(local_record(b"%d\n" % n, offset_ns=n) for n in range(5))
    chosen = decode(content, since=stamp(1).encode(), until=stamp(3).encode(), apart=True)
    assert [data for _, data in chosen] == [b"1\n", b"2\n", b"3\n"]


DAMAGE = {
    "half a record": local_record(b"lost" * 50)[:60],
    "only a length": struct.pack(">I", 500),
    "a length without end": b"\xff\xff\xff\xff",
    "no length": b"\0" * 4096,
    "zeros in a record": local_record(b"lost" * 50)[:40] + b"\0" * 4096,
    "another length behind": local_record(b"lost\n")[:-1] + b"\x07",
    "the mark of a record": b"\n\x06stdout\n\x06stdlog" * 3,
    "text": b"just some text that is no record at all\n" * 40,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("cuts", [[], [30, 60, 90], list(range(0, 300, 7))])
def test_damage_is_passed_over(damage: bytes, cuts: list[int]) -> None:
    assert text(decode(GOOD + damage + GOOD * 3, cuts), "stdout") == b"good\n" * 4
    assert text(decode(GOOD + damage, cuts), "stdout") == b"good\n"
    assert decode(damage, cuts) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_read_to_their_end(content: bytes) -> None:
    decode(content)
    decode(content, timestamps=True)
    assert text(decode(content + GOOD), "stdout").endswith(b"good\n")


@pytest.mark.parametrize(
    "payload", [b"\x0a\xff\xff\x7fstd", b"\x10", b"\x08", b"\x0d1234", b"\x0a\x06stdlog"]
)
def test_a_payload_that_is_no_entry_is_passed_over(payload: bytes) -> None:
    record = struct.pack(">I", len(payload)) + payload + struct.pack(">I", len(payload))
    assert decode(GOOD + record + GOOD) == [("stdout", b"good\ngood\n")]


def test_no_length_makes_more_be_kept_than_a_record_has() -> None:
    decoder = local.Decoder(Selection())
    for start in (struct.pack(">I", local.RECORD_MAX), b"\xff\xff\xff\xff", b""):
        for _ in range(12):
            decoder.feed(start + b"\1" * 262144)
            assert len(decoder._rest) <= local.RECORD_MAX + 8


@given(
    st.lists(st.binary(max_size=90), max_size=30),
    st.integers(0, 40),
    st.sampled_from([8, 64, 1 << 16]),
    st.sampled_from([b"", *DAMAGE.values()]),
    st.integers(0, 30),
)
def test_tail(lines: list[bytes], count: int, block: int, damage: bytes, at: int) -> None:
    """With damage the records are counted from the beginning; what is shown is the same."""
    records = [local_record(line.replace(b"\n", b"") + b"\n") for line in lines]
    content = b"".join(records[:at]) + damage + b"".join(records[at:])
    fd = os.memfd_create("log")
    before = local.BLOCK
    try:
        local.BLOCK = block
        os.write(fd, content)
        offset, found = local.tail_offset(fd, len(content), count)
    finally:
        local.BLOCK = before
        os.close(fd)
    wanted = records[len(records) - count :] if count < len(records) else records
    assert found == min(count, len(records))
    shown = decode(content[offset:], apart=True) if count else []
    assert shown == decode(b"".join(wanted), apart=True) if count else not shown
