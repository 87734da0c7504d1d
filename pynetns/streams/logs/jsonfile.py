r"""Docker's json-file format: one JSON object a line, `{"log":"…\n","stream":"stdout","time":"…Z"}`.

Owns: the format. Blocks of lines go in, chunks of bytes come out; nothing is done for a single line
where a regular expression can do it for a whole block. What that rests on:

* A quote inside a JSON string has a backslash before it. So `{"log":"` and `","stream":"` never
  occur in a text, whatever a program writes: they are always the frame.
* Of the bytes below 0x20 only the newline occurs, and it ends the line.

A block of which any line does not look exactly so is read line by line, by a JSON parser. A line that
is no entry (a machine that crashed leaves zeros, or half a line in front of the next) is passed over,
but an entry at its end is found. Source: moby daemon/logger/jsonfilelog; the writer is csrc/.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from .selection import Chunk, Entry, Selection, stamp

BLOCK = 1 << 16  # bytes read at once, backwards
# The longest line worth keeping: an entry has 16 KiB of text, at most six bytes for each.
LINE_MAX = 1 << 20
_LONG_LINES = 400  # bytes of an average line from which _LOOSE is the faster pattern

_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_BODY = rb'([^"\\\x00\n]*(?:' + _ESCAPE + rb'[^"\\\x00\n]*)*)'
_TIME = rb'[0-9T:.-]{19,30}Z"\}\n'
_OPEN = b'{"log":"'
_ENTRY = re.compile(
    rb'(?m)^\{"log":"' + _BODY + rb'","stream":"(stdout|stderr)","time":"([0-9T:.-]{19,30}Z)"\}\n'
)
_OF_STREAM = {
    stream: re.compile(
        rb'(?m)^\{"log":"' + _BODY + rb'","stream":"' + stream.encode() + rb'","time":"' + _TIME
    )
    for stream in ("stdout", "stderr")
}
# The same many times as fast where lines are long, for texts that then turn out to be sound.
_LOOSE = {
    stream: re.compile(
        rb'(?m)^\{"log":"(.*)","stream":"' + stream.encode() + rb'","time":"' + _TIME
    )
    for stream in ("stdout", "stderr")
}
_SHORT_ESCAPES = (
    (b"\\n", b"\n"),
    (b'\\"', b'"'),
    (b"\\t", b"\t"),
    (b"\\r", b"\r"),
    (b"\\/", b"/"),
    (b"\\b", b"\b"),
    (b"\\f", b"\f"),
)
_UNICODE_ONE = re.compile(rb"\\u[0-9a-fA-F]{4}")
_UNICODE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")
_UNICODE_STROKES = 48  # the control characters, and some
# what cannot be replaced alone: halves of a surrogate pair, a backslash (it would begin an escape)
_NOT_ALONE = re.compile(rb"\\u(?:d[89a-f]|005c)", re.IGNORECASE)


class Decoder:
    """Blocks of a file in, chunks out. `done`: an entry after `until` was met."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.done = False
        self._rest = b""

    def feed(self, data: bytes) -> list[Chunk]:
        """What the next bytes of the file complete."""
        end = data.rfind(b"\n") + 1
        if not end:
            # of an endless line only its end can hold an entry
            self._rest = (self._rest + data)[-LINE_MAX:]
            return []
        block = self._rest + data[:end]
        self._rest = data[end:]
        if self.selection.plain:
            return self._plain(block)
        chunks, self.done = self.selection.chunks(entries(block))
        return chunks

    def finish(self) -> list[Chunk]:
        """The file has ended; an unfinished line is no entry."""
        self._rest = b""
        return []

    def _plain(self, block: bytes) -> list[Chunk]:
        count = block.count(b"\n")
        stream = _probable_stream(block)
        text = _text_of_stream(block, stream, count) if stream else None
        if text is not None:
            return [(stream, text)] if text and self.selection.shows(stream) else []
        found = _ENTRY.findall(block)
        if len(found) != count:
            return self.selection.chunks(_entries_by_line(block))[0]
        chunks = []
        for name, run in groupby(found, itemgetter(1)):
            if self.selection.shows(name.decode()):
                chunks.append((name.decode(), unescape(b"".join(map(itemgetter(0), run)))))
        return chunks


def _probable_stream(block: bytes) -> str:
    """The one stream of a block; "" when there are two."""
    if b'","stream":"stderr","time":"' not in block:
        return "stdout"
    return "" if b'","stream":"stdout","time":"' in block else "stderr"


def _text_of_stream(block: bytes, stream: str, count: int) -> bytes | None:
    """What a block of `count` lines holds; None when not every line is an entry of `stream`."""
    if len(block) > _LONG_LINES * count:
        texts = _LOOSE[stream].findall(block)
        if len(texts) == count:
            plain = _plain_lines(texts)
            if plain is not None:
                return plain
            if _are_sound(texts):
                return unescape(b"".join(texts))
    texts = _OF_STREAM[stream].findall(block)
    return unescape(b"".join(texts)) if len(texts) == count else None


