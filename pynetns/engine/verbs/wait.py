"""Waiting for the end of a run, for the next one's, or for a container's removal.

Owns: which exit code a waiter is told. It means the run that it began with: whoever restarts the
container meanwhile changes nothing about how that one ended. Docker Engine API ContainerWait; moby
container/state.go State.Wait.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ...errors import InvalidParameter, NotFound, clear_errors
from ...forks import Descriptors
from ...runtime.task import read_exit, task_directory
from ...streams.inotify import CREATED, DELETED, DirectoryWatch
from ..ending import LOST, await_end, recorded_exit_code
from ..recover import read_row, settle_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...store import ContainerRow
    from ..services import Services


class Deadline:
    """A moment `timeout` seconds from now; None is never."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Seconds that are left, None without a limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


@clear_errors
def container_wait(
    engine: Services,
    container_id: str,
    timeout: float | None = None,
    condition: str = "not-running",
) -> int:
    """Wait for the container; the exit code of the run that was waited for.

    condition: "not-running" (a container that does not run answers at once, with its last exit
    code), "next-exit" (of this run, or of the next where it does not run), "removed". A removal ends
    each of them. Raises NotFound, InvalidParameter (condition), TimeoutError after `timeout` seconds.
    """
    wait = CONDITIONS.get(condition)
    if wait is None:
        known = ", ".join(CONDITIONS)
        raise InvalidParameter(
            f'condition : invalid condition: "{condition}", accepted are {known}'
        )
    row = engine.store.container(container_id)
    if row is None or not row.state.running:  # one that ran a moment ago has its code told
        row = read_row(engine, container_id)
    return wait(engine, row, Deadline(timeout))


def wait_for_run(engine: Services, row: ContainerRow, timeout: float | None = None) -> int:
    """Wait until the run that the row tells of has ended, and settle that; its exit code."""
    return _wait_for_run(engine, row, Deadline(timeout))


def _wait_for_run(engine: Services, row: ContainerRow, deadline: Deadline) -> int:
    run = row.state.run
    while row.state.running and row.state.run == run:
        ended = await_end(engine, row, deadline.left())
        left = ended or read_exit(task_directory(engine.exec_root, row.id))
        try:
            row = settle_now(engine, row.id)
        except NotFound:  # removed with its end, by us or whoever was faster
            code = ended.code if ended else recorded_exit_code(engine, row.id, run)
            return left.code if left and code == LOST else code  # unrecorded on a full disk
    if row.state.run == run:
        return row.state.exit_code
    return recorded_exit_code(engine, row.id, run)


def _wait_for_next_exit(engine: Services, row: ContainerRow, deadline: Deadline) -> int:
    if row.state.running:
        return _wait_for_run(engine, row, deadline)
    run = row.state.run + 1
    started = _follow(engine, row, deadline, lambda now: now.state.run >= run)
    if started is None:
        return row.state.exit_code
    if started.state.run == run:
        return _wait_for_run(engine, started, deadline)
    return recorded_exit_code(engine, row.id, run)


def _wait_for_removal(engine: Services, row: ContainerRow, deadline: Deadline) -> int:
    code = row.state.exit_code
    last: ContainerRow | None = row
    while last is not None:
        if last.state.running:
            code = _wait_for_run(engine, last, deadline)
        last = _follow(engine, last, deadline, lambda now: now.state.running)
    return code


def _follow(
    engine: Services,
    row: ContainerRow,
    deadline: Deadline,
    reached: Callable[[ContainerRow], bool],
) -> ContainerRow | None:
    """Wait until somebody starts (or has started) the container so that its row is `reached`; None
    when it is removed instead. A start makes its bundle, a removal removes its lock."""
    with ExitStack() as scope:
        directories = scope.enter_context(Descriptors())
        for name in ("tasks", "locks"):
            path = f"{engine.exec_root}/{name}"
            directories.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        watch = scope.enter_context(DirectoryWatch(*directories, events=CREATED | DELETED))
        while True:
            try:
                now = settle_now(engine, row.id)  # waits for a start that has begun
            except NotFound:
                return None
            if reached(now):
                return now
            left = deadline.left()
            if left == 0.0:
                raise TimeoutError
            watch.wait(timeout=left)


CONDITIONS = {
    "not-running": _wait_for_run,
    "next-exit": _wait_for_next_exit,
    "removed": _wait_for_removal,
}
