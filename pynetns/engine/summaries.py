"""What lists show of a container, put on record where it is missing there although its files are.

Owns: telling the two cases in which that is so: a create that died, or lost power, between its last file
and the store; and a version that kept no summary. A container whose files are not there is not
completed: it is being created, or a ghost (ghosts.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import StateDamaged, Unavailable
from .record import read_record, summarize

if TYPE_CHECKING:
    from ..model.summary import Summary
    from .services import Services

log = logging.getLogger("pynetns")


def complete_summaries(engine: Services) -> None:
    """Complete what can be completed. The images that these containers are made of cannot be removed
    from then on. No lock is needed: a container's last file (`hostconfig.json`) is written whole."""
    found = {}
    for row in engine.store.unsettled():
        summary = None if row.summary is not None else _read(engine, row.id)
        if summary is not None:
            found[row.id] = summary
    if found:
        _record(engine, found)


def _read(engine: Services, container_id: str) -> Summary | None:
    try:
        return summarize(read_record(engine.root, container_id))
    except FileNotFoundError:
        return None
    except (StateDamaged, OSError) as error:
        log.error("container %s : %s", container_id[:12], error)
        return None


def _record(engine: Services, found: dict[str, Summary]) -> None:
    def record() -> None:
        for container_id, summary in found.items():
            engine.store.set_summary(container_id, summary)

    try:
        engine.store.atomically(record)
    except Unavailable as error:
        log.info("containers are not completely on record : %s", error)
