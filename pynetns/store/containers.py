"""Store methods for containers and events."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import Conflict, NotFound, StateDamaged
from ..model.network import NetworkSettings
from ..model.state import State
from ..model.summary import Summary
from .database import Database
from .rows import ContainerRow, EventRow, RunningRow

MAX_EVENTS = 10_000
_TRIM_EVERY = 64
_COLUMNS = (
    "SELECT id, name, created, network, summary, status, pid, start_ticks, boot_id, state "
    "FROM containers "
)
# Each of these conditions has an index of its own, which SQLite finds by the very same words.
_ALIVE = "WHERE pid > 0"
_UNSETTLED = "WHERE status = 'removing' OR summary IS NULL"
_SET_STATE = "status = ?, pid = ?, start_ticks = ?, boot_id = ?, state = ?"
_NO_NETWORK = NetworkSettings().to_json()


# Frozen values: the same text is the same value, and most containers have the same few.
_state = lru_cache(maxsize=4096)(State.from_columns)
_network = lru_cache(maxsize=4096)(NetworkSettings.from_json)
_summary = lru_cache(maxsize=4096)(Summary.from_json)


class ContainerTable(Database):
    """Who exists, under which name, in which state."""

    # ---- made and removed ----

    def add_container(
        self, id: str, name: str, created: str, state: State, image_id: str = ""
    ) -> None:
        """Take id and name; `image_id` is an image on record that is to stay ("": of none). Durable
        on return.

        Conflict names the container that has the name, NotFound the image that is gone meanwhile.
        """
        row = (id, name, created, image_id or None, *state.to_columns(), _NO_NETWORK)

        def add() -> None:
            self._check_image(image_id)
            sql = "INSERT INTO containers VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)"
            try:
                self._write(sql, row)
            except sqlite3.IntegrityError as error:
                raise self._name_conflict(name, id) from error

        self.atomically(add, durable=True)

    def _check_image(self, image_id: str) -> None:
        if image_id and self._one("SELECT 1 FROM images WHERE id = ?", (image_id,)) is None:
            raise NotFound(f"No such image: {image_id}")

    def _name_conflict(self, name: str, id: str) -> Conflict:
        holder = self._one("SELECT id FROM containers WHERE name = ?", (name,))
        if holder is None:
            return Conflict(f"container id {id} is already in use")
        return Conflict(f'name "/{name}" is already in use by container {holder[0]}')

    def set_summary(self, id: str, summary: Summary) -> None:
        """Record that the container's files are there, and what lists show of them; of a container
        that is gone, nothing. Its image, if it is on record, is kept from removal from here on."""
        self._write(
            "UPDATE containers SET summary = ?, "
            "image_id = coalesce(image_id, (SELECT id FROM images WHERE id = ?)) WHERE id = ?",
            (summary.to_json(), summary.image_id, id),
        )

    def remove_container(self, id: str) -> None:
        """Give back id and name; an absent one is fine. Conflict while it has a network sandbox."""
        try:
            self._write("DELETE FROM containers WHERE id = ?", (id,))
        except sqlite3.IntegrityError as error:
            raise Conflict(f"container {id} still has a network sandbox") from error

    # ---- found ----

    def container(self, id: str) -> ContainerRow | None:
        """By exact id."""
        row = self._one(_COLUMNS + "WHERE id = ?", (id,))
        return None if row is None else self._container(row)

    def container_by_name(self, name: str) -> ContainerRow | None:
        """By exact name, without the slash."""
        row = self._one(_COLUMNS + "WHERE name = ?", (name,))
        return None if row is None else self._container(row)

    def containers(self, *, running: bool = False) -> list[ContainerRow]:
        """All, or those that run: what one look at the table costs, whatever files they have."""
        return [self._container(row) for row in self._all(_COLUMNS + (_ALIVE if running else ""))]

    def running(self) -> list[RunningRow]:
        """Those that run, as cheaply as can be: only who their processes are."""
        rows = self._all("SELECT id, pid, start_ticks, boot_id FROM containers " + _ALIVE)
        return [*map(RunningRow._make, rows)]

    def unsettled(self) -> list[ContainerRow]:
        """Those that somebody is creating or removing, or died over it; and those without a summary,
        from a version that kept none."""
        return [self._container(row) for row in self._all(_COLUMNS + _UNSETTLED)]

    def ids_by_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` ids that begin with `prefix`, in order."""
        sql = "SELECT id FROM containers WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._all(sql, (prefix, prefix + "\U0010ffff", limit))]

    def count_by_status(self) -> Counter[str]:
        """How many containers have each status."""
        return Counter(dict(self._all("SELECT status, count(*) FROM containers GROUP BY status")))

    # ---- changed ----

    def set_state(self, id: str, state: State) -> None:
        """Record a state; of a container that is gone, nothing."""
        self._write(f"UPDATE containers SET {_SET_STATE} WHERE id = ?", (*state.to_columns(), id))

    def set_run(self, id: str, state: State, network: NetworkSettings) -> None:
        """Record what a start or an end changes; of a container that is gone, nothing."""
        self._write(
            f"UPDATE containers SET {_SET_STATE}, network = ? WHERE id = ?",
            (*state.to_columns(), network.to_json(), id),
        )

    def _container(self, row: tuple[Any, ...]) -> ContainerRow:
        id, name, created, network, summary, *state = row
        try:
            return ContainerRow(
                id,
                name,
                created,
                _state(*state),
                _network(network),
                None if summary is None else _summary(summary),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateDamaged(f"{self.path}: container {id} is damaged ({error!r})") from error

    # ---- events ----

    def add_event(
        self,
        type: str,
        action: str,
        actor_id: str,
        attributes: Mapping[str, str] | None = None,
        time_ns: int | None = None,
    ) -> int:
        """Append an event, now unless `time_ns` says when; its id. The last
        10,000 are kept (and up to 63 more, as the old ones go in batches)."""
        when = time.time_ns() if time_ns is None else time_ns
        row = (when, type, action, actor_id, json.dumps(dict(attributes or {})))
        id = self._write("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?)", row).lastrowid
        assert id is not None
        if id % _TRIM_EVERY == 0:
            self._write("DELETE FROM events WHERE id <= ?", (id - MAX_EVENTS,))
        return id

    def events(self, since: int = 0, limit: int = -1) -> list[EventRow]:
        """The events with an id above `since`, oldest first; at most `limit` if not negative."""
        return self._events("WHERE id > ? ORDER BY id LIMIT ?", (since, limit))

    def events_of(self, actor_id: str, action: str) -> list[EventRow]:
        """The events of one kind that an object has had, newest first; no other is decoded."""
        return self._events(
            "WHERE actor_id = ? AND action = ? ORDER BY id DESC", (actor_id, action)
        )

    def _events(self, which: str, args: tuple[Any, ...]) -> list[EventRow]:
        rows = self._all(f"SELECT * FROM events {which}", args)
        try:
            return [EventRow(*row)._replace(attributes=self._attributes(row[5])) for row in rows]
        except (ValueError, TypeError) as error:
            raise StateDamaged(f"{self.path}: events are damaged ({error!r})") from error

    @staticmethod
    def _attributes(text: str) -> dict[str, str]:
        attributes: Any = json.loads(text)
        if not isinstance(attributes, dict):
            raise ValueError("attributes are no object")
        return attributes
