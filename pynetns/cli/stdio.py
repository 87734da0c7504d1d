"""Descriptors 0, 1 and 2 of the command line: that they are there, and that a lost byte is told.

Owns: what stands in for a descriptor that was closed, standard output as print() writes it, and
lines on standard error. Knows nothing of verbs. Source: the Go runtime opens /dev/null for a closed
descriptor, and `docker` inherits that.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from ..errors import PynetnsError

TYPE_CHECKING = False  # typing itself is not imported, see options.py
if TYPE_CHECKING:
    from typing import Any


class OutputError(PynetnsError):
    """Our output could not be written. `errno` says why; `more` what is known all the same."""

    def __init__(self, err: int, more: str = "", stream: str = "output") -> None:
        self.errno = err
        super().__init__(f"standard {stream} : {os.strerror(err)}{more and f' ({more})'}")

    @property
    def reader_gone(self) -> bool:
        """Whether it was a pipe that nobody reads any more, as in `… | head -1`."""
        return self.errno == errno.EPIPE


class _Checked(io.FileIO):
    """Standard output that says once what is wrong with it, and swallows what comes after: the
    interpreter's own flush at its end must not fail again."""

    _failed = False

    def write(self, data: Any) -> int:
        while not self._failed:
            try:
                written = super().write(data)
            except OSError as error:
                self._failed = True
                raise OutputError(error.errno or errno.EIO) from error
            if written is not None:
                return written
            _wait_writable(self.fileno())  # somebody made it non-blocking
        return len(data)


def _wait_writable(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def set_up() -> None:
    """The first thing of all: a missing descriptor becomes /dev/null, so that no database and no
    socket ever gets its number; output takes any byte and reports what was lost."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _fill()
    text = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Checked(1, "w", closefd=False)),
        encoding=text.encoding,
        errors="surrogateescape",
        line_buffering=bool(text.line_buffering),
    )


def _fill() -> None:
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", errors="backslashreplace", closefd=False)


def complain(line: str) -> None:
    """A line on standard error; where even that cannot be written the exit code has to do."""
    try:
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        return
