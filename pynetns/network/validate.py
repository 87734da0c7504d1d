"""Refusing, at create, network options that could never work at start.

Owns: which options go with which network mode, and the syntax of each. Pure; nothing is made.
moby runconfig/hostconfig_unix.go validateNetMode, by behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Conflict, InvalidParameter, NotFound
from ..model.config import Config, HostConfig
from ..model.network import DEFAULT_NETWORK
from ..model.ports import check_binding, parse_port
from ..model.suggest import did_you_mean
from .endpoint import network_name
from .host_files import is_address, parse_extra_host
from .ipam import parse_address, parse_mac

_MODES = frozenset({DEFAULT_NETWORK, "none", "host"})


def validate(config: Config, host_config: HostConfig) -> None:
    """Raises InvalidParameter or Conflict naming the option, NotFound for an unknown network."""
    mode = network_name(host_config.network_mode)
    if mode.startswith("container:"):
        _check_shared(mode, config, host_config)
    elif mode not in _MODES:
        raise NotFound(
            f"network {mode} not found{did_you_mean(mode, _MODES)}: --network takes "
            f"{', '.join(sorted(_MODES))} or container:NAME"
        )
    _check_syntax(config, host_config)
    if mode == DEFAULT_NETWORK:
        return
    for option, value in (("--ip", host_config.ip_address), ("--mac-address", config.mac_address)):
        if value:
            raise InvalidParameter(
                f"{option} : only with network {DEFAULT_NETWORK}, not with {mode}"
            )


def _check_shared(mode: str, config: Config, host_config: HostConfig) -> None:
    """Options that belong to whoever owns the network."""
    if mode == "container:":
        raise InvalidParameter("--network : container:<name or id> needs a name or id")
    owned = (
        ("hostname", config.hostname),
        ("domainname", config.domainname),
        ("dns", host_config.dns or host_config.dns_search or host_config.dns_options),
        ("custom host-to-IP mapping", host_config.extra_hosts),
        ("mac-address", config.mac_address),
        ("port publishing", host_config.port_bindings or host_config.publish_all_ports),
    )
    for option, value in owned:
        if value:
            raise Conflict(f"conflicting options: {option} and the network mode {mode}")


def _check_syntax(config: Config, host_config: HostConfig) -> None:
    if config.mac_address:
        parse_mac(config.mac_address)
    if host_config.ip_address:
        parse_address(host_config.ip_address, "--ip")
    check_servers(host_config.dns, "--dns")
    check_resolver_words(host_config.dns_search, "--dns-search")
    check_resolver_words(host_config.dns_options, "--dns-option")
    for entry in host_config.extra_hosts:
        parse_extra_host(entry)
    for port, bindings in host_config.port_bindings:
        parse_port(port)
        for binding in bindings:
            check_binding(binding)
    for port in config.exposed_ports:
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
