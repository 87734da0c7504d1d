"""Reading a container's log: Docker's json-file format, one JSON object a line.

Owns: the format, `tail` from the end, `since`/`until`, following. Knows nothing of containers: who
wants to follow brings a descriptor that becomes readable when there will be no more.
Source: moby daemon/logger/jsonfilelog; the writer is csrc/shim_log.c.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ..errors import InvalidParameter
from ..model.state import rfc3339

_BLOCK = 65536  # bytes read at once

Chunk = tuple[str, bytes]  # "stdout" or "stderr", and what was written
Moment = int | float | datetime


class Entry(NamedTuple):
    """One line of the file. `time`: RFC 3339 with nanoseconds, UTC, ordered as text is."""

    stream: str
    data: bytes
    time: str


class _Selection(NamedTuple):
    stdout: bool
    stderr: bool
    timestamps: bool
    since: str
    until: str

    def chunk(self, entry: Entry) -> Chunk | None:
        """What of an entry is wanted; None for nothing."""
        shown = self.stdout if entry.stream == "stdout" else self.stderr
        if not shown or entry.time < self.since:
            return None
        stamp = f"{entry.time} ".encode() if self.timestamps else b""
        return entry.stream, stamp + entry.data


def read_logs(
    path: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: Moment | None = None,
    until: Moment | None = None,
    timestamps: bool = False,
    tail: str | int = "all",
    follow: bool = False,
    ended_fd: int = -1,
) -> Iterator[Chunk]:
    """The log at `path` as (stream, bytes), oldest first; an absent file is empty.

    since, until: seconds since the epoch, or a datetime, both inclusive. tail: "all", or how many
    of the last entries (of both streams together, as in Docker). follow: go on until `ended_fd`
    (the caller's; -1: for ever) is readable and everything is read, or `until` is over.

    An entry is a line of the program, or a piece of a line longer than 16 KiB. A line of the file
    that is not an entry is passed over: a crash of the machine may leave one. InvalidParameter for
    a bad `tail`, `since` or `until`; OSError when the file cannot be read.
    """
    count = parse_tail(tail)
    selection = _Selection(
        stdout, stderr, timestamps, _moment(since, default=""), _moment(until, default="9")
    )
    return _read(path, selection, count, follow, ended_fd)


def parse_tail(tail: str | int) -> int:
    """How many entries; -1 for all."""
    if tail in ("all", "-1", -1):
        return -1
    if not isinstance(tail, bool) and str(tail).isascii() and str(tail).isdecimal():
        return int(tail)
    raise InvalidParameter(f"--tail {tail!r} : must be a number of lines, or all")


def parse_entry(line: bytes) -> Entry | None:
    """One line of the file; None when it is not an entry."""
    try:
        document = json.loads(line)
        data = document["log"].encode("utf-8", "surrogatepass")
        return Entry(str(document["stream"]), data, str(document["time"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def tail_offset(fd: int, count: int) -> int:
    """Where the last `count` lines of a file begin; -1 is the whole file. An unfinished last line
    is none. moby pkg/tailfile."""
    if count < 0:
        return 0
    end = position = os.fstat(fd).st_size
    wanted = count + 1  # the newline that ends the line before the first one wanted
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        block = os.pread(fd, size, position)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
            if wanted == 0:
                return position + at + 1
    return 0 if count else end


def _moment(value: Moment | None, default: str) -> str:
    if value is None:
        return default
    if isinstance(value, datetime):
        value = value.timestamp()
    try:
        seconds = int(value // 1)
        nanoseconds = seconds * 1_000_000_000 + int((value - seconds) * 1e9)
        return rfc3339(max(0, nanoseconds))
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidParameter(f"--since, --until {value!r} : no such time") from error


def _read(
    path: str, selection: _Selection, count: int, follow: bool, ended_fd: int
) -> Iterator[Chunk]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.lseek(fd, tail_offset(fd, count), os.SEEK_SET)
        lines = _Lines(fd)
        if follow:
            yield from _follow(lines, selection, ended_fd)
        else:
            yield from _chunks(lines, selection)
    finally:
        os.close(fd)


class _Lines:
    """The complete lines of a file that grows. `more` reads up to its present end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = b""

    def more(self) -> Iterator[bytes]:
        while block := os.read(self.fd, _BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from lines


def _chunks(lines: _Lines, selection: _Selection) -> Iterator[Chunk]:
    """What is wanted of the file as it is now; the first entry after `until` ends it."""
    for line in lines.more():
        entry = parse_entry(line)
        if entry is None:
            continue
        if entry.time > selection.until:
            return
        chunk = selection.chunk(entry)
        if chunk is not None:
            yield chunk


def _follow(lines: _Lines, selection: _Selection, ended_fd: int) -> Iterator[Chunk]:
    from .inotify import ModifyWatch

    with ModifyWatch(lines.fd) as watch:  # before the first read: nothing is missed in between
        ended = False
        while True:
            yield from _chunks(lines, selection)
            now = rfc3339(time.time_ns())
            if ended or now > selection.until:
                return
            ended = watch.wait(ended_fd, _seconds_until(selection.until))


def _seconds_until(moment: str) -> float | None:
    """Seconds from now to an RFC 3339 time; None for the end of days."""
    if moment == "9":
        return None
    whole = datetime.fromisoformat(f"{moment[:19]}+00:00").timestamp()
    return max(0.0, whole + float(f"0.{moment[20:29]}") - time.time())
