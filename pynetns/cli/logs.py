"""`logs`: a container's output so far, and as it comes.

Owns: how a moment is written (`--since 10m`). Reading the log is streams/logs.py's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InvalidParameter
from .options import Command, Option

if TYPE_CHECKING:
    from .main import Context
    from .options import Values

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def logs(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns logs`: each stream to ours of the same name."""
    from ..engine.output import copy_logs
    from ..streams.logs import parse_tail

    now = time.time()
    since = parse_moment(values["since"], "--since", now) if "since" in values else None
    until = parse_moment(values["until"], "--until", now) if "until" in values else None
    tail = parse_tail(values.get("tail", "all"))
    container = context.engine.containers.get(names[0])
    chunks = copy_logs(
        context.engine,
        container.id,
        timestamps=values.get("timestamps", False),
        tail=tail,
        since=since,
        until=until,
        follow=values.get("follow", False),
    )
    write_chunks(chunks, at_once=values.get("follow", False))
    return 0


def write_chunks(chunks: Iterable[tuple[str, bytes]], *, at_once: bool) -> None:
    """Write every chunk to the stream it is of; `at_once` without waiting for more."""
    last = "stdout"
    files = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    for stream, data in chunks:
        if at_once:
            write_all(files[stream].fileno(), data)
            continue
        if stream != last:  # keep the order where both are the same terminal or file
            files[last].flush()
            last = stream
        files[stream].write(data)
    files[last].flush()


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however often that takes."""
    while data:
        data = data[os.write(fd, data) :]


def parse_moment(text: str, option: str, now: float) -> float:
    """Seconds since the epoch of "10m" (before `now`), an RFC 3339 time, or such a number."""
    try:
        return float(text.replace("_", "x"))
    except ValueError:
        pass
    before = parse_duration(text)
    if before is not None:
        return now - before
    from datetime import datetime

    try:
        # 3.10 knows neither "Z" nor more than six digits of a second
        whole, point, rest = text.replace("Z", "+00:00").partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        zone = rest[len(digits) :]
        moment = datetime.fromisoformat(whole + zone).timestamp()
        return moment + (float(f"0.{digits}") if point else 0.0)
    except ValueError:
        raise InvalidParameter(
            f"{option} {text!r} : must be a time such as 2024-05-01T12:00:00Z, "
            "seconds since the epoch, or a duration such as 10m"
        ) from None


def parse_duration(text: str) -> float | None:
    """Seconds of "1h30m", "10s", "1.5h"; None when it is no duration."""
    if not text:
        return None
    total = 0.0
    while text:
        number = text[: len(text) - len(text.lstrip("0123456789."))]
        text = text[len(number) :]
        unit = next((unit for unit in _SECONDS if text.startswith(unit)), None)
        if unit is None or not number.replace(".", "", 1).isdecimal():
            return None
        total += float(number) * _SECONDS[unit]
        text = text[len(unit) :]
    return total


COMMANDS = {
    "logs": Command(
        logs,
        "[OPTIONS] CONTAINER",
        "Show a container's output",
        (
            Option("-f --follow", "follow", "", "Go on until it ends"),
            Option("-n --tail", "tail", "LINES", "Only the last lines (default all)"),
            Option("-t --timestamps", "timestamps", "", "Show when each line was written"),
            Option("--since", "since", "TIME", "From a time on, or a duration ago"),
            Option("--until", "until", "TIME", "Up to a time, or a duration ago"),
        ),
        arguments=(1, 1),
    ),
}
