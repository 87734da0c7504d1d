"""Store methods for containers and events."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import Conflict, NotFound, StateDamaged
from ..model.network import NetworkSettings
from ..model.state import State
from .database import Database
from .rows import ContainerRow, EventRow, RunningRow

MAX_EVENTS = 10_000
_TRIM_EVERY = 64
_COLUMNS = "SELECT id, name, created, state, network FROM containers "


# Frozen values: the same text is the same value, and most containers have the same few.
_state = lru_cache(maxsize=4096)(State.from_json)
_network = lru_cache(maxsize=4096)(NetworkSettings.from_json)


class ContainerTable(Database):
    """Who exists, under which name, in which state."""

    def add_container(
        self,
        id: str,
        name: str,
        created: str,
        state: State,
        network: NetworkSettings | None = None,
    ) -> None:
        """Take id and name. Conflict names the container that has the name; durable on return."""
        network = network if network is not None else NetworkSettings()
        row = (id, name, created, state.to_json(), network.to_json())

        def add() -> None:
            try:
                self._write("INSERT INTO containers VALUES (?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise self._name_conflict(name, id) from error

        self.atomically(add, durable=True)

    def _name_conflict(self, name: str, id: str) -> Conflict:
        holder = self._one("SELECT id FROM containers WHERE name = ?", (name,))
        if holder is None:
            return Conflict(f"container id {id} is already in use")
        return Conflict(f'name "/{name}" is already in use by container {holder[0]}')

    def container(self, id: str) -> ContainerRow | None:
        """By exact id."""
        row = self._one(_COLUMNS + "WHERE id = ?", (id,))
        return None if row is None else self._container(row)

    def container_by_name(self, name: str) -> ContainerRow | None:
        """By exact name, without the slash."""
        row = self._one(_COLUMNS + "WHERE name = ?", (name,))
        return None if row is None else self._container(row)

    def containers(self) -> list[ContainerRow]:
        """All, ordered by id."""
        return [self._container(row) for row in self._all(_COLUMNS + "ORDER BY id")]

    def running(self) -> list[RunningRow]:
        """Those that run: only who their processes are."""
        states = [(row.id, row.state) for row in self.containers() if row.state.running]
        return [RunningRow(id, s.pid, s.start_ticks, s.boot_id) for id, s in states]

    def unsettled(self) -> list[ContainerRow]:
        """Those that somebody may be creating or removing, or died over it."""
        rows = self.containers()
        return [r for r in rows if r.state.status == "removing" or not r.state.started_before]

    def ids_by_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` ids that begin with `prefix`, in order."""
        sql = "SELECT id FROM containers WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._all(sql, (prefix, prefix + "\U0010ffff", limit))]

    def set_state(self, id: str, state: State) -> None:
        """Record a state; of a container that is gone, nothing."""
        self._write("UPDATE containers SET state = ? WHERE id = ?", (state.to_json(), id))

    def set_network(self, id: str, network: NetworkSettings) -> None:
        """Record network settings; of a container that is gone, nothing."""
        self._write("UPDATE containers SET network = ? WHERE id = ?", (network.to_json(), id))

    def rename_container(self, id: str, name: str) -> None:
        """Change the name. Conflict names the container that has it, NotFound without the id."""

        def rename() -> None:
            try:
                done = self._write("UPDATE containers SET name = ? WHERE id = ?", (name, id))
            except sqlite3.IntegrityError as error:
                raise self._name_conflict(name, id) from error
            if done.rowcount == 0:
                raise NotFound(f"No such container: {id}")

        self.atomically(rename, durable=True)

    def remove_container(self, id: str) -> None:
        """Give back id and name; an absent one is fine."""
        self._write("DELETE FROM containers WHERE id = ?", (id,))

    def _container(self, row: tuple[str, str, str, str, str]) -> ContainerRow:
        id, name, created, state, network = row
        try:
            return ContainerRow(id, name, created, _state(state), _network(network))
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
        rows = self._all("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", (since, limit))
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
