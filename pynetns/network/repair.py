"""Finding what nobody owns: namespaces, links, rules without a row, sandboxes without a container.

Owns: the order of looking. Kernel objects are listed before the rows are read, and a row precedes
its objects; so an object that was listed and has no row is nobody's, whatever other processes are
starting meanwhile. libnetwork sandboxCleanup, osl removeUnusedPaths.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from ..kernel import Kernel
from ..store import SandboxRow, Store
from .drivers.bridge import bridge_ports, delete_links
from .lost import remove_namespaces
from .networks import Networks
from .rules import Rules


def restore(
    store: Store,
    kernel: Kernel,
    rules: Rules,
    networks: Networks,
    netns_dir: str,
    live: Collection[str],
    destroy: Callable[[str], None],
) -> list[str]:
    """Remove what nobody owns, put back what live containers need; a line per thing removed."""
    removed = networks.reclaim()
    rows = store.networks()
    links = [name for row in rows for name in _links_on(kernel, row.bridge)]
    ports = rules.published() if rows else []

    removed += remove_namespaces(kernel, store, netns_dir)
    sandboxes, endpoints = store.sandboxes(), store.endpoints()
    removed += remove_links(kernel, sorted(set(links) - {end.host_ifname for end in endpoints}))
    wanted = {(port.proto, port.host_ip, port.host_port) for port in store.ports()}
    stale = [port for port in ports if tuple(port[:3]) not in wanted]
    if stale:
        rules.withdraw(stale)
        removed += [f"port {port[1]}:{port[2]}/{port[0]}" for port in stale]
    removed += remove_sandboxes(store, sandboxes, live, destroy)
    used = [row.name for row in rows if store.network_in_use(row.id)]
    for name in used:
        networks.ensure(name, networks.known(name))
    if used:
        rules.publish(store.ports())
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


def remove_links(kernel: Kernel, names: Sequence[str]) -> list[str]:
    """Delete links of the host."""
    delete_links(kernel, names)
    return [f"link {name}" for name in names]


def _links_on(kernel: Kernel, bridge: str) -> list[str]:
    """The containers' links on a bridge of the host; none when it does not exist."""
    link = kernel.link_get(bridge) if bridge else None
    return bridge_ports(kernel, link.ifindex) if link is not None else []
