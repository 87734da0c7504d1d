"""What of a log is wanted, and how it is shown: streams, times, tail.

Owns: the options of a reader, parsed once, and what stands before a line (time, details). Knows
neither files nor formats. Source: moby daemon/logger.ReadConfig, api/server WriteLogStream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import quote_plus

from ...errors import InvalidParameter
from ...model.state import rfc3339

Chunk = tuple[str, bytes]  # "stdout" or "stderr", and what was written
Moment = int | float | str | datetime

NO_ATTRIBUTES: Mapping[str, str] = {}


class Entry(NamedTuple):
    """One entry of a log: a line, or a piece of a long one. `time`: `stamp`'s form."""

    stream: str
    data: bytes
    time: bytes
    attributes: Mapping[str, str] = NO_ATTRIBUTES


class Selection(NamedTuple):
    """`since`, `until`: inclusive, in `stamp`'s form, b"" for open. `apart`: every entry is a chunk
    of its own; else what follows each other on one stream may come as one."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    details: bool = False
    since: bytes = b""
    until: bytes = b""
    apart: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing but the bytes and their stream is needed, however they are cut."""
        return not (self.timestamps or self.details or self.since or self.until or self.apart)

    def shows(self, stream: str) -> bool:
        return self.stdout if stream == "stdout" else self.stderr

    def prefix(self, time: bytes, attributes: Mapping[str, str]) -> bytes:
        """What stands before an entry; the time comes before the details, as in Docker."""
        stamp = time + b" " if self.timestamps else b""
        if not self.details:
            return stamp
        pairs = (f"{quote_plus(k)}={quote_plus(v)}" for k, v in sorted(attributes.items()))
        return stamp + ",".join(pairs).encode() + b" "

    def chunks(self, entries: Iterable[Entry]) -> tuple[list[Chunk], bool]:
        """What is wanted of some entries, and whether one of them is after `until`: the first such
        ends the log, as in Docker."""
        wanted: list[Chunk] = []
        for stream, data, time, attributes in entries:
            if self.until and time > self.until:
                return wanted, True
            if self.shows(stream) and time >= self.since:
                wanted.append((stream, self.prefix(time, attributes) + data))
        return wanted if self.apart else joined(wanted), False


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The same bytes in fewer chunks: neighbours of one stream become one."""
    result: list[Chunk] = []
    parts: list[bytes] = []
    last = ""
    for stream, data in chunks:
        if stream != last and parts:
            result.append((last, b"".join(parts)))
            parts = []
        last = stream
        parts.append(data)
    if parts:
        result.append((last, b"".join(parts)))
    return result


def stamp(time: bytes) -> bytes:
    """An RFC 3339 UTC time with all nine digits of its second, as it is shown and compared.

    Go leaves trailing zeros out when it writes a log.
    """
    if len(time) == 30 or not time.endswith(b"Z"):
        return time
    whole, _, digits = time[:-1].partition(b".")
    return whole + b"." + digits[:9].ljust(9, b"0") + b"Z"


def parse_tail(tail: str | int) -> int:
    """How many entries; -1 for all."""
    if tail in ("all", "-1", -1):
        return -1
    text = str(tail)
    if not isinstance(tail, bool) and text.isascii() and text.isdecimal() and len(text) < 20:
        return int(text)
    raise InvalidParameter(f"--tail {tail!r} : must be a number of lines, or all")


def parse_moment(value: Moment | None, option: str) -> bytes:
    """A time in `stamp`'s form, b"" for None. Seconds since the epoch, a datetime (without zone it
    is UTC, as docker-py has it), or text of that form (`rfc3339`), which loses no nanosecond."""
    if value is None:
        return b""
    try:
        if isinstance(value, str):
            datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S")
            if len(value) != 30 or not (value[20:29].isdecimal() and value[29] == "Z"):
                raise ValueError
            return value.encode("ascii")
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            value = aware.timestamp()
        seconds = int(value // 1)
        nanoseconds = seconds * 1_000_000_000 + int((value - seconds) * 1e9)
        return rfc3339(max(0, nanoseconds)).encode()
    except (OverflowError, TypeError, ValueError, OSError) as error:
        raise InvalidParameter(f"{option} {value!r} : no such time") from error
