"""streams/logs.py and streams/inotify.py: reading and following the json-file log."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pynetns.errors import InvalidParameter
from pynetns.streams import logs


def read_logs(
    path: str, *, follow: bool = False, ended_fd: int = -1, reader_fd: int = -1, **options: Any
) -> Iterator[tuple[str, bytes]]:
    wanted = logs.choose(**options)
    return logs.read_logs(path, wanted, follow=follow, ended_fd=ended_fd, reader_fd=reader_fd)


_SECOND = 1_700_000_000  # 2023-11-14T22:13:20Z


def _line(text: str, stream: str = "stdout", second: int = 0) -> bytes:
    time = f"2023-11-14T22:13:{20 + second:02}.000000000Z"
    return json.dumps({"log": text, "stream": stream, "time": time}).encode() + b"\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Ten lines, one a second, every third on stderr."""
    path = tmp_path / "x-json.log"
    names = ["stderr" if n % 3 == 2 else "stdout" for n in range(10)]
    path.write_bytes(b"".join(_line(f"{n}\n", name, n) for n, name in enumerate(names)))
    return path


def _text(chunks: Iterator[tuple[str, bytes]]) -> str:
    return b"".join(data for _, data in chunks).decode()


def test_everything_in_order(log: Path) -> None:
    assert _text(read_logs(str(log))) == "".join(f"{n}\n" for n in range(10))
    assert [stream for stream, _ in read_logs(str(log))][:3] == ["stdout", "stdout", "stderr"]


def test_one_stream(log: Path) -> None:
    assert _text(read_logs(str(log), stdout=False)) == "2\n5\n8\n"
    assert _text(read_logs(str(log), stderr=False, tail=3)) == "7\n9\n"


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [("all", 10), (-1, 10), (0, 0), ("0", 0), (1, 1), ("3", 3), (10, 10), (11, 10)],
)
def test_tail(log: Path, tail: str | int, wanted: int) -> None:
    text = "".join(f"{n}\n" for n in range(10 - wanted, 10))
    assert _text(read_logs(str(log), tail=tail)) == text


@pytest.mark.parametrize("bad", ["many", "-2", -2, "", "1.5", True, None])
def test_bad_tail_is_refused_before_anything_is_read(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--tail"):
        read_logs("/nowhere", tail=bad)  # type: ignore[arg-type]


def test_since_and_until_are_inclusive(log: Path) -> None:
    assert _text(read_logs(str(log), since=_SECOND + 8)) == "8\n9\n"
    assert _text(read_logs(str(log), until=_SECOND + 1)) == "0\n1\n"
    assert _text(read_logs(str(log), since=_SECOND + 1.5, until=_SECOND + 2.5)) == "2\n"
    moment = datetime.fromtimestamp(_SECOND + 9, timezone.utc)
    assert _text(read_logs(str(log), since=moment)) == "9\n"
    naive = moment.replace(tzinfo=None)  # UTC, as docker-py has it
    assert _text(read_logs(str(log), since=naive)) == "9\n"
    assert _text(read_logs(str(log), since="2023-11-14T22:13:28.000000001Z")) == "9\n"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30, "10m", "2023-11-14T22:13:28Z"])
def test_a_time_that_is_none_is_refused(log: Path, bad: float | str) -> None:
    with pytest.raises(InvalidParameter, match="--since"):
        read_logs(str(log), since=bad)


def test_timestamps(log: Path) -> None:
    shown = _text(read_logs(str(log), tail=1, timestamps=True))
    assert shown == "2023-11-14T22:13:29.000000000Z 9\n"


def test_what_is_being_written_waits(log: Path) -> None:
    with log.open("ab") as file:
        file.write(_line("10\n", second=10)[:-20])
    assert _text(read_logs(str(log), tail=1)) == "9\n"


def test_damage_is_passed_over(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"\0\0\0\n{}\n[1]\nnull\n" + _line("10\n", second=10))
    assert _text(read_logs(str(log), since=_SECOND + 9)) == "9\n10\n"


def test_absent_log_is_empty(tmp_path: Path) -> None:
    assert list(read_logs(str(tmp_path / "none"))) == []
    assert list(read_logs(str(tmp_path / "none"), follow=True)) == []


def test_no_line_is_cut_between_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    texts = [chr(65 + n % 26) * (n * 997 % 16384) + "\n" for n in range(60)]
    path.write_bytes(b"".join(_line(text) for text in texts))
    assert _text(read_logs(str(path))) == "".join(texts)


def test_follow_until_the_end(log: Path) -> None:
    """Every step waits for the one before: what was written is read, then more is written."""
    ended, end = os.pipe()
    chunks = read_logs(str(log), tail=1, follow=True, ended_fd=ended)
    assert next(chunks) == ("stdout", b"9\n")
    with log.open("ab", buffering=0) as file:
        half = _line("10\n", "stderr", 10)
        writer = threading.Thread(target=lambda: (file.write(half[:30]), file.write(half[30:])))
        writer.start()
        assert next(chunks) == ("stderr", b"10\n")
        writer.join()
        file.write(_line("11\n", second=11))
        os.close(end)  # the last line and the end come together: neither is lost
        assert list(chunks) == [("stdout", b"11\n")]
    os.close(ended)


def test_follow_ends_at_until(log: Path) -> None:
    chunks = read_logs(str(log), follow=True, until=_SECOND + 1)
    assert _text(chunks) == "0\n1\n"


def test_follow_can_be_given_up(log: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    chunks = read_logs(str(log), follow=True)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
