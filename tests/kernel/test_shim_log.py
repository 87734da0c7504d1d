"""csrc/shim_log.c, shim_encode.c: Docker's formats, rotation, a buffer that drops, damage by a full disk."""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path

import pytest

from pynetns.kernel import frame

from ..conftest import shim_processes
from .shim_bench import Bench

pytestmark = pytest.mark.root


def options(driver: int = frame.LOG_JSON_FILE, name: str = "log", **rest: int) -> bytes:
    return frame.log_options(driver, name, **rest)


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def printf(data: bytes) -> str:
    return "printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'"


def test_what_json_escapes(bench):
    """As Go does it: two-letter forms for four characters only, and nothing that HTML would take."""
    bench.task(
        "a", printf(b'\t\r"\\<>&\x01\x7f\xc3\xa9\xe2\x80\xa8\xff\xed\xa0\x80 0123456789abcdef<\n')
    )
    bench.wait("a")
    line = (bench.root / "a" / "log").read_bytes()
    text = (
        b'\\u0009\\r\\"\\\\\\u003c\\u003e\\u0026\\u0001\x7f\xc3\xa9\\u2028\\ufffd\\ufffd\\ufffd\\ufffd'
        b" 0123456789abcdef\\u003c\\n"
    )
    assert line.startswith(b'{"log":"' + text + b'","stream":"stdout","time":"')


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def decode_local(data: bytes) -> list[dict[int, object]]:
    """Entries of Docker's local format: length, protobuf fields, length."""
    found, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        message, fields, i = data[at + 4 : at + 4 + size], {}, 0
        while i < size:
            tag, i = varint(message, i)
            value, i = varint(message, i)
            if tag & 7 == 2:
                fields[tag >> 3] = message[i : i + value]
                i += value
            else:
                fields[tag >> 3] = value
        assert struct.unpack_from(">I", data, at + 4 + size) == (size,)
        at += size + 8
        found.append(fields)
    return found


def test_local_keeps_every_byte(bench):
    data = bytes(range(256)) * 2
    script = f"{printf(data)}; head -c 20000 /dev/zero | tr '\\0' x; echo; echo; echo err >&2; printf end"
    bench.task("a", script, log_options=options(frame.LOG_LOCAL, "local-logs/container.log"))
    bench.wait("a")
    found = decode_local((bench.root / "a" / "local-logs" / "container.log").read_bytes())
    out = b"".join(
        bytes(entry.get(3, b"")) + (b"" if entry.get(4) else b"\n")
        for entry in found
        if entry[1] == b"stdout"
    )
    assert out == data + b"x" * 20000 + b"\n\nend"
    assert [entry[3] for entry in found if entry[1] == b"stderr"] == [b"err"]
    assert all(abs(int(str(entry[2])) / 1e9 - time.time()) < 60 for entry in found)


@pytest.mark.parametrize("driver", [frame.LOG_JSON_FILE, frame.LOG_LOCAL])
def test_rotation(bench, driver):
    """No file exceeds its size, the newest lines are kept, in order, whole."""
    bench.task("a", "seq 1 5000", log_options=options(driver, max_size=20000, max_file=3))
    bench.wait("a")
    directory = bench.root / "a"
    names = sorted(name for name in os.listdir(directory) if name.startswith("log"))
    assert names == ["log", "log.1", "log.2"]
    assert all((directory / name).stat().st_size <= 20000 for name in names)
    text = b"".join((directory / name).read_bytes() for name in ("log.2", "log.1", "log"))
    if driver == frame.LOG_LOCAL:
        lines = [int(bytes(entry[3])) for entry in decode_local(text)]
    else:
        lines = [int(json.loads(line)["log"]) for line in text.splitlines()]
    assert lines == list(range(lines[0], 5001)) and len(lines) > 300


def test_one_file_is_begun_anew(bench):
    bench.task("a", "seq 1 5000", log_options=options(max_size=20000, max_file=1))
    bench.wait("a")
    found = entries(bench.root / "a" / "log")
    assert found[-1]["log"] == "5000\n" and 10 < len(found) < 300
    assert os.listdir(bench.root / "a").count("log.1") == 0


def test_what_a_large_pipe_holds_at_the_end_is_logged(bench):
    """More than one slice: the log must not take the first for the last."""
    go = bench.root / "go"
    os.mkfifo(go)
    fill = (
        "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20);"
        f" open('{go}').read(); os.write(1, b'x' * 999 + b'\\n' + b'y' * 900000)"
    )
    bench.task("a", f'exec {sys.executable} -c "{fill}"')
    shim = shim_processes(bench)[0]
    pidfd = os.pidfd_open(bench.shim.tasks()["a"])
    os.kill(shim, signal.SIGSTOP)
    go.write_text("")
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    os.kill(shim, signal.SIGCONT)
    assert bench.wait("a") == 0
    assert sum(len(entry["log"]) for entry in bench.log("a")) == 901000


def test_no_log(bench):
    bench.task("a", "seq 1 100000; exit 3", log_options=options(frame.LOG_NONE, ""))
    assert bench.wait("a") == 3
    assert sorted(os.listdir(bench.root / "a")) == ["exit"]


def test_a_buffer_that_drops_holds_nobody_up(bench):
    """Nobody takes the log (a pipe in the file's place): the program comes to its end all the same."""
    (bench.root / "logs").mkdir()
    fifo = bench.root / "logs" / "log"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    bench.task(
        "a",
        "seq 1 400000; exit 5",
        logs=bench.root / "logs",
        log_options=options(mode=frame.LOG_NON_BLOCKING, max_buffer=100000),
    )
    assert bench.wait("a") == 5
    received = b""
    while select.select([keep], [], [], 1)[0]:
        received += os.read(keep, 1 << 20)
    os.close(keep)
    lines = [int(json.loads(line)["log"]) for line in received.splitlines()]
    assert lines[-1] == 400000 and lines == sorted(set(lines))
    assert len(lines) < 399000


def test_lines_of_both_streams_stand_in_the_order_in_which_they_came(bench):
    go = bench.root / "go"
    os.mkfifo(go)
    turn = "read x <&3"
    bench.task(
        "a", f"exec 3<{go}; for i in 1 2 3 4 5; do echo $i; {turn}; echo $i >&2; {turn}; done"
    )
    log = bench.root / "a" / "log"
    with open(go, "wb", buffering=0) as turns:
        for count in range(1, 11):
            while not log.exists() or log.read_bytes().count(b"\n") < count:
                os.sched_yield()
            turns.write(b"\n")
    assert bench.wait("a") == 0
    found = entries(log)
    assert [(e["log"].strip(), e["stream"]) for e in found] == [
        (str(i), stream) for i in range(1, 6) for stream in ("stdout", "stderr")
    ]
    assert [e["time"] for e in found] == sorted(e["time"] for e in found)


def test_the_next_run_of_a_key_writes_after_the_last(bench: Bench):
    for run in range(3):
        bench.task("a", f"seq {run}000 {run}999", logs=bench.root)
        bench.wait("a")
        for path in (bench.root / "a").iterdir():
            path.unlink()
        (bench.root / "a").rmdir()
    numbers = [int(entry["log"]) for entry in entries(bench.root / "log")]
    assert numbers == [n for run in range(3) for n in range(run * 1000, run * 1000 + 1000)]
