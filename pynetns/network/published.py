"""A published port as a value: what ports lead where.

Owns: the value. Rules (rules.py) and tracked flows (flows.py) are made of it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

ANY = "0.0.0.0"  # every address of the host


class PublishedPort(NamedTuple):
    """A host port and where it leads. `host_ip` "0.0.0.0" is every address of the host."""

    proto: str
    host_ip: str
    host_port: int
    container_ip: str
    container_port: int


class Publishable(Protocol):
    """What the functions take: a PublishedPort, or the store's PortRow."""

    @property
    def proto(self) -> str: ...
    @property
    def host_ip(self) -> str: ...
    @property
    def host_port(self) -> int: ...
    @property
    def container_ip(self) -> str: ...
    @property
    def container_port(self) -> int: ...
