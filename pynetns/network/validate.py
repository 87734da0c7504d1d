"""Refusing, at create, network options that could never work at start.

Owns: which options go with which network mode, and the syntax of each. Pure; nothing is made.
moby runconfig/hostconfig_unix.go validateNetMode, by behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import Conflict, InvalidParameter, NotFound
from ..model.ports import check_binding, parse_port
from ..model.suggest import did_you_mean
from .host_files import is_address, parse_extra_host
from .ipam import parse_address, parse_mac
from .request import ContainerOptions

_OFFERED = ("bridge", "host", "none")
_WITHOUT_ADDRESS = frozenset({"none", "host"})


def validate(options: ContainerOptions, exists: Callable[[str], bool]) -> None:
    """Raises InvalidParameter or Conflict naming the option, NotFound for a network that does not
    exist (`exists` takes its name)."""
    mode = options.mode
    shared = mode.startswith("container:")
    if shared:
        _check_shared(mode, options)
    elif not exists(mode):
        raise NotFound(
            f"network {mode} not found{did_you_mean(mode, _OFFERED)}: --network takes "
            f"{', '.join(_OFFERED)} or container:NAME"
        )
    _check_syntax(options)
    if not shared and mode not in _WITHOUT_ADDRESS:
        return
    for option, value in (("--ip", options.ip_address), ("--mac-address", options.mac_address)):
        if value:
            raise InvalidParameter(f"{option} : only with network bridge, not with {mode}")


def _check_shared(mode: str, options: ContainerOptions) -> None:
    """Options that belong to whoever owns the network."""
    if mode == "container:":
        raise InvalidParameter("--network : container:<name or id> needs a name or id")
    owned = (
        ("hostname", options.hostname),
        ("domainname", options.domainname),
        ("dns", options.dns or options.dns_search or options.dns_options),
        ("custom host-to-IP mapping", options.extra_hosts),
        ("mac-address", options.mac_address),
        ("port publishing", options.publishes),
    )
    for option, value in owned:
        if value:
            raise Conflict(f"conflicting options: {option} and the network mode {mode}")


def _check_syntax(options: ContainerOptions) -> None:
    if options.mac_address:
        parse_mac(options.mac_address)
    if options.ip_address:
        parse_address(options.ip_address, "--ip")
    check_servers(options.dns, "--dns")
    check_resolver_words(options.dns_search, "--dns-search")
    check_resolver_words(options.dns_options, "--dns-option")
    for entry in options.extra_hosts:
        parse_extra_host(entry)
    for port, bindings in options.port_bindings:
        parse_port(port)
        for binding in bindings:
            check_binding(binding)
    for port in options.exposed_ports:
        parse_port(port)


def check_servers(servers: Iterable[str], option: str) -> None:
    """InvalidParameter naming `option` unless they are IP addresses."""
    for server in servers:
        if not is_address(server):
            raise InvalidParameter(f"{option} : {server!r} is not an ip address")


def check_resolver_words(words: Iterable[str], option: str) -> None:
    """InvalidParameter naming `option` for what would be several words, or lines, in resolv.conf."""
    for word in words:
        if not word or not word.isprintable() or any(c.isspace() for c in word):
            raise InvalidParameter(f"{option} : {word!r} is not one word")
