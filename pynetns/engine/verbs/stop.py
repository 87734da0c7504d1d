"""Ending a container on request: kill, stop; and waiting for its end.

Source: moby daemon/kill.go, daemon/stop.go; Docker Engine API ContainerKill, ContainerStop, ContainerWait.
"""

from __future__ import annotations

import logging
import signal as signals
import time
from typing import TYPE_CHECKING

from ...errors import Conflict, NotFound, StateDamaged, clear_errors
from ...model.config import Config
from ...model.parse import parse_signal
from ...trace import step
from ..ending import await_end, note, recorded_exit_code, send_signal
from ..recover import refresh, settle_now

if TYPE_CHECKING:
    from ...store import ContainerRow
    from ..services import Services

log = logging.getLogger("pynetns")

DEFAULT_STOP_TIMEOUT = 10  # seconds, as docker stop


def _row(engine: Services, container_id: str) -> ContainerRow:
    row = engine.store.container(container_id)
    if row is None:
        raise NotFound(f"No such container: {container_id}")
    return row


@clear_errors
def container_kill(engine: Services, container_id: str, signal: str | int = "SIGKILL") -> None:
    """Send a signal (name or number, default SIGKILL) to the container's first process.

    After SIGKILL its end is waited for. Raises Conflict when the container does not run.
    """
    number = parse_signal(signal)
    with step("container_kill"):
        row = refresh(engine, _row(engine, container_id))
        if not row.state.running or not send_signal(engine, row, number):
            raise Conflict(f"Cannot kill container: {row.name}: container is not running")
        note(engine, row, "kill", signal=str(number))
        if number == signals.SIGKILL:
            container_wait(engine, container_id)


@clear_errors
def container_stop(engine: Services, container_id: str, timeout: float | None = None) -> bool:
    """Ask the container to end, after `timeout` seconds make it end. False when it did not run.

    `timeout` None: the container's own stop timeout, else 10 s; negative: wait for ever.
    """
    with step("container_stop"):
        row = refresh(engine, _row(engine, container_id))
        if not row.state.running:
            return False
        config = stop_config(engine, row)
        if timeout is None:
            timeout = DEFAULT_STOP_TIMEOUT if config.stop_timeout is None else config.stop_timeout
        send_signal(engine, row, parse_signal(config.stop_signal or "SIGTERM"))
        try:
            container_wait(engine, container_id, None if timeout < 0 else timeout)
        except TimeoutError:
            send_signal(engine, row, signals.SIGKILL)
            container_wait(engine, container_id)
        note(engine, row, "stop")
        return True


def stop_config(engine: Services, row: ContainerRow) -> Config:
    """How the container wants to be stopped; Docker's defaults where its files are lost."""
    try:
        return engine.record(row.id).config
    except StateDamaged as error:
        log.warning("container %s is stopped by default : %s", row.name, error)
        return Config()


@clear_errors
def container_wait(engine: Services, container_id: str, timeout: float | None = None) -> int:
    """Wait for the container's end; its exit code. TimeoutError after `timeout` seconds.

    A container that does not run answers at once with its last exit code.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    row = _row(engine, container_id)
    while row.state.running:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended = await_end(engine, row, left)
        settled = settle_now(engine, container_id)
        if settled is None:  # auto-removed by whoever was faster
            return ended.code if ended else recorded_exit_code(engine, container_id)
        row = settled
    return row.state.exit_code
