"""Store methods for networks, endpoints, sandboxes and host ports.

These rows are the record of intent: they are written before the kernel object is made and removed
after it is gone, so that whatever exists in the kernel is known here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ..errors import Conflict, NotFound, PynetnsError
from .database import Database
from .rows import EndpointRow, NetworkRow, PortRow, SandboxRow

_ENDPOINTS = (
    "SELECT id, container_id, network_id, name, address, mac, host_ifname, sandbox_id "
    "FROM endpoints "
)
_SANDBOXES = "SELECT container_id, id, key FROM sandboxes "


class NetworkGone(NotFound):
    """The network that somebody knows is not there any more: it has to be looked up again."""


class NetworkTable(Database):
    """Which network, endpoint, sandbox and port is whose."""

    # ---- networks ----

    def add_network(self, row: NetworkRow) -> None:
        """Conflict when the name or the id is taken."""
        try:
            self._write("INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"network with name {row.name} already exists") from error

    def network(self, id: str) -> NetworkRow | None:
        row = self._one("SELECT * FROM networks WHERE id = ?", (id,))
        return None if row is None else NetworkRow(*row)

    def network_by_name(self, name: str) -> NetworkRow | None:
        row = self._one("SELECT * FROM networks WHERE name = ?", (name,))
        return None if row is None else NetworkRow(*row)

    def networks(self) -> list[NetworkRow]:
        """All, ordered by name."""
        return [NetworkRow(*row) for row in self._all("SELECT * FROM networks ORDER BY name")]

    def next_address(self, network_id: str) -> tuple[int, bool]:
        """The last address handed out and whether the one after it is taken; (0, False) for a
        network that is gone."""
        row = self._one(
            "SELECT cursor, EXISTS (SELECT 1 FROM endpoints WHERE network_id = networks.id "
            "AND address = cursor + 1) FROM networks WHERE id = ?",
            (network_id,),
        )
        return (0, False) if row is None else (row[0], bool(row[1]))

    def set_cursor(self, network_id: str, cursor: int) -> None:
        self._write("UPDATE networks SET cursor = ? WHERE id = ?", (cursor, network_id))

    def retire_network(self, id: str) -> bool:
        """Before a network is taken down: whoever knows it from before gets no address of it any
        more. False, and nothing is changed, while it has an endpoint; an absent one is fine."""
        done = self._write(
            "UPDATE networks SET generation = generation + 1 WHERE id = ? "
            "AND NOT EXISTS (SELECT 1 FROM endpoints WHERE network_id = networks.id)",
            (id,),
        )
        return done.rowcount > 0 or self.network(id) is None

    def remove_network(self, id: str) -> None:
        """An absent one is fine. Conflict while it has an endpoint."""
        try:
            self._write("DELETE FROM networks WHERE id = ?", (id,))
        except sqlite3.IntegrityError as error:
            raise Conflict(f"network {id} has active endpoints") from error

    # ---- endpoints ----

    def add_endpoint(self, row: EndpointRow, generation: int = 0) -> None:
        """Record an endpoint of a network known by its id and `generation`.

        Conflict when the address is taken, or the container is on that network already. NetworkGone
        when the network has been removed or is about to be; NotFound without the sandbox.
        """
        sql = (
            "INSERT INTO endpoints SELECT ?, ?, id, ?, ?, ?, ?, ? FROM networks "
            "WHERE id = ? AND generation = ?"
        )
        args = (row.id, row.container_id, *row[3:], row.network_id, generation)
        try:
            done = self._write(sql, args).rowcount
        except sqlite3.IntegrityError as error:
            raise self._no_endpoint(row) from error
        if not done:
            raise NetworkGone(f"network {row.network_id} not found")

    def _no_endpoint(self, row: EndpointRow) -> PynetnsError:
        if self.address_taken(row.network_id, row.address):
            return Conflict("Address already in use")
        if self.sandbox_of(row.container_id) is None:
            return NotFound(f"container {row.container_id} has no network sandbox")
        return Conflict(f"endpoint with name {row.name} already exists in the network")

    def endpoints(self) -> list[EndpointRow]:
        return [EndpointRow(*row) for row in self._all(_ENDPOINTS)]

    def endpoints_of(self, container_id: str) -> list[EndpointRow]:
        """The endpoints of one container."""
        rows = self._all(_ENDPOINTS + "WHERE container_id = ?", (container_id,))
        return [EndpointRow(*row) for row in rows]

    def network_in_use(self, network_id: str) -> bool:
        """Whether the network has an endpoint."""
        sql = "SELECT 1 FROM endpoints WHERE network_id = ? LIMIT 1"
        return self._one(sql, (network_id,)) is not None

    def address_taken(self, network_id: str, address: int) -> bool:
        sql = "SELECT 1 FROM endpoints WHERE network_id = ? AND address = ?"
        return self._one(sql, (network_id, address)) is not None

    def end_of_run(self, network_id: str, address: int) -> int:
        """The first address above `address` that no endpoint holds, `address` being held.

        One walk along the index over the unbroken run of held addresses, no further.
        """
        row = self._one(
            "SELECT address + 1 FROM endpoints AS e WHERE network_id = ? AND address >= ? AND NOT "
            "EXISTS (SELECT 1 FROM endpoints WHERE network_id = e.network_id "
            "AND address = e.address + 1) ORDER BY address LIMIT 1",
            (network_id, address),
        )
        return address if row is None else int(row[0])

    def rename_host_interface(self, row: EndpointRow, host_ifname: str) -> None:
        """Record another name for the host's end, before it is made."""
        self._write(
            "UPDATE endpoints SET host_ifname = ? WHERE container_id = ? AND network_id = ?",
            (host_ifname, row.container_id, row.network_id),
        )

    # ---- sandboxes ----

    def add_sandbox(self, row: SandboxRow) -> None:
        """Conflict when the container has one, NotFound when there is no such container."""
        try:
            self._write("INSERT INTO sandboxes VALUES (?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            if self.sandbox_of(row.container_id) is None:
                raise NotFound(f"No such container: {row.container_id}") from error
            raise Conflict(f"container {row.container_id} has a network sandbox already") from error

    def sandbox_of(self, container_id: str) -> SandboxRow | None:
        row = self._one(_SANDBOXES + "WHERE container_id = ?", (container_id,))
        return None if row is None else SandboxRow(*row)

    def sandboxes(self) -> list[SandboxRow]:
        return [SandboxRow(*row) for row in self._all(_SANDBOXES + "ORDER BY container_id")]

    def sandbox_owners(self) -> set[str]:
        """The ids of the containers that have a sandbox."""
        return {row[0] for row in self._all("SELECT container_id FROM sandboxes")}

    def remove_sandbox(self, container_id: str) -> None:
        """Give back everything network of a container: the sandbox, and with it ports and endpoints
        (addresses)."""
        self._write("DELETE FROM sandboxes WHERE container_id = ?", (container_id,))

    # ---- ports ----

    def add_ports(self, rows: Iterable[PortRow]) -> None:
        """Conflict names the address and the container that holds it; NotFound without a sandbox."""
        for row in rows:
            try:
                self._write("INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                if self.sandbox_of(row.container_id) is None:
                    raise NotFound(
                        f"container {row.container_id} has no network sandbox"
                    ) from error
                holder = self.port_holder(row.proto, row.host_port, row.host_ip)
                by = f" by container {holder}" if holder else ""
                raise Conflict(
                    f"port {row.host_ip}:{row.host_port}/{row.proto} is already in use{by}"
                ) from error

    def port_holder(self, proto: str, host_port: int, host_ip: str) -> str:
        """The name (else the id) of the container that has the port on an address that covers or
        is covered by `host_ip`; "" when none has."""
        rows = self._all(
            "SELECT host_ip, container_id, name FROM ports LEFT JOIN containers "
            "ON containers.id = container_id WHERE proto = ? AND host_port = ?",
            (proto, host_port),
        )
        for held_ip, container_id, name in rows:
            if held_ip == host_ip or "0.0.0.0" in (held_ip, host_ip):
                return str(name or container_id)
        return ""

    def ports(self) -> list[PortRow]:
        return [PortRow(*row) for row in self._all("SELECT * FROM ports")]

    def ports_of(self, container_id: str) -> list[PortRow]:
        """The published ports of one container."""
        rows = self._all("SELECT * FROM ports WHERE container_id = ?", (container_id,))
        return [PortRow(*row) for row in rows]

    def highest_port(self, proto: str, first: int, last: int) -> int:
        """The highest host port recorded between first and last (inclusive); first - 1: none."""
        sql = "SELECT max(host_port) FROM ports WHERE proto = ? AND host_port BETWEEN ? AND ?"
        row = self._one(sql, (proto, first, last))
        return first - 1 if row[0] is None else int(row[0])