def _plain_lines(texts: list[bytes]) -> bytes | None:
    """What texts stand for whose only escape is the newline at their end; None for others. Nothing
    here looks for more than one byte, which the C library does at memory speed."""
    lines = [text[:-2] + b"\n" if text.endswith(b"\\n") else text for text in texts]
    joined = b"".join(lines)
    return None if b"\\" in joined or b'"' in joined or b"\0" in joined else joined


def _are_sound(texts: list[bytes]) -> bool:
    """Whether each is the inside of a JSON string: every backslash begins an escape, every quote is
    part of one. The newlines between them keep an escape from going on in the next."""
    joined = b"\n".join(texts)
    if b"\0" in joined:
        return False
    rest = joined.replace(
        b"\\\\", b""
    )  # now each backslash is the first byte of an escape, or damage
    escapes = rest.count(b"\\")
    quotes = rest.count(b'"')
    if quotes and rest.count(b'\\"') != quotes:
        return False
    for escape, _ in _SHORT_ESCAPES:
        if not escapes:
            return True
        escapes -= rest.count(escape)
    return not escapes or len(_UNICODE_ONE.findall(rest)) == escapes


def entries(block: bytes) -> Iterator[Entry]:
    """The entries of whole lines, one by one."""
    found = _ENTRY.findall(block)
    if len(found) != block.count(b"\n"):
        yield from _entries_by_line(block)
        return
    for text, stream, time in found:
        yield Entry(stream.decode(), unescape(text), stamp(time))


def _entries_by_line(block: bytes) -> Iterator[Entry]:
    for line in block.split(b"\n"):
        entry = parse_entry(line)
        if entry is not None:
            yield entry


def parse_entry(line: bytes) -> Entry | None:
    """One line of the file by the JSON parser; None when it holds no entry."""
    entry = _parse(line)
    if entry is None:
        start = line.rfind(_OPEN)
        if start > 0:
            entry = _parse(line[start:])
    return entry


def _parse(line: bytes) -> Entry | None:
    if not line.startswith(b"{") or b"\0" in line:
        return None
    try:
        document = json.loads(line.decode("utf-8", "surrogateescape"), strict=False)
        stream, time = document["stream"], document["time"]
        attributes = document.get("attrs") or {}
        if stream not in ("stdout", "stderr") or not isinstance(time, str):
            return None
        return Entry(
            stream,
            _encoded(document["log"]),
            stamp(time.encode("ascii")),
            {str(key): str(value) for key, value in attributes.items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _encoded(text: str) -> bytes:
    """Bytes of a text; what was no UTF-8 in the file comes out as it was, what no character can be
    (half a surrogate pair) as U+FFFD, as Go has it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        known = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
        return known.encode("utf-8", "surrogateescape")


def unescape(text: bytes) -> bytes:
    """The bytes that the inside of a JSON string without a raw NUL stands for.

    Escaped backslashes go first, behind a byte that does not occur, and come back last: so each
    backslash begins an escape, and none that a step makes is taken for one by the next.
    """
    if b"\\" not in text:
        return text
    if b"\\u0000" in text:
        return b"\\".join(map(_unescape_others, text.split(b"\\\\")))
    return _unescape_others(text.replace(b"\\\\", b"\0")).replace(b"\0", b"\\")


def _unescape_others(text: bytes) -> bytes:
    for escape, raw in _SHORT_ESCAPES:
        if b"\\" not in text:
            return text
        text = text.replace(escape, raw)
    # a log has few different ones (colours, <, >, &): each at a stroke
    for _ in range(_UNICODE_STROKES):
        at = text.find(b"\\u")
        if at < 0:
            return text
        code = text[at : at + 6]
        if _NOT_ALONE.match(code):
            break
        text = text.replace(code, json.loads(b'"' + code + b'"').encode())
    return _UNICODE.sub(_unescape_unicode, text)


def _unescape_unicode(match: re.Match[bytes]) -> bytes:
    text = json.loads(b'"' + match.group() + b'"')
    return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def tail_offset(fd: int, end: int, count: int) -> tuple[int, int]:
    """Where the last `count` lines before offset `end` begin, and how many there are.

    An unfinished last line is none. Read backwards in blocks. moby pkg/tailfile.
    """
    seen = 0  # newlines; the one before the first line wanted is number count + 1
    position = end if count else 0
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        block = os.pread(fd, size, position)
        newlines = block.count(b"\n")
        if seen + newlines <= count:
            seen += newlines
            continue
        at = len(block)
        while seen <= count:
            at = block.rfind(b"\n", 0, at)
            seen += 1
        return position + at + 1, count
    return (0, seen) if count else (end, 0)
