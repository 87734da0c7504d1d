"""The log of a container, read and followed. moby daemon/logs.go ContainerLogs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ...streams.logs import Wanted, choose, read_logs
from ..record import ContainerRecord, log_path

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
    gone. NotSupported, before anything is read, when its log driver keeps none.
    """
    record = engine.record(container_id)
    wanted = choose(record.host_config.log_config.type, **options)
    return _copy_logs(engine, record, wanted, follow, reader_fd)


def _copy_logs(
    engine: Services, record: ContainerRecord, wanted: Wanted, follow: bool, reader_fd: int
) -> Iterator[tuple[str, bytes]]:
    waiter = engine.shim.waiter(record.id) if follow and _running(engine, record.id) else None
    with waiter or nullcontext():
        yield from read_logs(
            log_path(engine.root, record),
            wanted,
            follow=waiter is not None,
            ended_fd=-1 if waiter is None else waiter.fileno(),
            reader_fd=reader_fd,
        )


def _running(engine: Services, container_id: str) -> bool:
    row = engine.store.container(container_id)
    return row is not None and row.state.running
