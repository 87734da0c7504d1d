"""Docker's local format: binary records, which keep every byte as it was written.

Owns: the format. A record is its payload's length (big-endian, 32 bits), the payload, the length
again. The payload is a protobuf message `LogEntry`: source = 1, time_nano = 2, line = 3, partial = 4,
partial_log_metadata = 5 (last = 1). A line stands without its newline;
it had one unless the entry is partial and not the last part.

A length that is wrong is damage (half a record that a crash of the machine left): reading goes on at
the next bytes that are a record by every sign. No length makes more be kept than RECORD_MAX.
Source: moby daemon/logger/local, api/types/plugins/logdriver/entry.proto; the writer is csrc/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct

from ...model.state import rfc3339
from .selection import Chunk, Entry, Selection, joined

BLOCK = 1 << 16  # bytes read at once, backwards
RECORD_MAX = 1_000_000  # bytes of a payload, moby's maxMsgLen
_AROUND = 8  # bytes of a record around its payload

_LENGTH = Struct(">I")
_SOURCE, _TIME_NANO, _LINE, _PARTIAL, _METADATA = 1, 2, 3, 4, 5
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_SOURCE_MARK = b"\n\x06std"  # how every payload begins: field 1, six bytes


class Decoder:
    """Blocks of a file in, chunks out. `done`: an entry after `until` was met."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.done = False
        self._rest = b""

    def feed(self, data: bytes) -> list[Chunk]:
        """What the next bytes of the file complete."""
        return self._decode(self._rest + data, ended=False)

    def finish(self) -> list[Chunk]:
        """The file has ended: whole records behind a torn one still count."""
        return self._decode(self._rest, ended=True)

    def _decode(self, block: bytes, ended: bool) -> list[Chunk]:
        records = Records(block, ended)
        if self.selection.plain:
            shows = {stream: self.selection.shows(stream) for stream in _STREAMS.values()}
            lines = map(_line, records)
            chunks = joined(line for line in lines if line is not None and shows[line[0]])
        else:
            entries = map(parse_entry, records)
            chunks, self.done = self.selection.chunks(e for e in entries if e is not None)
        self._rest = b"" if ended else block[records.position :]
        return chunks


class Records:
    """The payloads of a block that starts at a record. `position`: where the first unread byte is,
    once iterated. `ended`: nothing will follow the block."""

    def __init__(self, block: bytes, ended: bool) -> None:
        self.block, self.ended = block, ended
        self.position = 0

    def __iter__(self) -> Iterator[bytes]:
        block, size, unpack = self.block, len(self.block), _LENGTH.unpack_from
        while self.position + _AROUND <= size:
            start = self.position + 4
            (length,) = unpack(block, self.position)
            end = start + length
            if 0 < length <= RECORD_MAX:
                if end + 4 <= size and block[end : end + 4] == block[start - 4 : start]:
                    self.position = end + 4
                    yield block[start:end]
                    continue
                if end + 4 > size and not self.ended:
                    return
            if not self._resynchronise():
                return

    def _resynchronise(self) -> bool:
        """Move on to the next bytes that may be a record; False when the block has none."""
        at = self.block.find(_SOURCE_MARK, self.position + 5)
        while at >= 0:
            (length,) = _LENGTH.unpack_from(self.block, at - 4)
            if 16 < length <= RECORD_MAX and self.block[at + 2 : at + 8] in _STREAMS:
                self.position = at - 4
                return True
            at = self.block.find(_SOURCE_MARK, at + 1)
        # a mark may begin in the last bytes
        self.position = max(self.position, len(self.block) - 16)
        return False


def _line(payload: bytes) -> Chunk | None:
    """Stream and bytes of an entry, None when it is none."""
    usual = _usual(payload)
    if usual is not None:
        return usual
    entry = _parse_fields(payload)
    return None if entry is None else (entry.stream, entry.data)


def parse_entry(payload: bytes) -> Entry | None:
    """The entry of a payload; None when it is no LogEntry."""
    usual = _usual(payload)
    if usual is not None:
        return Entry(*usual, _stamp(_nine_byte_number(payload, 9)))
    return _parse_fields(payload)


