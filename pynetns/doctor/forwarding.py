"""Whose rules stand in the way of what is forwarded: Docker's FORWARD policy, a firewall's.

Owns: reading the machine's chains, and the rule to add. Changes nothing. A packet that one chain drops
is dropped, whatever other chains accept, so that our own rules cannot help; the one who runs the
machine may. Where Docker runs, DOCKER-USER is the chain for that: Docker leaves it alone.
https://docs.docker.com/engine/network/packet-filtering-firewalls/
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import KernelError
from ..kernel import netlink
from .machine import Machine
from .outcome import Check

_NFT_GETCHAIN, _NFT_GETRULE = 10 << 8 | 4, 10 << 8 | 7  # NFNL_SUBSYS_NFTABLES
_FAMILIES = {1: "inet", 2: "ip"}
_HOOK_FORWARD, _DROP = 2, 0
_LEGACY = "ip_tables"  # the family of a chain of iptables-legacy


class Chain(NamedTuple):
    """A chain of the machine. `drops`: it sees what is forwarded, and drops what no rule accepts."""

    family: str
    table: str
    name: str
    drops: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Firewall(Machine):
    """The machine's chains."""

    def chains(self) -> list[Chain]:
        """Every chain; none where they cannot be read. linux/netfilter/nf_tables.h."""
        try:
            found = netlink.dump(netlink.NETFILTER, _NFT_GETCHAIN, bytes(4), "chains")
        except KernelError:
            found = []
        return [chain for payload in found if (chain := _chain(payload))] + self._legacy()

    def names(self, chain: Chain, link: str) -> bool:
        """Whether rules of `chain` name a link both as where packets come from and go to."""
        if chain.family == _LEGACY:
            lines = self._listed(chain.name)
            return all(any(f"-{way} {link} " in line for line in lines) for way in "io")
        try:
            found = netlink.dump(netlink.NETFILTER, _NFT_GETRULE, bytes(4), "rules")
        except KernelError:
            return False
        return sum(_is_in(payload, chain) and _named(link) in payload for payload in found) >= 2

    def _legacy(self) -> list[Chain]:
        """Of iptables-legacy, where that has a table: asking for one would make it."""
        if "filter" not in (self.read("/proc/net/ip_tables_names") or "").split():
            return []
        found = []
        for line in self._listed(""):
            words = line.split()
            if words[0] in ("-P", "-N"):
                drops = words == ["-P", "FORWARD", "DROP"]
                found.append(Chain(_LEGACY, "filter", words[1], drops))
        return found

    def _listed(self, chain: str) -> list[str]:
        command = ["iptables-legacy", "-S", *([chain] if chain else [])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return []
        return done.stdout.splitlines()


def _chain(payload: bytes) -> Chain | None:
    family = _FAMILIES.get(payload[0])
    if family is None:
        return None
    attributes = netlink.parse(payload[4:])
    hook = netlink.parse(attributes.get(4, b""))
    hooked = struct.unpack(">I", hook[1])[0] if 1 in hook else -1
    policy = struct.unpack(">I", attributes[5])[0] if 5 in attributes else 1
    table, name = (netlink.string(attributes.get(kind, b"")) for kind in (1, 3))
    return Chain(family, table, name, hooked == _HOOK_FORWARD and policy == _DROP)


def _is_in(payload: bytes, chain: Chain) -> bool:
    attributes = netlink.parse(payload[4:])
    where = tuple(netlink.string(attributes.get(kind, b"")) for kind in (1, 2))
    return _FAMILIES.get(payload[0]) == chain.family and where == (chain.table, chain.name)


def _named(link: str) -> bytes:
    """A link's name as rules compare it."""
    return link.encode(errors="surrogateescape") + b"\0"


def check_forwarding(machine: Machine) -> Check:
    """No chain of somebody else drops what containers send beyond this machine, or to each other."""
    if not isinstance(machine, Firewall):
        return Check("forwarding rules", True, "were not looked at")
    chains = machine.chains()
    dropping = next((chain for chain in chains if chain.drops), None)
    if dropping is None:
        return Check("forwarding rules", True, "no chain drops what is forwarded")
    link = machine.bridge()
    place = place_for_rules(chains, dropping)
    if machine.names(place, link) or machine.names(dropping, link):
        return Check("forwarding rules", True, f"{dropping} drops, and has rules for {link}")
    lost = "containers reach nothing beyond this machine"
    if machine.read("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1":
        lost += ", nor each other (br_netfilter)"
    detail = f"{dropping} drops what no rule accepts (Docker's policy): {lost}"
    return Check("forwarding rules", None, detail, rules_to_add(place, link))


def place_for_rules(chains: Sequence[Chain], dropping: Chain) -> Chain:
    """The chain for the rules of whoever runs the machine: DOCKER-USER beside Docker's."""
    user = dropping._replace(name="DOCKER-USER", drops=False)
    return user if user in chains else dropping


def rules_to_add(place: Chain, link: str) -> str:
    """Commands that let through what comes from a bridge and what goes to it."""
    if place.family == _LEGACY or (place.family, place.table) == ("ip", "filter"):
        tool = "iptables-legacy" if place.family == _LEGACY else "iptables"
        return " && ".join(f"{tool} -I {place.name} -{way} {link} -j ACCEPT" for way in "io")
    words = f"nft insert rule {place}"
    return " && ".join(f"{words} {way}ifname {link} accept" for way in "io")
