"""A log on disk: the file being written and the rotated ones, read in order, followed.

Owns: which file comes after which, whatever is renamed meanwhile, and where reading starts and ends.
`name` is being written, `name.1` was before it, `name.2` before that. Files are told apart by inode,
held open while they are to be read; an inode that is held cannot be another file's. Knows no format.
Source: moby daemon/logger/loggerutils/logfile.go, by behaviour; the writer is csrc/.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import NamedTuple, Protocol

from ...model.state import rfc3339
from ..inotify import DirectoryWatch
from .selection import Chunk, Selection

_BLOCK = 1 << 18  # bytes read at once
_LOOKS = 50  # at a directory that is never the same twice


class Decoder(Protocol):
    """One format's reading side."""

    done: bool

    def feed(self, data: bytes) -> list[Chunk]: ...
    def finish(self) -> list[Chunk]: ...


class Format(Protocol):
    """What this file needs of a format: the modules beside it have it."""

    def Decoder(self, selection: Selection) -> Decoder: ...  # noqa: N802
    def tail_offset(self, fd: int, end: int, count: int) -> tuple[int, int]: ...


class LogFile(NamedTuple):
    """An open file and where its present end is."""

    fd: int
    inode: int
    size: int


class End(NamedTuple):
    """When following ends: `ended_fd` is readable, the other end of `reader_fd` is closed, or
    `until` is over. -1 and b"" for never."""

    ended_fd: int
    reader_fd: int
    until: bytes


