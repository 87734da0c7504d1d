"""Output of containers in this process: pipes to collect it, and the logs.

Owns: the pipes made for an Attach and reading them to their end.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..forks import Descriptors
from ..runtime.task import Attach
from ..streams.pipes import DRAIN, unread


class Output:
    """Collected output. `attach` is what to hand over; `read_all` returns at the streams' end."""

    def __init__(self) -> None:
        self.attach = Attach()
        self._fds = Descriptors()
        self._readers: dict[int, str] = {}
        self._parts: dict[str, list[bytes]] = {"stdout": [], "stderr": [], "merged": []}

    def make_pipes(self, stdout: bool, stderr: bool, *, merge: bool) -> None:
        """Those of `collect`; each is known at once, so that `close` finds it when the next fails."""
        if stdout:
            reader, out = self._fds.pipe()
            self._readers[reader] = "stdout"
            self.attach = replace(self.attach, stdout_fd=out)
        if stderr and merge and stdout:
            self.attach = replace(self.attach, stderr_fd=self._fds.open(os.dup, out))
        elif stderr:
            reader, err = self._fds.pipe()
            self._readers[reader] = "stderr"
            self.attach = replace(self.attach, stderr_fd=err)

    def close(self) -> None:
        """Close everything that is still open."""
        self.attach = Attach()
        self._fds.close()

    def read_all(self, ended: int = -1) -> None:
        """Read until the program and everything that shares its output has closed it. `ended` is
        readable at the program's end (see Exec.ending): what others that hold the pipes write is
        waited for no longer than DRAIN then."""
        self.close_write_ends()
        with selectors.DefaultSelector() as selector:
            for fd, name in self._readers.items():
                selector.register(fd, selectors.EVENT_READ, name)
            if ended >= 0:
                selector.register(ended, selectors.EVENT_READ)
            waiting = list(self._readers)
            deadline: float | None = None
            while waiting:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return self._read_rest(waiting)
                for key, _ in selector.select(left):
                    if key.fd == ended:
                        deadline = time.monotonic() + DRAIN
                        selector.unregister(ended)
                        continue
                    if not self._read(key.fd, 65536):
                        selector.unregister(key.fd)
                        waiting.remove(key.fd)

    def _read(self, fd: int, size: int) -> int:
        data = os.read(fd, size)
        if data:
            self._parts[self._readers[fd]].append(data)
            self._parts["merged"].append(data)
        return len(data)

    def _read_rest(self, fds: Iterable[int]) -> None:
        """What is in the pipes now, and nothing that comes later."""
        for fd in fds:
            left = unread(fd)
            while left > 0 and (size := self._read(fd, left)):
                left -= size

    def close_write_ends(self) -> None:
        """Close our copies of what was handed over."""
        self.attach = Attach()
        self._fds.close_all_but(self._readers)

    @property
    def stdout(self) -> bytes:
        return b"".join(self._parts["stdout"])

    @property
    def stderr(self) -> bytes:
        return b"".join(self._parts["stderr"])

    @property
    def merged(self) -> bytes:
        """Both streams, in order of arrival."""
        return b"".join(self._parts["merged"])


@contextmanager
def collect(stdout: bool, stderr: bool, *, merge: bool = False) -> Iterator[Output]:
    """Pipes for the wanted streams; with `merge` one pipe for both, so that their order is kept."""
    output = Output()
    try:
        output.make_pipes(stdout, stderr, merge=merge)
        yield output
    finally:
        output.close()
