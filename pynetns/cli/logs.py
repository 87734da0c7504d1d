"""`logs`: a container's output so far, and as it comes.

Owns: how a moment is written (`--since 10m`). Reading the log is streams/logs's.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InvalidParameter
from .options import Command, Option

if TYPE_CHECKING:
    from .main import Context
    from .options import Values

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 60 * _UNITS["m"]


def logs(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns logs`: each stream to ours of the same name."""
    from ..engine.verbs.logs import copy_logs
    from ..model.state import rfc3339
    from ..streams.logs import parse_tail

    now = time.time_ns()
    moments = {
        name: rfc3339(max(0, parse_moment(values[name], f"--{name}", now)))
        for name in ("since", "until")
        if name in values
    }
    tail = parse_tail(values.get("tail", "all"))
    container = context.engine.containers.get(names[0])
    chunks = copy_logs(
        context.engine,
        container.id,
        timestamps=values.get("timestamps", False),
        details=values.get("details", False),
        tail=tail,
        since=moments.get("since"),
        until=moments.get("until"),
        follow=values.get("follow", False),
        apart=False,
        reader_fd=1,
    )
    write_chunks(chunks)
    return 0


def write_chunks(chunks: Iterable[tuple[str, bytes]]) -> None:
    """Write every chunk to the stream it is of, past Python's buffers: what comes is seen at once,
    and nothing is left to fail again at exit. BrokenPipeError when nobody reads it."""
    sys.stdout.flush()
    files = {"stdout": sys.stdout.fileno(), "stderr": sys.stderr.fileno()}
    for stream, data in chunks:
        write_all(files[stream], data)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however often that takes; `fd` may be non-blocking."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def parse_moment(text: str, option: str, now: int) -> int:
    """Nanoseconds since the epoch of "10m" (before `now`), an RFC 3339 time (without zone it is
    local, as in Docker; the seconds may be left out, or the time), or seconds since the epoch."""
    whole, _, digits = text.partition(".")
    if text.isascii() and (whole + digits).isdecimal() and 0 < len(whole) < 12:
        return int(whole) * 10**9 + int(digits[:9].ljust(9, "0"))
    before = parse_duration(text)
    if before is not None:
        return now - before
    moment = parse_timestamp(text)
    if moment is None:
        raise InvalidParameter(
            f"{option} {text!r} : must be a time such as 2024-05-01T12:00:00Z, "
            "seconds since the epoch, or a duration such as 10m"
        )
    return moment


def parse_timestamp(text: str) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time; None when it is none."""
    from datetime import datetime

    # 3.10 knows neither "Z" nor more than six digits of a second
    whole, point, rest = text.replace("Z", "+00:00").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if (point and not digits) or not text.isascii():
        return None
    try:
        seconds = datetime.fromisoformat(whole + rest[len(digits) :]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return int(seconds) * 10**9 + int(digits[:9].ljust(9, "0"))


def parse_duration(text: str) -> int | None:
    """Nanoseconds of "1h30m", "10s", "1.5h"; None when it is no duration. Go time.ParseDuration."""
    if not text or len(text) > 60:
        return None
    total = 0
    while text:
        number = text[: len(text) - len(text.lstrip("0123456789."))]
        text = text[len(number) :]
        unit = next((unit for unit in _UNIT_NAMES if text.startswith(unit)), None)
        whole, _, fraction = number.partition(".")
        if unit is None or not (whole + fraction).isdecimal():
            return None
        total += int(whole + fraction) * _UNITS[unit] // 10 ** len(fraction)
        text = text[len(unit) :]
    return total


_UNIT_NAMES = sorted(_UNITS, key=len, reverse=True)  # "ms" before "m"


COMMANDS = {
    "logs": Command(
        logs,
        "[OPTIONS] CONTAINER",
        "Show a container's output",
        (
            Option("-f --follow", "follow", "", "Go on until it ends"),
            Option("-n --tail", "tail", "LINES", "Only the last lines (default all)"),
            Option("-t --timestamps", "timestamps", "", "Show when each line was written"),
            Option("--details", "details", "", "Show extra attributes of each line"),
            Option("--since", "since", "TIME", "From a time on, or a duration ago"),
            Option("--until", "until", "TIME", "Up to a time, or a duration ago"),
        ),
        arguments=(1, 1),
    ),
}