def _usual(payload: bytes) -> Chunk | None:
    """Stream and bytes of a payload of the usual layout, without parsing it; None for another."""
    stream = _STREAMS.get(payload[2:8])
    if stream is None or len(payload) < 20 or payload[:2] != b"\n\x06":
        return None
    # a time between 1972 and 2262 has nine bytes, only the last below 0x80
    nine = payload[17] < 0x80 <= min(payload[9:17])
    if payload[8] != 0x10 or payload[18] != 0x1A or not nine:
        return None
    size = payload[19]
    at = 20
    if size >= 0x80:
        size, at = _varint(payload, 19)
    end = at + size
    if end == len(payload):
        return stream, payload[at:] + b"\n"
    if payload[end:] == b" \x01":
        return stream, payload[at:end]
    return None


def _parse_fields(payload: bytes) -> Entry | None:
    source, time, line, partial, last = b"", 0, b"", 0, 0
    try:
        for field, value in _fields(payload):
            if field == _SOURCE:
                source = _bytes(value)
            elif field == _TIME_NANO:
                time = _number(value)
            elif field == _LINE:
                line = _bytes(value)
            elif field == _PARTIAL:
                partial = _number(value)
            elif field == _METADATA:
                last = _number(dict(_fields(_bytes(value))).get(1, 0))
        when = _stamp(time)
    except (ValueError, OverflowError, OSError):
        return None
    stream = _STREAMS.get(source)
    if stream is None:
        return None
    return Entry(stream, line if partial and not last else line + b"\n", when)


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return rfc3339(seconds * 1_000_000_000)[:20]


def _stamp(time_ns: int) -> bytes:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}{nanoseconds:09}Z".encode()


def _nine_byte_number(data: bytes, at: int) -> int:
    """A varint of nine bytes: seven bits of each, the lowest first."""
    value = 0
    for byte in reversed(data[at : at + 9]):
        value = value << 7 | byte & 0x7F
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise ValueError("a number is expected")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError("bytes are expected")


def _fields(payload: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message. ValueError when it is none."""
    at = 0
    while at < len(payload):
        key, at = _varint(payload, at)
        if key & 7 == 0:
            value, at = _varint(payload, at)
            yield key >> 3, value
        elif key & 7 == 2:
            size, at = _varint(payload, at)
            if at + size > len(payload):
                raise ValueError("a field is longer than its message")
            yield key >> 3, payload[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {key & 7}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the offset behind it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def tail_offset(fd: int, end: int, count: int) -> tuple[int, int]:
    """Where the last `count` records before offset `end` begin, and how many there are.

    By the length at each record's end, backwards; a file with damage is gone through from its
    beginning instead.
    """
    window = _Backwards(fd)
    position, found = end, 0
    while found < count and position >= _AROUND:
        (length,) = _LENGTH.unpack(window.read(position - 4))
        start = position - length - _AROUND
        if (
            start < 0
            or not 0 < length <= RECORD_MAX
            or _LENGTH.unpack(window.read(start)) != (length,)
        ):
            return _tail_offset_forwards(fd, end, count)
        position, found = start, found + 1
    if found < count and position:
        return _tail_offset_forwards(fd, end, count)
    return position, found


class _Backwards:
    """Four bytes at a time of a file read backwards, in blocks."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._start, self._block = 0, b""

    def read(self, offset: int) -> bytes:
        """The four bytes at `offset`."""
        at = offset - self._start
        if at < 0 or at + 4 > len(self._block):
            self._start = max(0, offset + 4 - BLOCK)
            self._block = os.pread(self.fd, offset + 4 - self._start, self._start)
            at = offset - self._start
        return self._block[at : at + 4].ljust(4, b"\0")  # a file cut short meanwhile


def _tail_offset_forwards(fd: int, end: int, count: int) -> tuple[int, int]:
    """The same from the beginning, twice: to count, and to get to the one wanted."""
    total = sum(1 for _ in _offsets(fd, end))
    for number, offset in enumerate(_offsets(fd, end)):
        if number >= total - count:
            return offset, min(total, count)
    return end, 0


def _offsets(fd: int, end: int) -> Iterator[int]:
    """Where each record before `end` begins."""
    rest, offset, read = b"", 0, 0
    while read < end:
        data = os.pread(fd, min(BLOCK, end - read), read)
        read = read + len(data) if data else end
        records = Records(rest + data, ended=read >= end)
        for payload in records:
            yield offset + records.position - len(payload) - _AROUND
        rest = records.block[records.position :]
        offset += records.position
