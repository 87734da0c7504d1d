"""A program in the foreground: its output to ours, our input to it, signals and window size too.

Owns: the pipes between this process and the shim, the terminal's mode meanwhile, and one poll loop.
A slow reader holds the program back and never blocks signals. Knows nothing of what the program is:
it is given functions to forward a signal, to resize and to wait. Source: docker/cli,
hijackedIOStreamer, ForwardAllSignals and forceExitAfter3TerminationSignals, by behaviour.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..errors import InvalidParameter
from ..streams.pipes import DRAIN, unread
from ..streams.terminal import DetachFilter, parse_detach_keys, raw_mode, window_size
from .stdio import OutputError, complain

if TYPE_CHECKING:
    from ..runtime.task import Attach

FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM,
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
_FATAL = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)
_TERMINATIONS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 3  # of these end the command itself, whatever the program makes of them
_READ_SIZE = 65536
_DISCARD = -1  # the sink of what can no longer be written
_WRITE_SIZE = select.PIPE_BUF  # what a pipe that polls writable takes without blocking

Forward = Callable[[int], object]
Resize = Callable[[int, int], object]


class Copy:
    """One direction: from a descriptor to another, at most one read ahead."""

    def __init__(self, source: int, sink: int, filter: DetachFilter | None = None) -> None:
        self.source, self.sink, self.filter = source, sink, filter
        self.pending = b""
        self.ended = False  # nothing more to read
        self._left = -1  # bytes that may still be read, -1 without limit

    @property
    def done(self) -> bool:
        return self.ended and not self.pending

    def waits_for(self) -> tuple[int, int]:
        """(descriptor, poll event) without which nothing can go on."""
        return (self.sink, select.POLLOUT) if self.pending else (self.source, select.POLLIN)

    def last(self) -> None:
        """What is in the pipe now is the last that is read."""
        self._left = unread(self.source)
        self.ended = self.ended or not self._left

    def discard(self) -> None:
        """From now on read and drop, so that the program is not held back."""
        self.sink, self.pending = _DISCARD, b""

    def step(self) -> None:
        """Do what the descriptor waited for is ready for."""
        if self.pending:
            try:
                written = os.write(self.sink, self.pending[:_WRITE_SIZE])
            except BlockingIOError:
                return
            self.pending = self.pending[written:]
            return
        try:
            data = os.read(self.source, _READ_SIZE if self._left < 0 else self._left)
        except BlockingIOError:
            return
        except OSError:  # a terminal that was hung up answers EIO
            data = b""
        if self._left > 0:
            self._left -= len(data)
        self.ended = not data or not self._left
        if self.sink != _DISCARD:
            self.pending = self.filter.feed(data) if self.filter else data


class Session:
    """A context manager around the start of a program and `run`.

    `tty`: it has a terminal (one output stream); `stdin`: forward ours. `forward` sends it a
    signal, None leaves signals alone. `attach` goes into the start; then `run` returns when all
    output has arrived, `wait` when the program has ended.
    """

    def __init__(
        self,
        *,
        tty: bool,
        stdin: bool,
        forward: Forward | None = None,
        resize: Resize | None = None,
        detach_keys: str = "",
    ) -> None:
        self._tty, self._stdin = tty, stdin
        self._forward, self._resize = forward, resize
        self._keys = DetachFilter(parse_detach_keys(detach_keys) if tty and stdin else b"")
        self._scope = ExitStack()
        self._ours: dict[str, int] = {}
        self._theirs: dict[str, int] = {}
        self._signals = -1
        self._running = False
        self._terminations = 0
        self._lost: OutputError | None = None  # what became of our standard output

    # ---- set-up ----

    def __enter__(self) -> Session:
        with ExitStack() as scope:
            self._scope = scope
            if self._tty and self._stdin and not os.isatty(0):
                raise InvalidParameter("--tty : the input device is not a terminal")
            scope.callback(self._close_pipes)
            self._make_pipes()
            self._catch_signals()
            if self._tty and self._stdin:
                scope.enter_context(raw_mode(0))
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._scope.close()

    def _make_pipes(self) -> None:
        for name in ("stdout",) if self._tty else ("stdout", "stderr"):
            self._ours[name], self._theirs[name] = os.pipe2(os.O_CLOEXEC)
        if self._stdin:
            self._theirs["stdin"], self._ours["stdin"] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._ours["stdin"], False)

    def _close_pipes(self) -> None:
        for fds in (self._ours, self._theirs):
            while fds:
                os.close(fds.popitem()[1])

    def _catch_signals(self) -> None:
        """From now on a signal is a byte in a pipe, so that it is handled between two steps."""
        caught: tuple[int, ...] = FORWARDED if self._forward else _FATAL if self._tty else ()
        if self._tty:
            caught = (*caught, signal.SIGWINCH)
        self._signals, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._scope.callback(os.close, self._signals)
        self._scope.callback(os.close, writer)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._scope.callback(signal.set_wakeup_fd, before)
        for number in caught:
            old = signal.signal(number, self._noted)
            self._scope.callback(signal.signal, number, old)

    @property
    def attach(self) -> Attach:
        """What to hand over to the start."""
        from ..runtime.task import Attach

        fds = self._theirs
        size = self.window_size() if self._tty else (0, 0)
        return Attach(fds.get("stdin", -1), fds.get("stdout", -1), fds.get("stderr", -1), size)

    def window_size(self) -> tuple[int, int]:
        """(rows, columns) of our terminal, (0, 0) without."""
        return window_size(0) if self._stdin else window_size(1)

    # ---- running ----

    def run(self, ended: int = -1) -> bool:
        """Copy until the program's output has ended; True when the user detached instead.

        `ended` becomes readable at the program's end: then all that it has written is copied, and
        what its background jobs write is waited for no longer than DRAIN. -1 where the pipes end
        with it.
        Raises OutputError when the reader of our own output has gone; the program goes on.
        """
        self._running = True
        while self._theirs:
            os.close(self._theirs.popitem()[1])
        self._set_size()
        outputs = [
            Copy(self._ours[name], sink)
            for name, sink in (("stdout", 1), ("stderr", 2))
            if name in self._ours
        ]
        feed = Copy(0, self._ours["stdin"], self._keys) if self._stdin else None
        deadline: float | None = None
        while outputs:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            feed, ready = self._poll_once(outputs, feed, ended, left)
            if ended >= 0 and ended in ready:
                ended, deadline = -1, time.monotonic() + DRAIN
            if deadline is not None and time.monotonic() >= deadline:
                deadline = None
                for copy in outputs:
                    copy.last()
            outputs = [copy for copy in outputs if not copy.done]
            if self._keys.detached:
                return True
        return False

    def _poll_once(
        self, outputs: list[Copy], feed: Copy | None, ended: int, seconds: float | None
    ) -> tuple[Copy | None, dict[int, int]]:
        """Wait for whatever can go on, at most `seconds`, and do it; the feed while it lives, and
        what was ready."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if ended >= 0:
            poll.register(ended, select.POLLIN)
        waiting = dict(copy.waits_for() for copy in outputs)
        if feed is not None:
            poll.register(feed.sink, 0)  # POLLERR: nobody reads it any more
            fd, event = feed.waits_for()
            waiting[fd] = event
        for fd, event in waiting.items():
            poll.register(fd, event)
        ready = dict(poll.poll(None if seconds is None else int(seconds * 1000) + 1))
        if self._signals in ready:
            self._handle_signals()
        for copy in outputs:
            if copy.waits_for()[0] in ready:
                self._step(copy)
        return feed if feed is None else self._feed(feed, ready), ready

    def _step(self, copy: Copy) -> None:
        """A step of an output. A reader that has gone ends the copying; after any other failure
        the rest is dropped, so that the program's end and exit code are still seen."""
        try:
            copy.step()
        except OSError as error:
            lost = OutputError(error.errno or 0, stream="output" if copy.sink == 1 else "error")
            if lost.reader_gone:
                raise lost from error
            if self._lost is None:
                complain(f"pynetns: {lost}")
            self._lost = lost
            copy.discard()

    def _feed(self, feed: Copy, ready: dict[int, int]) -> Copy | None:
        gone = ready.get(feed.sink, 0) & select.POLLERR
        if not gone and feed.waits_for()[0] in ready:
            try:
                feed.step()
            except BrokenPipeError:
                gone = True
        if gone or feed.done:
            os.close(self._ours.pop("stdin"))
            return None
        return feed

    def wait(self, wait: Callable[[], int]) -> int:
        """The program's exit code by `wait`, which may block; signals go on being forwarded. Output
        that was lost makes a success 1."""
        ended, writer = os.pipe2(os.O_CLOEXEC)
        outcome: list[int | BaseException] = []

        def waiting() -> None:
            try:
                outcome.append(wait())
            except BaseException as error:
                outcome.append(error)
            finally:
                os.close(writer)

        # a daemon: an interrupted command must not stay for a program that does not end
        thread = threading.Thread(target=waiting, daemon=True)
        thread.start()
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(self._signals, select.POLLIN)
            while ended not in dict(poll.poll()):
                self._handle_signals()
        finally:
            os.close(ended)
        thread.join()
        result = outcome[0]
        if isinstance(result, BaseException):
            raise result
        return result or (1 if self._lost else 0)

    # ---- signals ----

    def _noted(self, number: int, frame: object) -> None:
        """A handler must exist for the wake-up byte to be written; the loop does the work. Only a
        start that hangs is interrupted here, by asking twice."""
        if number in _TERMINATIONS and not self._running:
            self._terminations += 1
            if self._terminations > 1:
                raise KeyboardInterrupt

    def _handle_signals(self) -> None:
        try:
            numbers = os.read(self._signals, 64)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGWINCH:
                self._set_size()
            elif self._forward is not None and number in FORWARDED:
                self._count(number)
                self._forward(number)
            elif self._tty and number in _FATAL:
                raise SystemExit(128 + number)

    def _count(self, number: int) -> None:
        """A program may ignore what is forwarded to it: whoever insists gets the prompt back."""
        if number not in _TERMINATIONS:
            return
        self._terminations += 1
        if self._terminations >= _PATIENCE:
            complain(f"pynetns: got {_PATIENCE} SIGTERM/SIGINTs, forcefully exiting")
            raise SystemExit(1)

    def _set_size(self) -> None:
        rows, columns = self.window_size() if self._tty else (0, 0)
        if rows and columns and self._resize is not None:
            self._resize(rows, columns)
