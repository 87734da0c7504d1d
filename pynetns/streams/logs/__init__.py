"""Reading a container's log: so far, and as it comes.

Owns: which drivers' logs can be read, and the two steps of it: `choose`, `read_logs`. The formats are
jsonfile.py and local.py, the files files.py, what of it is wanted selection.py. Knows nothing of
containers: who wants to follow brings a descriptor that becomes readable when there will be no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import NotSupported
from . import jsonfile, local
from .files import End, Log
from .selection import Chunk, Moment, Selection, parse_moment, parse_tail

READABLE = ("json-file", "local")


class Wanted(NamedTuple):
    """What to read of a log, checked."""

    driver: str
    selection: Selection
    tail: int  # how many entries, -1 for all


def choose(
    driver: str = "json-file",
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: Moment | None = None,
    until: Moment | None = None,
    timestamps: bool = False,
    details: bool = False,
    tail: str | int = "all",
    apart: bool = True,
) -> Wanted:
    """Check what is asked for.

    since, until: both inclusive; seconds since the epoch, a datetime, or RFC 3339 text with nine
    digits and "Z". tail: "all", or how many of the last entries (of both streams together, as in
    Docker). details: the extra attributes of an entry before it. apart: each entry is a chunk, else
    neighbours may come as one, which is many times faster.

    NotSupported for a driver that keeps no log; InvalidParameter for a bad `tail`, `since` or
    `until`.
    """
    if driver not in READABLE:
        raise NotSupported("configured logging driver does not support reading")
    count = parse_tail(tail)
    begin, end = parse_moment(since, "--since"), parse_moment(until, "--until")
    return Wanted(driver, Selection(stdout, stderr, timestamps, details, begin, end, apart), count)


def read_logs(
    path: str, wanted: Wanted, *, follow: bool = False, ended_fd: int = -1, reader_fd: int = -1
) -> Iterator[Chunk]:
    """The log at `path` (and `path.1`, …, the older) as (stream, bytes), oldest first.

    An entry is a line of the program, or a piece of a line longer than 16 KiB. What is damaged is
    passed over: a crash of the machine may leave half an entry. Absent files are empty. The log ends
    where it ends now, or with `follow` when `ended_fd` is readable and everything is read, when the
    other end of `reader_fd` is closed, or when `until` is over; the descriptors are the caller's, -1
    for none. OSError when a file cannot be read.
    """
    format = local if wanted.driver == "local" else jsonfile
    with Log(path, format, wanted.selection) as log:
        if follow:
            yield from log.follow(wanted.tail, End(ended_fd, reader_fd, wanted.selection.until))
        else:
            yield from log.read(wanted.tail)


__all__ = ["Chunk", "Moment", "Wanted", "choose", "parse_tail", "read_logs"]
