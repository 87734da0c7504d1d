"""Published ports as users write them: parsing of `-p`, `--expose` and docker-py's `ports`.

Owns: the syntax and its limits. Pure: whether a port is free is network/ports.py's.
Source: docker/go-connections nat.ParsePortSpec; docker-py's `ports` argument, by its documentation.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidParameter
from .config import PortBinding

PROTOCOLS = ("tcp", "udp")
Bindings = tuple[tuple[str, tuple[PortBinding, ...]], ...]  # as HostConfig.port_bindings


def parse_publish(spec: str) -> Bindings:
    """One `-p`: `[[IP:][HOST]:]CONTAINER[/PROTO]`, HOST and CONTAINER a port or a range "N-M".

    A host range with one container port means its first free port. Raises InvalidParameter.
    """
    address, host, container, proto = _split(spec)
    first, last = _range(container, spec)
    if not host:
        return tuple(
            (f"{port}/{proto}", (PortBinding(address, ""),)) for port in range(first, last + 1)
        )
    host_first, host_last = _range(host, spec)
    if first == last:
        return ((f"{first}/{proto}", (PortBinding(address, host),)),)
    if host_last - host_first != last - first:
        raise _invalid(spec, f"the ranges {host} and {container} differ in length")
    return tuple(
        (f"{first + n}/{proto}", (PortBinding(address, str(host_first + n)),))
        for n in range(last - first + 1)
    )


def parse_publish_all(specs: Iterable[str]) -> Bindings:
    """Every `-p` of a command line, merged by container port."""
    return merge_bindings(binding for spec in specs for binding in parse_publish(spec))


def parse_mapping(ports: Mapping[str | int, Any]) -> Bindings:
    """docker-py's `ports`: `{"80/tcp": 8080 | None | ("127.0.0.1", 8080) | [8080, …]}`."""
    found = []
    for key, value in ports.items():
        port, proto = parse_port(str(key))
        values = value if isinstance(value, list) else [value]
        found.append((f"{port}/{proto}", tuple(_binding(str(key), one) for one in values)))
    return merge_bindings(found)


def parse_expose(spec: str) -> tuple[str, ...]:
    """One `--expose`: a port or range with its protocol, as "80/tcp" each."""
    container, proto = _protocol(spec, spec)
    first, last = _range(container, spec)
    return tuple(f"{port}/{proto}" for port in range(first, last + 1))


def parse_port(spec: str) -> tuple[int, str]:
    """ "80/tcp" or "80" as (80, "tcp")."""
    container, proto = _protocol(spec, spec)
    first, last = _range(container, spec)
    if first != last:
        raise _invalid(spec, "one port is wanted, not a range")
    return first, proto


def parse_host_port(host_port: str) -> tuple[int, int]:
    """PortBinding.host_port as (first, last); (0, 0) for any free port."""
    return _range(host_port, host_port) if host_port not in ("", "0") else (0, 0)


def check_binding(binding: PortBinding) -> None:
    """Raise InvalidParameter when a binding given as data (not as text) is not acceptable."""
    parse_host_port(binding.host_port)
    if binding.host_ip:
        _address(binding.host_ip, binding.host_ip)


def merge_bindings(bindings: Iterable[tuple[str, tuple[PortBinding, ...]]]) -> Bindings:
    """Bindings of the same container port joined, repetitions dropped, order kept."""
    merged: dict[str, dict[PortBinding, None]] = {}
    for port, some in bindings:
        merged.setdefault(port, {}).update(dict.fromkeys(some))
    return tuple((port, tuple(some)) for port, some in merged.items())


def _split(spec: str) -> tuple[str, str, str, str]:
    """(address, host port, container port, protocol) as text."""
    rest, proto = _protocol(spec, spec)
    if rest.startswith("["):
        raise _invalid(spec, "the host address must be IPv4")
    parts = rest.split(":")
    if len(parts) > 3:
        raise _invalid(spec, "the host address must be IPv4")
    container = parts[-1]
    host = parts[-2] if len(parts) > 1 else ""
    if len(parts) == 2 and "." in host:
        raise _invalid(spec, f"an address needs a host port, if an empty one: {host}::{container}")
    address = parts[0] if len(parts) == 3 else ""
    if len(parts) == 3 and address:
        address = _address(address, spec)
    if not container:
        raise _invalid(spec, "the container port is missing")
    return address, host if host != "0" else "", container, proto


def _protocol(text: str, spec: str) -> tuple[str, str]:
    rest, _, proto = text.partition("/")
    proto = proto.lower() or "tcp"
    if proto not in PROTOCOLS:
        raise _invalid(spec, f"the protocol must be one of {', '.join(PROTOCOLS)}")
    return rest, proto


def _range(text: str, spec: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _number(first, spec)
    high = _number(last, spec) if dash else low
    if high < low:
        raise _invalid(spec, f"the range {text} runs backwards")
    return low, high


def _number(text: str, spec: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise _invalid(spec, f"{text!r} is no port number from 1 to 65535")


def _address(text: str, spec: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        raise _invalid(spec, f"the host address must be IPv4, not {text!r}") from None


def _binding(key: str, value: Any) -> PortBinding:
    if isinstance(value, PortBinding):
        binding = value
    elif isinstance(value, tuple) and len(value) in (1, 2):
        binding = PortBinding(str(value[0]), _text(value[1]) if len(value) == 2 else "")
    elif value is None or isinstance(value, int | str):
        binding = PortBinding("", _text(value))
    else:
        raise _invalid(key, f"{value!r} is no host port")
    check_binding(binding)
    return binding


def _text(value: int | str | None) -> str:
    return "" if value is None or value in (0, "0") else str(value)


def _invalid(spec: str, why: str) -> InvalidParameter:
    return InvalidParameter(
        f"invalid port {spec!r}: {why} (form: [[IP:][HOST_PORT]:]CONTAINER_PORT[/tcp|udp])"
    )
