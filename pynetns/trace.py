"""One span per step: the only timing code in the package.

`with step("create_endpoint"):` feeds, from one measurement, the debug log, the engine's metrics,
the Chrome trace and the benchmarks. Times are CLOCK_MONOTONIC nanoseconds, the clock the C side
reports too, so that Python and C steps lie on one axis.

Owns: spans, recorders, metrics, the Chrome JSON. Knows nothing of what the steps do.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple

from .locks import ThreadLock

log = logging.getLogger("pynetns")
_SUM_UP_AFTER = 1000
_recorder: ContextVar[Recorder | None] = ContextVar("pynetns_recorder", default=None)


class Span(NamedTuple):
    """One finished step. `start` and `end` in CLOCK_MONOTONIC ns; `track` is "python", "thread" (a
    C thread of this process), "shim" or "child"."""

    name: str
    start: int
    end: int
    track: str = "python"


class Recorder:
    """Collects the spans of the calling thread, or asyncio task and what it awaits, while it is open
    (a context manager)."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._outer: Recorder | None = None

    def __enter__(self) -> Recorder:
        self._outer = _recorder.get()
        _recorder.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _recorder.set(self._outer)

    def chrome_json(self) -> str:
        """The spans as Chrome/Perfetto trace JSON (times in microseconds, one row per track)."""
        pid = os.getpid()
        tracks = {"python": 1, "thread": 2, "shim": 3, "child": 4}
        events: list[dict[str, object]] = [
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
            for name, tid in tracks.items()
        ]
        for span in sorted(self.spans, key=lambda s: (s.start, -s.end)):
            events.append(
                {
                    "ph": "X",
                    "name": span.name,
                    "pid": pid,
                    "tid": tracks[span.track],
                    "ts": span.start / 1000,
                    "dur": (span.end - span.start) / 1000,
                }
            )
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})


class Metrics:
    """Count and summed seconds per action, as Docker's containerActions and networkActions.

    Adding takes no lock, which a fork or a signal handler could leave held: what is added is summed
    up later.
    """

    def __init__(self) -> None:
        self._lock = ThreadLock()
        self._new: deque[tuple[str, int]] = deque()
        self._data: dict[str, tuple[int, int]] = {}

    def add(self, name: str, ns: int) -> None:
        self._new.append((name, ns))
        if len(self._new) > _SUM_UP_AFTER:
            self._lock.alone(self._sum_up)

    def _sum_up(self) -> None:
        for _ in range(len(self._new)):
            name, ns = self._new.popleft()
            count, total = self._data.get(name, (0, 0))
            self._data[name] = (count + 1, total + ns)

    def snapshot(self) -> dict[str, dict[str, float]]:
        """`{action: {"count": n, "seconds": sum}}` of this process."""

        def sums() -> dict[str, dict[str, float]]:
            self._sum_up()
            return {k: {"count": n, "seconds": ns / 1e9} for k, (n, ns) in self._data.items()}

        return self._lock.alone(sums)


metrics = Metrics()


class step:  # noqa: N801 - reads as a statement: `with step("join"):`
    """Context manager around one step of the flow. Cheap: two clock reads when nobody records."""

    __slots__ = ("name", "start")

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> step:
        self.start = time.monotonic_ns()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        end = time.monotonic_ns()
        metrics.add(self.name, end - self.start)
        recorder = _recorder.get()
        if recorder is not None:
            recorder.spans.append(Span(self.name, self.start, end))
        if log.isEnabledFor(logging.DEBUG):
            outcome = "" if error is None else f" failed: {error}"
            log.debug("%s %.0f us%s", self.name, (end - self.start) / 1000, outcome)


def recording() -> bool:
    """Whether the caller records spans (the C side is asked for its own only then)."""
    return _recorder.get() is not None


def add_spans(spans: Iterable[Span]) -> None:
    """Add spans measured elsewhere (the shim, the child) to the caller's recorder, if any."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.spans.extend(spans)
