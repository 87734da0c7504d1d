"""The networks of one engine: which there are, and making each when the first container needs it.

Owns: the set, its rows in the store, and the choice of the default network's bridge and subnet. How a
network is made is its driver's (drivers/), packet rules are made of the whole set (rules.py). Looking
up a network that is known costs nothing. Any number of threads and processes may race: a file lock
makes one of them do the work, and what another process has removed meanwhile has another generation.
moby initBridgeDriver, libnetwork controller.NetworkByName.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from ..errors import Conflict, NotFound, PynetnsError
from ..kernel import Kernel
from ..model.network import DEFAULT_NETWORK
from ..store import EndpointRow, NetworkRow, Store
from ..trace import step
from .drivers.base import Driver, Network, Segment
from .drivers.bridge import BridgeDriver
from .drivers.host import HostDriver
from .drivers.null import NullDriver
from .ipam import format_address, parse_subnet
from .lost import lost_bridges, reclaim
from .mark import Mark, parse_alias
from .options import DEFAULT_MTU, BridgeOptions, cidr
from .pools import check_free, choose_pool
from .rules import Rules

log = logging.getLogger("pynetns")


class Networks:
    """The networks of one engine. `lock_path` is a file that its processes share, `bridge` the name of
    the default network's device where `options` give none. InvalidParameter for bad options."""

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        rules: Rules,
        mark: Mark,
        exec_root: str,
        bridge: str,
        options: BridgeOptions,
    ) -> None:
        options.check()
        self._store = store
        self._kernel = kernel
        self._rules = rules
        self._mark = mark
        self._lock_path = f"{exec_root}/network.lock"
        self._bridge = bridge
        self._options = options
        drivers: tuple[Driver, ...] = (BridgeDriver(kernel, mark), NullDriver(), HostDriver())
        self._drivers = {driver.name: driver for driver in drivers}
        self._thread_lock = threading.Lock()
        self._known = {name: self._without_row(name) for name in ("none", "host")}

    def _without_row(self, name: str) -> Network:
        """A network of Docker's that is no more than a name."""
        driver = self._drivers["null" if name == "none" else name]
        return driver.create(NetworkRow("", name, driver.name, "", "", "", 0, 0))

    # ---- looking ----

    def get(self, name: str) -> Network:
        """The network of that name, made if need be.

        Raises NotFound, Conflict (an option differs from the network on record, and containers use
        it), Unavailable (no nf_tables, no free pool), KernelError.
        """
        network = self._known.get(name)
        return network if network is not None else self.ensure(name, None)

    def known(self, name: str) -> Network | None:
        """The network as this process knows it; None before its first use."""
        return self._known.get(name)

    def exists(self, name: str) -> bool:
        """Whether there is such a network, or will be at its first use."""
        if name == DEFAULT_NETWORK or name in self._known:
            return True
        return self._store.network_by_name(name) is not None

    def ensure(self, name: str, seen: Network | None) -> Network:
        """Make a network and the rules exist, unless another thread did since the caller has `seen`
        it. Raises as `get`."""
        with self._thread_lock:
            return self._ensure(name, seen)

    def _ensure(self, name: str, seen: Network | None) -> Network:
        network = self._known.get(name)
        if network is None or network is seen:
            with step("setup_bridge"), locked(self._lock_path):
                self._known.pop(name, None)
                network = self._known[name] = self._set_up(name)
        return network

    def default_row(self) -> NetworkRow | None:
        """The default network on record; None before its first use."""
        return self._store.network_by_name(DEFAULT_NETWORK)

    def effective_options(self) -> BridgeOptions:
        """The default network as it is, or will be made. `bip` is None until a subnet is chosen."""
        row, given = self.default_row(), self._options
        if row is None or (
            given.differences(row, self._bridge) and not self._store.network_in_use(row.id)
        ):
            bip = given.bip or (cidr(row) if row is not None else None)
            return BridgeOptions(given.bridge or self._bridge, bip, given.mtu or DEFAULT_MTU)
        return BridgeOptions(row.bridge, cidr(row), row.mtu)

    # ---- making ----

    def _set_up(self, name: str) -> Network:
        rows = {row.name: row for row in self._store.networks()}
        row = self._default_row(rows) if name == DEFAULT_NETWORK else rows.get(name)
        if row is None:
            raise NotFound(f"network {name} not found")
        fresh = name not in rows
        rows[name] = row
        try:
            network = self._drivers[row.driver].create(row)
            self._rules.ensure(self._segments(rows.values()))
        except BaseException:
            if fresh:  # what could not be made is not remembered
                with suppress(PynetnsError):
                    self._take_down(row)
            raise
        return network

    def _segments(self, rows: Iterable[NetworkRow]) -> list[Segment]:
        found = [self._drivers[row.driver].segment(row) for row in rows]
        return [segment for segment in found if segment is not None]

    def _default_row(self, rows: dict[str, NetworkRow]) -> NetworkRow:
        """The default network's row, on record before the device exists. One that the options
        contradict is replaced, unless it is in use; then it is as it is, or somebody asked for what
        cannot be."""
        row = rows.get(DEFAULT_NETWORK)
        if row is not None:
            if not self._options.differences(row, self._bridge):
                return row
            if self._store.network_in_use(row.id):
                self._refuse_differences(row)
                return row
        new = self._new_row(row, [other for other in rows.values() if other is not row])
        if row is not None:
            if not BridgeOptions(new.bridge, cidr(new), new.mtu).differences(row, new.bridge):
                return row  # its own name is taken still
            if not self._store.retire_network(row.id):  # somebody came first
                self._refuse_differences(row)
                return row
            self._take_down(row)
            del rows[row.name]
        self._store.add_network(new)
        return new

    def _refuse_differences(self, row: NetworkRow) -> None:
        for one in self._options.differences(row, self._bridge):
            if one.given:
                raise Conflict(
                    f"{one.label} {one.wanted} : network {row.name} has {one.option} {one.actual} and "
                    f"containers use it: end or remove them first, or give {one.actual}"
                )

    def _new_row(self, old: NetworkRow | None, others: list[NetworkRow]) -> NetworkRow:
        """A row as the options say. Nothing is changed before it is known that they can be followed,
        but for what a removed root left. Without `bip` a network keeps its subnet."""
        options, taken = self._options, [row.subnet for row in others]
        known = [row.bridge for row in (*others, *([old] if old else []))]
        removed = reclaim(self._kernel, self._rules, self._mark, known, used=False)
        if removed:
            log.info("removed what a lost root left: %s", ", ".join(removed))
        if options.bip is not None:
            gateway = options.bip.partition("/")[0]
            subnet = parse_subnet(options.bip, gateway, options.label("bip"))
            if old is None or options.bip != cidr(old):
                own = self._own_bridges()
                check_free(self._kernel, options.bip, options.label("bip"), taken, own)
        elif old is not None:
            subnet = parse_subnet(old.subnet, old.gateway)
        else:
            subnet = parse_subnet(choose_pool(self._kernel, taken))
        return NetworkRow(
            secrets.token_hex(32),
            DEFAULT_NETWORK,
            BridgeDriver.name,
            f"{format_address(subnet.network)}/{subnet.prefix}",
            format_address(subnet.gateway),
            options.bridge or self._free_name(known),
            options.mtu or DEFAULT_MTU,
            subnet.first - 1,
        )

    def _free_name(self, known: list[str]) -> str:
        """The default bridge's name, or another one while containers of a lost root are on that."""
        lost = {link.name for link in lost_bridges(self._kernel, self._mark, known)}
        if self._bridge not in lost:
            return self._bridge
        return next(name for n in count(2) if (name := f"{self._bridge}-{n}") not in lost)

    def _own_bridges(self) -> set[int]:
        """The ifindexes of our bridges: what they are on is about to be free."""
        links = self._kernel.links_dump()
        return {link.ifindex for link in links if self._mark.owns(parse_alias(link.alias))}

    # ---- removing ----

    def leave(self, endpoints: Iterable[EndpointRow]) -> None:
        """Remove the links of endpoints; absent ones are fine."""
        drivers = {row.id: self._drivers[row.driver] for row in self._store.networks()}
        for endpoint in endpoints:
            drivers[endpoint.network_id].leave([endpoint.host_ifname])

    def reclaim(self) -> list[str]:
        """Remove what a root that was here before has left, also where containers are on it; what was
        removed."""
        with self._thread_lock:
            return self._reclaim()

    def _reclaim(self) -> list[str]:
        with locked(self._lock_path):
            known = [row.bridge for row in self._store.networks()]
            return reclaim(self._kernel, self._rules, self._mark, known, used=True)

    def remove_all(self) -> list[str]:
        """Remove rules, bridges and rows; what was removed. Conflict while a container is on one."""
        with self._thread_lock:
            return self._remove_all()

    def _remove_all(self) -> list[str]:
        removed = []
        with locked(self._lock_path):
            for row in self._store.networks():
                if not self._store.retire_network(row.id):
                    raise Conflict(f"network {row.name} has active endpoints")
                self._known.pop(row.name, None)
                removed += self._take_down(row)
        return removed

    def _take_down(self, row: NetworkRow) -> list[str]:
        """Remove a network that nobody is on; what was removed."""
        left = [other for other in self._store.networks() if other.id != row.id]
        segments = self._segments(left)
        removed = []
        if segments:
            self._rules.ensure(segments)
        elif self._rules.delete():
            removed.append(f"rules {self._rules.table}")
        removed += self._drivers[row.driver].delete(row)
        self._store.remove_network(row.id)
        return removed


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Alone among the processes that share an exec root; given back even by a killed one."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
