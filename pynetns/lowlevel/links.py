"""Low-level part: links, addresses and routes of a network namespace, usable alone.

    >>> import socket
    >>> with NetworkNamespace.create() as switch, NetworkNamespace.create() as box:
    ...     with Links(switch) as links, Links(box) as inside:
    ...         port = links.bridge("br0", "10.9.0.1/24")
    ...         links.veth("veth0", "eth0", peer=box, master="br0")
    ...         eth0 = inside.configure("eth0", "10.9.0.2/24", gateway="10.9.0.1")
    ...         inside.add_route("10.10.0.0/16", "eth0", gateway="10.9.0.1")
    ...     box.run(lambda: [name for _, name in socket.if_nameindex()])
    ['lo', 'eth0']

Owns: names and CIDRs as people write them. The requests themselves are csrc/link.c's; each is one
round trip to the kernel, so that what one call makes is there when it returns.
"""

from __future__ import annotations

import os
import socket

from ..errors import InvalidParameter
from ..kernel import rtnetlink as _link
from .namespaces import NetworkNamespace

__all__ = ["Links", "NetworkNamespace"]

_NAME_MAX = 15  # IFNAMSIZ less the NUL


class Links:
    """The links of `namespace`, or of the calling thread's own. A context manager.

    All methods raise InvalidParameter (a malformed name or address) and KernelError. One thread at
    a time. Source: rtnetlink(7).
    """

    def __init__(self, namespace: NetworkNamespace | None = None) -> None:
        self._owned = _link.nl_open() if namespace is None else -1
        self._nl = self._owned if namespace is None else namespace.netlink()

    # ---- links ----

    def veth(
        self,
        name: str,
        peer_name: str,
        *,
        peer: NetworkNamespace | None = None,
        master: str | None = None,
        mtu: int = 0,
        peer_mac: str = "",
        hairpin: bool = False,
        no_ipv6: bool = False,
        up: bool = True,
    ) -> None:
        """A pair: `name` here, `peer_name` in namespace `peer` (None: here), each made in place.

        `master`: the bridge that `name` becomes a port of; `hairpin`: it may send a frame back
        where that came from; `mtu` in bytes for both (0: the kernel's default); `peer_mac` as
        "02:42:0a:09:00:02" ("": random); `no_ipv6`: no link-local address on `name`; `up`: bring
        `name` up. veth(4).
        """
        _link.veth_create(
            self._nl,
            _name(name),
            _name(peer_name),
            peer_netns=-1 if peer is None else peer.fd,
            master=0 if master is None else self.index(master),
            mtu=mtu,
            peer_mac=_mac(peer_mac),
            hairpin=hairpin,
            no_ipv6=no_ipv6,
            up=up,
        )

    def bridge(self, name: str, address: str, *, mtu: int = 1500, alias: str = "") -> int:
        """A bridge, up, with `address` ("10.9.0.1/24"); its ifindex. `mtu` in bytes.

        KernelError EEXIST when the name is taken. Its MAC is made of the address and stays the same
        whatever its ports are. It has no IPv6 link-local address.
        """
        at, prefix = _cidr(address)
        return _link.bridge_create(
            self._nl, _name(name), alias=alias, mtu=mtu, address=at, prefix=prefix
        )

    def index(self, name: str) -> int:
        """The ifindex of a link; KernelError ENODEV when there is none."""
        return _link.link_index(self._nl, _name(name))

    def set_up(self, name: str, up: bool = True) -> None:
        """Bring a link up, or down."""
        _link.link_set_up(self._nl, _name(name), up)

    def delete(self, name: str) -> None:
        """Delete a link, and a veth's peer with it; an absent one is fine.

        Waits for an RCU grace period (some 30 ms); a link that goes with its namespace does not.
        """
        _link.link_delete(self._nl, _name(name))

    # ---- addresses and routes ----

    def configure(
        self, name: str, address: str, *, gateway: str | None = None, broadcast: str | None = None
    ) -> int:
        """Give a link its `address` ("10.9.0.2/24"), bring it up, make `gateway` the default route,
        all at once; its ifindex. On KernelError a part of it may have been done."""
        at, prefix = _cidr(address)
        return _link.link_configure(
            self._nl,
            _name(name),
            at,
            prefix,
            None if gateway is None else _address(gateway),
            None if broadcast is None else _address(broadcast),
        )

    def add_address(self, name: str, address: str) -> None:
        """Add an address ("10.9.0.2/24") to a link; KernelError EEXIST when it has it."""
        _link.address_add(self._nl, _name(name), *_cidr(address))

    def add_route(self, destination: str, name: str, *, gateway: str | None = None) -> None:
        """A route to `destination` ("10.10.0.0/16", "default") over link `name`, which must be up:
        by `gateway`, or on link (None)."""
        to, prefix = _cidr("0.0.0.0/0" if destination == "default" else destination)
        _link.route_add(
            self._nl, _name(name), to, prefix, None if gateway is None else _address(gateway)
        )

    # ---- life ----

    def close(self) -> None:
        """Close the socket, unless it is the namespace's. Idempotent."""
        if self._owned >= 0:
            os.close(self._owned)
        self._owned = self._nl = -1

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# ---- values ----


def _name(name: str) -> str:
    encoded = name.encode()
    bad = not 1 <= len(encoded) <= _NAME_MAX or name in (".", "..")
    if bad or any(char in "/:\0" or char.isspace() for char in name):
        raise InvalidParameter(
            f"link name {name!r} : must have 1 to {_NAME_MAX} bytes, no '/', ':' or white space"
        )
    return name


def _address(address: str) -> str:
    try:
        socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        raise InvalidParameter(f"address {address!r} : not an IPv4 address") from None
    return address


def _cidr(cidr: str) -> tuple[str, int]:
    address, slash, prefix = cidr.partition("/")
    if not slash or not (prefix.isascii() and prefix.isdecimal()) or int(prefix) > 32:
        raise InvalidParameter(f"address {cidr!r} : must be of the form A.B.C.D/N")
    return _address(address), int(prefix)


def _mac(mac: str) -> bytes:
    try:
        octets = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        octets = b"?"
    if len(octets) not in (0, 6):
        raise InvalidParameter(f"MAC address {mac!r} : must be of the form 02:42:0a:09:00:02")
    return octets
