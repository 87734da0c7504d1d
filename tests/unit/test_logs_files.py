"""streams/logs/files.py and streams/inotify.py: rotated files, in order and followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import NotSupported
from pynetns.streams import inotify, logs
from pynetns.streams.logs import files

from .log_files import json_line, local_record

Encode = Callable[[bytes], bytes]
ENCODERS: dict[str, Encode] = {"json-file": json_line, "local": local_record}


class Writer:
    """A log as the C core keeps it: every entry is one write, `rotate` renames from the oldest on."""

    def __init__(self, path: Path, driver: str = "json-file", max_file: int = 3) -> None:
        self.path, self.max_file = path, max_file
        self.encode = ENCODERS[driver]
        self.written: list[bytes] = []
        self.fd = -1
        self._open()

    def _open(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640)

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            line = b"%d\n" % len(self.written)
            os.write(self.fd, self.encode(line))
            self.written.append(line)

    def rotate(self) -> None:
        names = [str(self.path), *(f"{self.path}.{n}" for n in range(1, self.max_file))]
        if len(names) == 1:
            os.unlink(names[0])
        for source, target in reversed(list(pairwise(names))):
            if os.path.exists(source):
                os.rename(source, target)
        self._open()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "log")
    yield writer
    os.close(writer.fd)


def read(path: Path, driver: str = "json-file", **options: Any) -> list[bytes]:
    return [data for _, data in logs.read_logs(str(path), logs.choose(driver, **options))]


def follow(path: Path, driver: str = "json-file", ended_fd: int = -1, **options: Any) -> Any:
    wanted = logs.choose(driver, **options)
    return logs.read_logs(str(path), wanted, follow=True, ended_fd=ended_fd)


@pytest.fixture(params=["inotify", "no inotify"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without an inotify instance to be had."""
    if request.param != "inotify":
        monkeypatch.setattr(inotify, "_watch", lambda directory: -1)
    return str(request.param)


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 12), st.sampled_from([*ENCODERS]))
def test_rotated_files_are_one_log(counts: list[int], tail: int, driver: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        writer = Writer(Path(directory) / "log", driver, max_file=9)
        for number, count in enumerate(counts):
            if number:
                writer.rotate()
            writer.write(count)
        os.close(writer.fd)
        Path(directory, "log.old").write_bytes(json_line(b"not a part"))
        Path(directory, "log1").write_bytes(json_line(b"not a part"))
        assert read(writer.path, driver) == writer.written
        last = writer.written[len(writer.written) - min(tail, len(writer.written)) :]
        assert read(writer.path, driver, tail=tail) == last


def test_a_gap_between_the_numbers_hides_nothing(writer: Writer) -> None:
    writer.write()
    writer.rotate()
    os.rename(f"{writer.path}.1", f"{writer.path}.2")  # half way through the next rotation
    writer.write()
    assert read(writer.path) == [b"0\n", b"1\n"]
    os.rename(writer.path, f"{writer.path}.1")
    assert read(writer.path) == [b"0\n", b"1\n"]


def test_a_rotation_between_two_looks_at_the_directory(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every order of renaming and opening: no file is left out, none is read twice."""
    writer.write()
    writer.rotate()
    writer.write()
    original = files.Log._open_all
    rotations = iter([writer.rotate, writer.rotate])

    def open_all(self: files.Log, names: Any) -> list[files.LogFile]:
        def renamed_meanwhile() -> Iterator[str]:
            for name in names:
                yield name
                next(rotations, lambda: None)()

        return original(self, renamed_meanwhile())

    writer.max_file = 9
    monkeypatch.setattr(files.Log, "_open_all", open_all)
    assert read(writer.path) == writer.written


def test_a_directory_that_is_never_the_same_twice_is_read_all_the_same(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.max_file = 2
    writer.write()
    looks = files.Log._names

    def names(self: files.Log) -> dict[str, int]:
        writer.rotate()
        writer.write()
        return looks(self)

    monkeypatch.setattr(files.Log, "_names", names)
    before = len(os.listdir("/proc/self/fd"))
    assert read(writer.path)[-1:] == writer.written[-1:]
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_follow_it_ends_where_it_ended(writer: Writer) -> None:
    writer.write(3)
    chunks = logs.read_logs(str(writer.path), logs.choose())
    seen = [next(chunks)[1]]
    writer.write(2)
    writer.rotate()
    writer.write(2)
    seen += [data for _, data in chunks]
    assert seen == writer.written[:3]


@pytest.mark.parametrize("driver", ENCODERS)
@pytest.mark.parametrize("max_file", [1, 2, 4])
def test_following_survives_rotation(
    tmp_path: Path, watching: str, driver: str, max_file: int
) -> None:
    """Each step waits for the one before it, so that nothing is deleted before it was read."""
    writer = Writer(tmp_path / "log", driver, max_file)
    ended, end = os.pipe()
    chunks = follow(writer.path, driver, ended)
    writer.write()
    seen = [next(chunks)[1]]
    for _ in range(5):
        writer.write()
        if max_file > 1:
            writer.rotate()
            writer.write()
        else:
            seen.append(next(chunks)[1])
            writer.rotate()
            writer.write()
        while len(seen) < len(writer.written):
            seen.append(next(chunks)[1])
    writer.write(2)
    os.close(end)
    seen += [data for _, data in chunks]
    assert seen == writer.written
    os.close(ended)
    os.close(writer.fd)


@pytest.mark.parametrize("rotations", [1, 2, 3, 5])
def test_a_slow_follower_misses_only_what_is_gone(tmp_path: Path, rotations: int) -> None:
    """Several rotations between two reads: what still exists, or is held open, comes once."""
    writer = Writer(tmp_path / "log", max_file=3)
    ended, end = os.pipe()
    writer.write(2)
    chunks = follow(writer.path, ended_fd=ended)
    seen = [next(chunks)[1], next(chunks)[1]]
    writer.write()  # the rest of the file that the follower holds
    for _ in range(rotations):
        writer.rotate()
        writer.write(2)
    os.close(end)
    seen += [data for _, data in chunks]
    gone = writer.written[3 : 3 + 2 * max(0, rotations - 3)]
    assert seen == [line for line in writer.written if line not in gone]
    os.close(ended)
    os.close(writer.fd)


def test_a_writer_at_full_speed_is_followed_to_its_end(tmp_path: Path, watching: str) -> None:
    """Ordered and without doubles under any interleaving; complete, for nothing is deleted."""
    writer = Writer(tmp_path / "log", max_file=60)
    ended, end = os.pipe()

    def work() -> None:
        for _ in range(50):
            writer.write(40)
            writer.rotate()
        os.close(end)

    thread = threading.Thread(target=work)
    thread.start()
    seen = [data for _, data in follow(writer.path, ended_fd=ended)]
    thread.join()
    assert seen == writer.written
    os.close(ended)
    os.close(writer.fd)


@pytest.mark.parametrize("driver", ENCODERS)
def test_what_is_written_just_before_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """Between reading a file to its end and finding it renamed."""
    writer = Writer(tmp_path / "log", driver)
    original = files.Log._find_newer
    turns = iter(range(2))

    def find_newer(self: files.Log) -> bool:
        for _ in turns:
            writer.write()
            writer.rotate()
            writer.write()
            break
        return original(self)

    monkeypatch.setattr(files.Log, "_find_newer", find_newer)
    ended, end = os.pipe()
    writer.write()
    os.close(end)
    assert [data for _, data in follow(writer.path, driver, ended)] == writer.written
    os.close(ended)
    os.close(writer.fd)


def test_a_log_emptied_in_place_is_followed(writer: Writer, watching: str) -> None:
    ended, end = os.pipe()
    chunks = follow(writer.path, ended_fd=ended)
    writer.write(3)
    seen = [next(chunks)[1] for _ in range(3)]
    os.truncate(writer.path, 0)
    writer.write()
    os.close(end)
    assert seen + [data for _, data in chunks] == writer.written
    os.close(ended)


def test_following_ends_with_its_reader(writer: Writer, watching: str) -> None:
    """`logs -f | head -1`: head has ended, and nothing more is written that would tell us."""
    writer.write()
    reader, pipe = os.pipe()
    chunks = logs.read_logs(str(writer.path), logs.choose(), follow=True, reader_fd=pipe)
    assert next(chunks)[1] == b"0\n"
    os.close(reader)
    assert list(chunks) == []
    os.close(pipe)


def test_a_removed_container_ends_its_log(tmp_path: Path, watching: str) -> None:
    directory = tmp_path / "container"
    directory.mkdir()
    writer = Writer(directory / "log")
    ended, end = os.pipe()
    writer.write(1)
    chunks = follow(writer.path, ended_fd=ended)
    assert next(chunks)[1] == b"0\n"
    writer.write(1)
    os.unlink(writer.path)
    directory.rmdir()
    os.close(end)
    assert [data for _, data in chunks] == [b"1\n"]
    os.close(ended)
    os.close(writer.fd)


def test_neighbours_come_as_one_on_demand(writer: Writer) -> None:
    writer.write(3)
    writer.rotate()
    writer.write(2)
    assert read(writer.path, apart=False) == [b"0\n1\n2\n", b"3\n4\n"]


def test_no_descriptor_is_left(writer: Writer, watching: str) -> None:
    for _ in range(3):
        writer.write(2)
        writer.rotate()
    before = len(os.listdir("/proc/self/fd"))
    for chunks in (follow(writer.path), logs.read_logs(str(writer.path), logs.choose())):
        next(chunks)
        chunks.close()
    read(writer.path, tail=1)
    read(writer.path, until=0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_driver_none_has_nothing_to_read() -> None:
    with pytest.raises(NotSupported) as caught:
        logs.choose("none")
    assert str(caught.value) == "configured logging driver does not support reading"
    assert caught.value.status == 501


@pytest.mark.root
@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_following_where_the_kernel_has_no_inotify_left(tmp_path: Path, limit: str) -> None:
    """In a user namespace of its own, whose limit disturbs nobody else."""
    writer = Writer(tmp_path / "log")
    writer.write()
    script = (
        "import sys; from pynetns.streams import inotify, logs\n"
        "assert inotify.DirectoryWatch(__import__('os').open('.', 0)).fd == -1\n"
        "chunks = logs.read_logs(sys.argv[1], logs.choose(), follow=True, ended_fd=0)\n"
        "for _, data in chunks: print(data.decode(), end='', flush=True)\n"
    )
    shell = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    command = [
        "unshare",
        "-Ur",
        "sh",
        "-ec",
        shell,
        "sh",
        sys.executable,
        "-c",
        script,
        writer.path,
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"0\n"
    writer.write()
    assert process.stdout.readline() == b"1\n"
    writer.rotate()
    writer.write()
    assert process.stdout.readline() == b"2\n"
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait() == 0
    process.stdout.close()
    os.close(writer.fd)


def test_a_watch_gets_its_instance_as_soon_as_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    real, calls = inotify._watch, iter([-1, -1])
    monkeypatch.setattr(inotify, "_watch", lambda fd: next(calls, None) or real(fd))
    with inotify.DirectoryWatch(directory) as watch:
        assert watch.wait() == set()  # the first interval
        assert watch.fd == -1
        assert watch.wait() == set()
        assert watch.fd >= 0
        (tmp_path / "new").touch()
        assert watch.wait() == set()
    os.close(directory)
