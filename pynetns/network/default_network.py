"""The default network: made when the first container needs it, looked up at no cost afterwards.

Owns: its row, the choice of its subnet, and when bridge and rules are made. How they are made is
in bridge.py and nftables.py. Any number of threads and processes may race: a file lock makes one of
them do the work. moby initBridgeDriver.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import Conflict
from ..kernel import Kernel
from ..model.network import DEFAULT_NETWORK
from ..store import NetworkRow, Store
from ..trace import step
from . import bridge, nftables
from .endpoint import Network
from .ipam import format_address, parse_subnet


class DefaultNetwork:
    """The network "bridge" of one engine. `bip`: its address as CIDR; None: a free pool is chosen
    once and kept in the store. `configured`: which of bridge, bip and mtu somebody asked for, and
    how a message names that. InvalidParameter for a bad `bip`.

    What is on record is changed to what is asked for while no container uses the network. While one
    does, asking for something else is a Conflict; who asks for nothing takes the network as it is.
    """

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        lock_path: str,
        name: str,
        bip: str | None,
        mtu: int,
        configured: Mapping[str, str] | None = None,
    ) -> None:
        if bip is not None:
            parse_subnet(bip, bip.partition("/")[0], "bip")
        self._store = store
        self._kernel = kernel
        self._lock_path = lock_path
        self.bridge = name
        self._bip = bip
        self._mtu = mtu
        self._configured = {**({"bip": "--bip"} if bip else {}), **(configured or {})}
        self._thread_lock = threading.Lock()
        self._network: Network | None = None

    def get(self) -> Network:
        """The network, made if need be.

        Raises Conflict (`bip` differs from that of containers on it), Unavailable (no nf_tables, no
        free pool), KernelError.
        """
        network = self._network
        return network if network is not None else self.ensure(None)

    def ensure(self, seen: Network | None) -> Network:
        """Make bridge and rules exist, unless another thread did since the caller has `seen` it."""
        with self._thread_lock:
            network = self._network
            if network is None or network is seen:
                with step("setup_bridge"), locked(self._lock_path):
                    network = self._network = self._set_up(self._row())
            return network

    def gateway(self) -> str:
        """The host's address on the network."""
        return self.get().gateway

    def row(self) -> NetworkRow | None:
        """What is on record; None before the first use."""
        return self._store.network_by_name(DEFAULT_NETWORK)

    def remove(self) -> list[str]:
        """Remove rules, bridge and row; what was removed. Conflict while a container is on it."""
        with self._thread_lock, locked(self._lock_path):
            row = self.row()
            if row is None:
                return []
            if self._store.network_in_use(row.id):
                raise Conflict(f"network {row.name} has active endpoints")
            self._network = None
            self._take_down(row)
            return [f"rules of {row.bridge}", f"bridge {row.bridge}"]

    def _row(self) -> NetworkRow:
        """The row, on record before the device exists."""
        row = self.row()
        if row is not None and self._differences(row):
            if self._store.network_in_use(row.id):
                self._check_unasked(row)
                return row
            self._take_down(row)
            row = self._new_row(row)
            self._store.add_network(row)
        if row is None:
            row = self._new_row()
            self._store.add_network(row)
        return row

    def _differences(self, row: NetworkRow) -> dict[str, tuple[object, object]]:
        """What is on record otherwise than wanted: key -> (wanted, recorded)."""
        pairs: dict[str, tuple[object, object]] = {
            "bridge": (self.bridge, row.bridge),
            "bip": (self._bip or _cidr(row), _cidr(row)),
            "mtu": (self._mtu, row.mtu),
        }
        return {key: (wanted, found) for key, (wanted, found) in pairs.items() if wanted != found}

    def _check_unasked(self, row: NetworkRow) -> None:
        """Conflict when what differs from a network in use has been asked for."""
        for key, (wanted, found) in self._differences(row).items():
            if key in self._configured:
                raise Conflict(
                    f"{self._configured[key]} {wanted} : network {row.name} has {key} {found} and "
                    f"containers use it: end or remove them first, or give {found}"
                )

    def describe(self) -> dict[str, Any]:
        """Bridge, BIP and MTU: as on record, else as they will be; BIP "" is to be chosen."""
        row = self.row()
        if row is None:
            return {"Bridge": self.bridge, "BIP": self._bip or "", "MTU": self._mtu}
        return {"Bridge": row.bridge, "BIP": _cidr(row), "MTU": row.mtu}

    def _new_row(self, before: NetworkRow | None = None) -> NetworkRow:
        """What will be on record; the subnet is the one it had before unless another is asked for."""
        if self._bip is not None:
            gateway = self._bip.partition("/")[0]
            subnet = parse_subnet(self._bip, gateway, "bip")
        elif before is not None:
            subnet, gateway = parse_subnet(before.subnet, before.gateway), before.gateway
        else:
            taken = [row.subnet for row in self._store.networks()]
            subnet = parse_subnet(bridge.choose_pool(taken))
            gateway = format_address(subnet.gateway)
        return NetworkRow(
            secrets.token_hex(32),
            DEFAULT_NETWORK,
            "bridge",
            f"{format_address(subnet.network)}/{subnet.prefix}",
            gateway,
            self.bridge,
            self._mtu,
            subnet.first - 1,
        )

    def _set_up(self, row: NetworkRow) -> Network:
        subnet = parse_subnet(row.subnet, row.gateway)
        engine_id = self._store.engine_id
        device = bridge.setup_bridge(
            self._kernel, row.bridge, engine_id, row.gateway, subnet.prefix, row.mtu
        )
        nftables.ensure_table(engine_id, row.bridge, row.subnet)
        return Network(
            id=row.id,
            name=row.name,
            bridge=row.bridge,
            mtu=row.mtu,
            subnet=subnet,
            gateway=row.gateway,
            broadcast=format_address(subnet.broadcast),
            ifindex=device.ifindex,
        )

    def _take_down(self, row: NetworkRow) -> None:
        nftables.delete_table(self._store.engine_id)
        bridge.remove_bridge(self._kernel, row.bridge, self._store.engine_id)
        self._store.remove_network(row.id)


def _cidr(row: NetworkRow) -> str:
    return f"{row.gateway}/{row.subnet.rpartition('/')[2]}"


def delete_links(kernel: Kernel, names: list[str]) -> None:
    """Delete links of the host; absent ones are fine."""
    if names:
        nl = kernel.nl_open()
        try:
            for name in names:
                kernel.link_delete(nl, name)
        finally:
            os.close(nl)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Alone among the processes that share an exec root; given back even by a killed one."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
