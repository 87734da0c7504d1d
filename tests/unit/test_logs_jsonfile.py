"""streams/logs/jsonfile.py: blocks of lines against Python's JSON parser, damage, tails."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.streams.logs import jsonfile
from pynetns.streams.logs.selection import Selection

from .log_files import json_escape, json_line, json_shown, stamp

STREAMS = st.sampled_from(["stdout", "stderr"])
# what a program may write to look like the frame, and what breaks escapes
HOSTILE = [
    b'","stream":"stderr","time":"2023-11-14T22:13:20.000000000Z"}\n',
    b'{"log":"',
    b'\\","stream":"stdout","time":"',
    b'"}',
    b"\\n",
    b"\\\\n",
    b"\\u0041",
    b"\\",
    b"\\\\",
    b"\0",
    b"\x1b[31m",
    b"\x7f",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    "\U0001f600ä".encode(),
    b"\r",
    b"\t",
    b"\x08\x0c",
]
TEXTS = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from(HOSTILE), max_size=6).map(b"".join),
    st.binary(min_size=1, max_size=4).map(lambda part: part * 300),  # of the size for long lines
)


def decode(
    content: bytes, cuts: list[int] | None = None, **options: Any
) -> list[tuple[str, bytes]]:
    """The chunks of a file that is read in blocks which end at `cuts`."""
    decoder = jsonfile.Decoder(Selection(**options))
    chunks = []
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts or ()), len(content)]
    for start, end in pairwise(edges):
        chunks += decoder.feed(content[start:end])
    return chunks + decoder.finish()


def by_stream(chunks: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Neighbours of one stream joined; empty ones left out."""
    joined: list[tuple[str, bytes]] = []
    for stream, data in chunks:
        if data and joined and joined[-1][0] == stream:
            joined[-1] = stream, joined[-1][1] + data
        elif data:
            joined.append((stream, data))
    return joined


@given(TEXTS)
def test_the_reference_writes_what_a_json_parser_reads(text: bytes) -> None:
    shown = json_shown(json_line(text))
    assert shown == ("stdout", text.decode("utf-8", "surrogateescape").translate(
        {code: 0xFFFD for code in range(0xDC80, 0xDD00)}).encode())  # fmt: skip


@given(st.lists(st.tuples(TEXTS, STREAMS), max_size=20), st.lists(st.integers(0, 9000), max_size=4))
def test_blocks_are_read_as_a_json_parser_reads_lines(
    entries: list[tuple[bytes, str]], cuts: list[int]
) -> None:
    """Whatever the texts are, however the file is cut, on all ways through the decoder."""
    lines = [json_line(text, stream, n) for n, (text, stream) in enumerate(entries)]
    content = b"".join(lines)
    expected = [shown for shown in map(json_shown, lines) if shown is not None]
    assert len(expected) == len(lines)
    assert by_stream(decode(content, cuts)) == by_stream(expected)
    assert decode(content, cuts, apart=True) == expected
    stamped = [(s, f"{stamp(n)} ".encode() + d) for n, (s, d) in enumerate(expected)]
    assert decode(content, cuts, apart=True, timestamps=True) == stamped
    assert by_stream(decode(content, cuts, timestamps=True)) == by_stream(stamped)
    errors = [chunk for chunk in expected if chunk[0] == "stderr"]
    assert by_stream(decode(content, cuts, stdout=False)) == by_stream(errors)


@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_one_stream_is_one_piece(texts: list[bytes]) -> None:
    lines = [json_line(text, "stderr") for text in texts]
    shown = [json_shown(line) for line in lines]
    text = b"".join(data for _, data in shown)  # type: ignore[misc]
    assert decode(b"".join(lines)) == ([("stderr", text)] if text else [])


@given(st.text(max_size=30))
def test_every_way_to_write_a_json_string(text: str) -> None:
    """As other writers have it: surrogate pairs for what is beyond the basic plane."""
    for encoded in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        raw = encoded.encode()[1:-1].replace(b"/", b"\\/")
        assert jsonfile.unescape(raw) == text.encode()


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfffx", "\\ud83d\\u0041"])
def test_half_a_surrogate_pair_is_the_replacement_character(escape: str) -> None:
    line = json_line(b"").replace(b'"log":""', f'"log":"{escape}"'.encode())
    block, single = decode(line), decode(line.replace(b'{"log', b'{ "log'))
    assert block == single
    assert "�" in block[0][1].decode()


def test_a_text_cannot_pass_for_another_entry() -> None:
    forged = b'x\n","stream":"stderr","time":"2020-01-01T00:00:00.000000000Z"}\n{"log":"y'
    assert decode(json_line(forged)) == [("stdout", forged)]
    assert decode(json_line(forged), apart=True) == [("stdout", forged)]
    assert decode(json_line(forged), since=stamp().encode()) == [("stdout", forged)]
    assert b'","stream"' not in json_escape(forged)
    assert b'{"log"' not in json_escape(forged)


