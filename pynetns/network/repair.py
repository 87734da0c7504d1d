"""Finding what nobody owns: namespaces, links, rules without a row, sandboxes without a container.

Owns: the order of looking. Kernel objects are listed before the rows are read, and a row precedes
its objects; so an object that was listed and has no row is nobody's, whatever other processes are
starting meanwhile. libnetwork sandboxCleanup, osl removeUnusedPaths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from ..kernel import Kernel
from ..store import SandboxRow, Store
from . import nftables
from .default_network import DefaultNetwork, delete_links
from .endpoint import VETH_PREFIX


def restore(
    store: Store,
    kernel: Kernel,
    network: DefaultNetwork,
    netns_dir: str,
    live: Collection[str],
    destroy: Callable[[str], None],
) -> list[str]:
    """Remove what nobody owns, put back what live containers need; a line per thing removed."""
    files = os.listdir(netns_dir)
    row = network.row()
    links = bridge_ports(row.bridge) if row is not None else []
    ports = nftables.list_ports(store.engine_id) if row is not None else []

    sandboxes, endpoints = store.sandboxes(), store.endpoints()
    wanted = {(port.proto, port.host_ip, port.host_port) for port in store.ports()}
    strays = set(files) - {os.path.basename(sandbox.key) for sandbox in sandboxes}
    removed = remove_namespaces(kernel, netns_dir, sorted(strays))
    own = {name for name in links if name.startswith(VETH_PREFIX)}
    removed += remove_links(kernel, sorted(own - {end.host_ifname for end in endpoints}))
    stale = [port for port in ports if tuple(port[:3]) not in wanted]
    if stale:
        nftables.remove_ports(store.engine_id, stale)
        removed += [f"port {port[1]}:{port[2]}/{port[0]}" for port in stale]
    removed += remove_sandboxes(store, sandboxes, live, destroy)
    if row is not None and store.network_in_use(row.id):
        network.ensure(None)
        nftables.add_ports(store.engine_id, store.ports())
    return removed


def remove_sandboxes(
    store: Store,
    sandboxes: Iterable[SandboxRow],
    live: Collection[str],
    destroy: Callable[[str], None],
) -> list[str]:
    """Sandboxes whose container is gone. One whose container exists is left to that container's own
    repair, which holds its lock."""
    removed = []
    for row in sandboxes:
        if row.container_id not in live and store.container(row.container_id) is None:
            destroy(row.container_id)
            removed.append(f"sandbox {row.id[:12]}")
    return removed


def remove_namespaces(kernel: Kernel, netns_dir: str, names: Iterable[str]) -> list[str]:
    """Unpin namespaces by the names of their files."""
    removed = []
    for name in names:
        kernel.ns_unpin(f"{netns_dir}/{name}")
        removed.append(f"namespace {name}")
    return removed


def remove_links(kernel: Kernel, names: list[str]) -> list[str]:
    """Delete links of the host."""
    delete_links(kernel, names)
    return [f"link {name}" for name in names]


def bridge_ports(bridge: str) -> list[str]:
    """The links attached to a bridge of the host; none when it does not exist."""
    try:
        return os.listdir(f"/sys/class/net/{bridge}/brif")
    except OSError:
        return []
