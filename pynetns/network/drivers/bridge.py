"""The driver "bridge": a bridge device of the host, and a veth pair for each container on it.

Owns: making, adopting and removing the device, the two sysctls of that device, and the pairs. A bridge
carries its owner's mark as alias, so that an engine never touches another's. Machine-wide settings are
never changed. libnetwork bridge driver; seed section 1.2.1.1.2.4.1.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from ...errors import Conflict, KernelError, Unavailable
from ...kernel import Kernel
from ...kernel.interfaces import Link
from ...store import NetworkRow
from ..ipam import format_address, parse_subnet
from ..mark import Mark, parse_alias
from .base import LinkOptions, Network, Pool, Segment

VETH_PREFIX = "veth"

# Answers to the host's loopback come in by the bridge (route_localnet), and containers reach their
# own published ports through it (forwarding), whether the machine forwards or not.
_SYSCTLS = ("route_localnet", "forwarding")


class BridgeDriver:
    """See drivers/base.py for what each method is for."""

    name = "bridge"
    own_namespace = True
    has_endpoints = True

    def __init__(self, kernel: Kernel, mark: Mark) -> None:
        self._kernel = kernel
        self._mark = mark

    def create(self, row: NetworkRow) -> Network:
        """Raises Conflict (the bridge's name belongs to somebody else), Unavailable, KernelError."""
        subnet = parse_subnet(row.subnet, row.gateway)
        ifindex = setup_bridge(
            self._kernel, row.bridge, self._mark, row.gateway, subnet.prefix, row.mtu
        )
        return Network(
            id=row.id,
            name=row.name,
            driver=self,
            pool=Pool(subnet, row.gateway, format_address(subnet.broadcast)),
            options=LinkOptions(row.bridge, ifindex, row.mtu),
            generation=row.generation,
        )

    def delete(self, row: NetworkRow) -> list[str]:
        link = self._kernel.link_get(row.bridge)
        if link is None or not self._mark.owns(parse_alias(link.alias)):
            return []
        return remove_bridge(self._kernel, link)

    def segment(self, row: NetworkRow) -> Segment | None:
        return Segment(row.bridge, row.subnet)

    def join(
        self, nl: int, network: Network, link: str, *, peer: str, netns: int, mac: bytes
    ) -> None:
        """KernelError EEXIST: `link` is taken; ENODEV, EINVAL: the bridge may be gone. Unavailable
        when it is full."""
        options = network.options
        try:
            self._kernel.veth_create(
                nl,
                link,
                peer,
                peer_netns=netns,
                master=options.ifindex,
                mtu=options.mtu,
                peer_mac=mac,
                hairpin=True,
                no_ipv6=True,
            )
        except KernelError as error:
            if error.name == "EXFULL":
                raise Unavailable(
                    f"network {network.name}: its bridge {options.bridge} has all the 1,023 "
                    "ports that Linux gives a bridge: remove containers, "
                    "or use --network host or none"
                ) from error
            raise

    def is_there(self, nl: int, network: Network) -> bool:
        try:
            return self._kernel.link_index(nl, network.options.bridge) == network.options.ifindex
        except KernelError as error:
            if error.name != "ENODEV":
                raise
            return False

    def leave(self, links: Sequence[str]) -> None:
        delete_links(self._kernel, links)


def setup_bridge(kernel: Kernel, name: str, mark: Mark, address: str, prefix: int, mtu: int) -> int:
    """Make the bridge, up, with `address`/`prefix` and `mtu` in bytes; or adopt it if it is ours. Its
    ifindex.

    Raises Conflict (the name belongs to somebody else), Unavailable (/proc/sys is read-only),
    KernelError. The caller sees to it that no other process does the same.
    """
    nl = kernel.nl_open()
    try:
        ifindex = _create_or_adopt(kernel, nl, name, mark, address, prefix, mtu)
    finally:
        os.close(nl)
    for key in _SYSCTLS:
        try:
            kernel.link_sysctl(name, key)
        except OSError as error:
            raise Unavailable(
                f"{error.filename} : {error.strerror}: it must be writable for containers on a "
                "bridge: mount /proc/sys read-write, or use network none or host"
            ) from error
    return ifindex


def _create_or_adopt(
    kernel: Kernel, nl: int, name: str, mark: Mark, address: str, prefix: int, mtu: int
) -> int:
    alias = mark.alias()
    try:
        return kernel.bridge_create(nl, name, alias=alias, mtu=mtu, address=address, prefix=prefix)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
    link = kernel.link_get(name)
    whose = parse_alias(link.alias) if link is not None and link.kind == "bridge" else None
    if link is not None and mark.owns(whose):
        _complete(kernel, nl, name, link, address, prefix)
        return link.ifindex
    if link is not None and mark.inherits(whose):
        _check_unused(kernel, link)
    elif link is not None and not _unfinished(link, address):
        marked = f"its alias is {link.alias!r}" if link.alias else "it has no alias"
        raise Conflict(
            f"bridge {name} : a device of that name exists that is not this engine's ({marked}): "
            f"choose another name with --bridge, or remove it if nobody needs it (ip link del {name})"
        )
    kernel.link_delete(nl, name)
    return kernel.bridge_create(nl, name, alias=alias, mtu=mtu, address=address, prefix=prefix)


def _check_unused(kernel: Kernel, link: Link) -> None:
    if bridge_ports(kernel, link.ifindex):
        raise Conflict(
            f"bridge {link.name} : containers of a root that was deleted are still on it: end them "
            "and remove it with gc, or choose another name with --bridge"
        )


def _complete(kernel: Kernel, nl: int, name: str, link: Link, address: str, prefix: int) -> None:
    """Put back what somebody took away from our bridge."""
    if not link.up:
        kernel.link_set_up(nl, name, True)
    try:
        kernel.address_add(nl, name, address, prefix)
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise


def _unfinished(link: Link, address: str) -> bool:
    """Whether this is our own bridge, by a process that was killed before it gave it the alias."""
    mac = b"\x02\x42" + socket.inet_aton(address)
    return link.kind == "bridge" and not link.alias and not link.up and link.mac == mac


def remove_bridge(kernel: Kernel, bridge: Link) -> list[str]:
    """Delete a bridge that is ours, and the host's ends of containers' links on it; what was removed.
    Deleting the bridge alone would leave those behind, and nobody could tell whose they are."""
    names = bridge_ports(kernel, bridge.ifindex)
    delete_links(kernel, [*names, bridge.name])
    return [*(f"link {name}" for name in names), f"bridge {bridge.name}"]


def bridge_ports(kernel: Kernel, ifindex: int) -> list[str]:
    """The host's ends of containers' links on the bridge of that ifindex."""
    return [
        link.name
        for link in kernel.links_dump(ifindex)
        if link.kind == "veth" and link.name.startswith(VETH_PREFIX)
    ]


def delete_links(kernel: Kernel, names: Sequence[str]) -> None:
    """Delete links of the host; absent ones are fine."""
    if names:
        nl = kernel.nl_open()
        try:
            for name in names:
                kernel.link_delete(nl, name)
        finally:
            os.close(nl)