GOOD = json_line(b"good\n")
DAMAGE = {
    "zeros of a hole": b"\0" * 5000,
    "half an entry": json_line(b"lost\n")[:30],
    "half an entry, a whole one in its text": json_line(GOOD)[:-40],
    "another object": b'{"a":1}',
    "no object": b"[1, 2]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "no text": b'{"log":7,"stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "no stream": b'{"log":"x","stream":"stdlog","time":"2023-11-14T22:13:20.000000000Z"}',
    "bad attributes": b'{"log":"x","stream":"stdout","attrs":[1],"time":"2023-11-14T22:13:20Z"}',
    "bad escape": b'{"log":"\\x41","stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "open end": b'{"log":"a\\","stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "zero in a text": b'{"log":"a\0b","stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "long, a quote in it": b'{"log":"' + b"a" * 900 + b'"b","stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "long, a zero in it": b'{"log":"' + b"a" * 900 + b'\0b","stream":"stdout","time":"2023-11-14T22:13:20.000000000Z"}',
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("options", [{}, {"apart": True}, {"since": stamp().encode()}])
def test_damage_is_passed_over(damage: bytes, options: dict[str, Any]) -> None:
    content = GOOD + damage + b"\n" + GOOD
    assert by_stream(decode(content, **options)) == [("stdout", b"good\ngood\n")]


@pytest.mark.parametrize("name", ["zeros of a hole", "half an entry", "no object"])
def test_an_entry_behind_damage_is_found(name: str) -> None:
    """Nothing has ended the line that a crash cut short: the next entry is on it."""
    content = GOOD + DAMAGE[name] + GOOD
    assert by_stream(decode(content)) == [("stdout", b"good\ngood\n")]


def test_a_line_without_end_is_not_kept() -> None:
    decoder = jsonfile.Decoder(Selection())
    for _ in range(40):
        assert decoder.feed(b"\0" * 262144) == []
        assert len(decoder._rest) <= jsonfile.LINE_MAX
    assert decoder.feed(GOOD) == [("stdout", b"good\n")]


def test_an_unfinished_line_is_no_entry() -> None:
    assert decode(GOOD + GOOD[:-1]) == [("stdout", b"good\n")]


def test_times_of_any_length() -> None:
    """Go leaves trailing zeros out; they are shown and compared all the same."""
    line = GOOD.replace(b".000000000Z", b".5Z")
    assert decode(line, timestamps=True) == [("stdout", b"2023-11-14T22:13:20.500000000Z good\n")]
    assert decode(line, since=b"2023-11-14T22:13:20.500000001Z") == []
    assert decode(line, until=b"2023-11-14T22:13:20.500000000Z") == [("stdout", b"good\n")]
    whole = GOOD.replace(b".000000000Z", b"Z")
    assert decode(whole, timestamps=True) == [("stdout", b"2023-11-14T22:13:20.000000000Z good\n")]


def test_the_first_entry_after_until_ends_the_log() -> None:
    content = b"".join(json_line(b"%d\n" % n, offset_ns=n) for n in (0, 1, 5, 2))
    decoder = jsonfile.Decoder(Selection(until=stamp(3).encode()))
    assert decoder.feed(content) == [("stdout", b"0\n"), ("stdout", b"1\n")]
    assert decoder.done


def test_details() -> None:
    attributes = b'"stream":"stdout","attrs":{"b":"2 3","a":"x=y"},"time"'
    line = GOOD.replace(b'"stream":"stdout","time"', attributes)
    assert decode(line) == [("stdout", b"good\n")]
    assert decode(line, details=True) == [("stdout", b"a=x%3Dy,b=2+3 good\n")]
    assert decode(GOOD, details=True) == [("stdout", b" good\n")]
    shown = decode(GOOD, details=True, timestamps=True)
    assert shown == [("stdout", b"2023-11-14T22:13:20.000000000Z  good\n")]


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(0, 40), st.integers(1, 64))
def test_tail_reads_blocks_of_any_size(sizes: list[int], count: int, block: int) -> None:
    lines = [b"x" * size for size in sizes]
    content = b"".join(line + b"\n" for line in lines)
    fd = os.memfd_create("log")
    before = jsonfile.BLOCK
    try:
        jsonfile.BLOCK = block
        os.write(fd, content + b"unfinished")
        offset, found = jsonfile.tail_offset(fd, len(content), count)
        unfinished = jsonfile.tail_offset(fd, len(content) + 10, count)
    finally:
        jsonfile.BLOCK = before
        os.close(fd)
    wanted = lines[len(lines) - count :] if count < len(lines) else lines
    assert found == min(count, len(lines))
    assert content[offset:] == b"".join(line + b"\n" for line in wanted if count)
    assert unfinished == ((offset, found) if count else (len(content) + 10, 0))
