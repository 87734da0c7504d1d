"""The log of a container, read and followed. moby daemon/logs.go ContainerLogs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ...streams.logs import Wanted, choose, read_logs
from ..record import ContainerRecord, log_path
from ..recover import read_row

if TYPE_CHECKING:
    from ..services import Services


def copy_logs(
    engine: Services,
    container_id: str,
    *,
    follow: bool = False,
    reader_fd: int = -1,
    **options: Any,
) -> Iterator[tuple[str, bytes]]:
    """(stream, bytes) of a container's log; `options` are those of streams.logs.choose.

    With `follow` until the container has ended, or whoever reads what we write to `reader_fd` has
    gone. NotFound, and NotSupported when its log driver keeps none, before anything is read.
    """
    row = read_row(engine, container_id)
    record = engine.record(container_id)
    wanted = choose(record.host_config.log_config.type, **options)
    return _copy_logs(engine, record, wanted, row.state.pid if follow else 0, reader_fd)


def _copy_logs(
    engine: Services, record: ContainerRecord, wanted: Wanted, pid: int, reader_fd: int
) -> Iterator[tuple[str, bytes]]:
    """`pid` of the run that is followed, 0 for none."""
    waiter = engine.shim.waiter(record.id, pid=pid) if pid else None
    with waiter or nullcontext():
        yield from read_logs(
            log_path(engine.root, record),
            wanted,
            follow=waiter is not None,
            ended_fd=-1 if waiter is None else waiter.fileno(),
            reader_fd=reader_fd,
        )