class Log:
    """A log being read. A context manager that closes what it holds open.

    Every file that is still to be read stays open, so that what a rotation deletes meanwhile is
    read all the same.
    """

    def __init__(self, path: str, format: Format, selection: Selection) -> None:
        self._path, _, self._name = path.rpartition("/")
        self._format = format
        self._decoder = format.Decoder(selection)
        self._scope = ExitStack()
        self._directory = -1
        self._files: list[LogFile] = []  # still to be read, oldest first
        self._position = 0  # in the first of them

    def __enter__(self) -> Log:
        try:
            self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._scope.callback(os.close, self._directory)
        except FileNotFoundError:
            pass  # no directory, no files
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files:
            os.close(file.fd)
        self._scope.close()

    # ---- reading ----

    def read(self, count: int) -> Iterator[Chunk]:
        """The last `count` entries (-1: all), up to the end that each file has now."""
        self._open(count)
        while self._files and not self._decoder.done:
            yield from self._read_up_to(self._files[0].size)
            yield from self._finish_file()

    def follow(self, count: int, end: End) -> Iterator[Chunk]:
        """The same, then what comes, until `end`. Nothing to follow where there is no file."""
        if self._directory < 0:
            return
        # before anything is read: nothing is missed in between
        watch = self._scope.enter_context(DirectoryWatch(self._directory))
        self._open(count)
        over = not self._files
        while not over:
            before = self._position
            yield from self._read_files()
            if self._decoder.done:
                return
            over = time_is_over(end.until)
            if not over:
                ready = self._wait(watch, end, idle=self._position == before)
                if end.reader_fd in ready:
                    return
                if end.ended_fd in ready:
                    yield from self._read_files()
                    over = True
        yield from self._decoder.finish()

    def _read_files(self) -> Iterator[Chunk]:
        """Everything that there is now; the file being written is the only one left."""
        yield from self._grow()
        while not self._decoder.done and self._find_newer():
            yield from self._grow()  # what was written to it before it was renamed
            yield from self._finish_file()
            yield from self._grow()

    def _grow(self) -> Iterator[Chunk]:
        """Read the first file to its present end."""
        yield from self._read_up_to(None)
        if os.fstat(self._files[0].fd).st_size < self._position and not self._decoder.done:
            self._position = 0  # somebody has emptied it, as `truncate -s 0` does
            yield from self._decoder.finish()
            yield from self._read_up_to(None)

    def _read_up_to(self, end: int | None) -> Iterator[Chunk]:
        fd = self._files[0].fd
        while not self._decoder.done:
            size = _BLOCK if end is None else min(_BLOCK, end - self._position)
            data = os.pread(fd, size, self._position) if size > 0 else b""
            if not data:
                return
            self._position += len(data)
            yield from self._decoder.feed(data)

    def _finish_file(self) -> Iterator[Chunk]:
        """Go on to the next file."""
        if not self._decoder.done:
            yield from self._decoder.finish()
        os.close(self._files.pop(0).fd)
        self._position = 0

    def _wait(self, watch: DirectoryWatch, end: End, *, idle: bool) -> set[int]:
        return watch.wait(
            readable=[end.ended_fd] if end.ended_fd >= 0 else [],
            hung_up=[end.reader_fd] if end.reader_fd >= 0 else [],
            timeout=seconds_until(end.until),
            idle=idle,
        )

    # ---- which files ----

    def _open(self, count: int) -> None:
        """Open the files that hold the last `count` entries, and find where they begin."""
        self._files = self._series() if self._directory >= 0 else []
        if count < 0 or not self._files:
            return
        first = len(self._files)
        while first > 0 and (count > 0 or first == len(self._files)):
            first -= 1
            file = self._files[first]
            self._position, found = self._format.tail_offset(file.fd, file.size, count)
            count -= found
        for file in self._files[:first]:
            os.close(file.fd)
        del self._files[:first]

    def _find_newer(self) -> bool:
        """Whether there are files newer than the first; they are opened."""
        current = self._files[0].inode
        if len(self._files) > 1:
            return True
        if self._inode_of_name() == current:
            return False
        for file in self._series():
            if file.inode == current:
                # what came before it, and itself once more
                for known in (*self._files[1:], file):
                    os.close(known.fd)
                del self._files[1:]
            else:
                self._files.append(file)
        return len(self._files) > 1

    def _inode_of_name(self) -> int:
        try:
            return os.stat(self._name, dir_fd=self._directory, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return -1  # being rotated

    def _series(self) -> list[LogFile]:
        """All files, oldest first, opened at a moment when nothing was renamed."""
        for looks_left in reversed(range(_LOOKS)):
            names = self._names()
            files = self._open_all(names)
            same = [file.inode for file in files] == list(names.values())
            if not looks_left or (same and self._names() == names):
                break
            for file in files:
                os.close(file.fd)
        return files

    def _names(self) -> dict[str, int]:
        """Name and inode of each file, oldest first."""
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                rest = entry.name.removeprefix(self._name)
                if entry.name == self._name:
                    found.append((0, entry.name, entry.inode()))
                elif rest != entry.name and rest[0] == "." and rest[1:].isdecimal():
                    found.append((int(rest[1:]), entry.name, entry.inode()))
        return {name: inode for _, name, inode in sorted(found, reverse=True)}

    def _open_all(self, names: Iterable[str]) -> list[LogFile]:
        """The files of these names, in their order. They are opened from the newest on: a rotation
        moves each file to where it is still looked for, so that it may be met twice, but not be
        missed. Hence also the names that the oldest may have got meanwhile."""
        files: list[LogFile] = []
        for name in self._all_names(max(map(self._number, names), default=0)):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            except FileNotFoundError:
                continue
            except OSError:
                for file in files:
                    os.close(file.fd)
                raise
            status = os.fstat(fd)
            if any(file.inode == status.st_ino for file in files):
                os.close(fd)
            else:
                files.append(LogFile(fd, status.st_ino, status.st_size))
        return files[::-1]

    def _number(self, name: str) -> int:
        return int(name.removeprefix(self._name)[1:] or 0)

    def _all_names(self, last: int) -> Iterator[str]:
        """Newest first, up to number `last` without a gap (a listing may lack what was renamed while
        it was made), then on as far as there are any."""
        yield self._name
        for number in range(1, last + 1):
            yield f"{self._name}.{number}"
        while True:
            last += 1
            name = f"{self._name}.{last}"
            try:
                os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return
            yield name


def time_is_over(until: bytes) -> bool:
    """Whether a time in `stamp`'s form has passed; b"" never does."""
    return bool(until) and rfc3339(time.time_ns()).encode() > until


def seconds_until(until: bytes) -> float | None:
    """Seconds from now to a time in `stamp`'s form; None for b""."""
    if not until:
        return None
    whole = datetime.fromisoformat(f"{until[:19].decode()}+00:00").timestamp()
    return max(0.0, whole + float(b"0." + until[20:29]) - time.time())
