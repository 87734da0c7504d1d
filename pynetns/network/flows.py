"""Making the kernel forget UDP flows that a changed published port misled.

Owns: which flows those are. A flow keeps the translation of its first packet, and a UDP flow never
ends while its client goes on sending: without this, a client that spoke to the port before it was
published, or to the container that had it before, would never reach the new one. Each call that has a
UDP port walks the kernel's table once. libnetwork bridge clearConntrackEntries.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from ..kernel import Kernel
from .published import ANY, Publishable


def forget_misled(kernel: Kernel, ports: Sequence[Publishable]) -> None:
    """After `ports` were published: forget flows to them that lead anywhere else."""
    _forget(kernel, ports, published=True)


def forget_withdrawn(kernel: Kernel, ports: Sequence[Publishable]) -> None:
    """After `ports` were withdrawn: forget flows to them that lead to their container."""
    _forget(kernel, ports, published=False)


def _forget(kernel: Kernel, ports: Sequence[Publishable], *, published: bool) -> None:
    targets: dict[int, list[tuple[bytes | None, tuple[bytes, int]]]] = {}
    for port in ports:
        if port.proto == "udp":
            host = None if port.host_ip == ANY else socket.inet_aton(port.host_ip)
            leads_to = (socket.inet_aton(port.container_ip), port.container_port)
            targets.setdefault(port.host_port, []).append((host, leads_to))
    local: set[bytes] = set()
    for flow in kernel.conntrack_dump(list(targets)) if targets else ():
        for host, leads_to in targets.get(flow.to[1], ()):
            if host not in (None, flow.to[0]) or (flow.answered_by == leads_to) is published:
                continue
            local = local or {address.local for address in kernel.addresses_dump()}
            if flow.to[0] in local or flow.to[0][0] == 127:  # else it only passes through
                kernel.conntrack_delete(flow)
