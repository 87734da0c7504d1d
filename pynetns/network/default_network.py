"""The default network: made when the first container needs it, looked up at no cost afterwards.

Owns: its row, the choice of its subnet, and when bridge and rules are made. How they are made is
in bridge.py and nftables.py. Any number of threads and processes may race: a file lock makes one of
them do the work. moby initBridgeDriver.
"""

from __future__ import annotations

import secrets
from functools import partial

from ..errors import Conflict
from ..forks import Descriptors
from ..kernel import Kernel
from ..locks import ThreadLock, take
from ..model.network import DEFAULT_NETWORK
from ..store import NetworkRow, Store
from ..trace import step
from . import bridge, nftables
from .endpoint import Network
from .ipam import format_address, parse_subnet


class DefaultNetwork:
    """The network "bridge" of one engine. `bip`: its address as CIDR; None: a free pool is chosen
    once and kept in the store. InvalidParameter for a bad `bip`."""

    def __init__(
        self, store: Store, kernel: Kernel, lock_path: str, name: str, bip: str | None, mtu: int
    ) -> None:
        if bip is not None:
            parse_subnet(bip, bip.partition("/")[0], "bip")
        self._store = store
        self._kernel = kernel
        self._lock_path = lock_path
        self._bridge = name
        self._bip = bip
        self._mtu = mtu
        self._thread_lock = ThreadLock()
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
        return self._thread_lock.alone(partial(self._ensure, seen))

    def _ensure(self, seen: Network | None) -> Network:
        network = self._network
        if network is None or network is seen:
            with step("setup_bridge"), take(self._lock_path):
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
        return self._thread_lock.alone(self._remove)

    def _remove(self) -> list[str]:
        with take(self._lock_path):
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
        if row is not None and self._bip is not None and self._bip != _cidr(row):
            if self._store.network_in_use(row.id):
                raise Conflict(
                    f"bip {self._bip}: network {row.name} is {_cidr(row)} and containers use it: "
                    "remove them first"
                )
            self._take_down(row)
            row = None
        if row is None:
            row = self._new_row()
            self._store.add_network(row)
        return row

    def _new_row(self) -> NetworkRow:
        if self._bip is not None:
            gateway = self._bip.partition("/")[0]
            subnet = parse_subnet(self._bip, gateway, "bip")
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
            self._bridge,
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
        with Descriptors() as fds:
            nl = fds.open(kernel.nl_open)
            for name in names:
                kernel.link_delete(nl, name)
