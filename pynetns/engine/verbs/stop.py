"""Ending a container on request: kill and stop.

Source: moby daemon/kill.go, daemon/stop.go; Docker Engine API ContainerKill, ContainerStop.
"""

from __future__ import annotations

import logging
import signal as signals
from typing import TYPE_CHECKING

from ...errors import Conflict, StateDamaged, clear_errors
from ...model.config import Config
from ...model.parse import parse_signal
from ...trace import step
from ..ending import note, send_signal
from ..recover import current
from .wait import wait_for_run

if TYPE_CHECKING:
    from ...store import ContainerRow
    from ..services import Services

log = logging.getLogger("pynetns")

DEFAULT_STOP_TIMEOUT = 10  # seconds, as docker stop


@clear_errors
def container_kill(engine: Services, container_id: str, signal: str | int = "SIGKILL") -> None:
    """Send a signal (name or number, default SIGKILL) to the container's first process.

    After SIGKILL its end is waited for. Raises NotFound, Conflict when the container does not run.
    """
    number = parse_signal(signal)
    with step("container_kill"):
        row = current(engine, container_id)
        if not row.state.running or not send_signal(engine, row, number):
            raise Conflict(f"Cannot kill container: {row.name}: container is not running")
        note(engine, row, "kill", signal=str(number))
        if number == signals.SIGKILL:
            wait_for_run(engine, row)


@clear_errors
def container_stop(engine: Services, container_id: str, timeout: float | None = None) -> bool:
    """Ask the container to end, after `timeout` seconds make it end. False when it did not run.

    `timeout` None: the container's own stop timeout, else 10 s; negative: wait for ever. What is
    stopped is the run that was found: one that somebody else starts meanwhile is left alone.
    """
    with step("container_stop"):
        row = current(engine, container_id)
        if not row.state.running:
            return False
        config = stop_config(engine, row)
        if timeout is None:
            timeout = DEFAULT_STOP_TIMEOUT if config.stop_timeout is None else config.stop_timeout
        send_signal(engine, row, parse_signal(config.stop_signal or "SIGTERM"))
        try:
            wait_for_run(engine, row, None if timeout < 0 else timeout)
        except TimeoutError:
            send_signal(engine, row, signals.SIGKILL)
            wait_for_run(engine, row)
        note(engine, row, "stop")
        return True


def stop_config(engine: Services, row: ContainerRow) -> Config:
    """How the container wants to be stopped; Docker's defaults where its files are lost."""
    try:
        return engine.record(row.id).config
    except StateDamaged as error:
        log.warning("container %s is stopped by default : %s", row.name, error)
        return Config()
