"""One connection to a shim: the descriptor, and what was asked on it last.

Owns: that record, and a socket until it is connected. What is said on it is client.py's, where it leads
connections.py's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from ...forks import Descriptors, note


class Connection(Descriptors):
    """A connection, used by one thread at a time; closed at its end or by `close`. `serial` is that of
    its last request, `run` the one that was begun on it and is not answered."""

    serial = 0
    run = 0

    def fileno(self) -> int:
        return self[0]


class Connecting(socket.socket):
    """A socket, not connected yet."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        note(self)

    def descriptors(self) -> Iterable[int]:
        return (self.fileno(),)
