"""Host ports: reserving them so that nobody else can take them.

Owns: choosing a host port and holding it with a bound socket, which the shim keeps open while the
container lives; the store's row says whose it is. The socket never listens: the packets are
rewritten by nftables before any socket sees them. Knows nothing of rules. libnetwork portallocator
and portmapper (Map).
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import Conflict, InvalidParameter, System, Unavailable
from ..kernel import Kernel
from ..model.ports import parse_host_port, parse_port
from ..store import PortRow, Store
from .request import ContainerOptions

FIRST_FREE, LAST_FREE = 49153, 65535
ANY = "0.0.0.0"  # every address of the host
_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LOCAL_FIELD, _INODE_FIELD = 1, 9  # of a line of /proc/net/tcp


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One wanted binding: host ports `first` to `last` (0, 0: any free one) of `host_ip`."""

    proto: str
    container_port: int
    host_ip: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reserved:
    """A host port that is ours: `fd` is the bound socket, owned by whoever got this."""

    proto: str
    container_port: int
    host_ip: str
    host_port: int
    fd: int


def port_requests(options: ContainerOptions) -> tuple[PortRequest, ...]:
    """What a container asks for. Definite ports come first, so that none of them is taken by a
    range or an "any free port" of the same container. moby buildCreateEndpointOptions."""
    bindings = dict(options.port_bindings)
    requests = []
    for key in dict.fromkeys((*bindings, *options.exposed_ports)):
        port, proto = parse_port(key)
        bound = bindings.get(key, ())
        for binding in bound:
            first, last = parse_host_port(binding.host_port)
            requests.append(PortRequest(proto, port, binding.host_ip or ANY, first, last))
        if not bound and options.publish_all_ports:
            requests.append(PortRequest(proto, port, ANY, 0, 0))
    return tuple(sorted(requests, key=_urgency))


def _urgency(request: PortRequest) -> tuple[int, int, str]:
    kind = 2 if request.first == 0 else int(request.first != request.last)
    return kind, request.container_port, request.proto


class PortAllocator:
    """Reserves host ports. Thread-safe; other processes are kept off by the sockets themselves."""

    def __init__(self, store: Store, kernel: Kernel) -> None:
        self._store = store
        self._kernel = kernel
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}

    def reserve(
        self, requests: Sequence[PortRequest], held: list[int] | None = None
    ) -> list[Reserved]:
        """Reserve all or none. `held`: gets each socket at the moment it is bound, for an owner who
        closes what is in it whatever happens.

        Raises Conflict (taken: names the address and who holds it), InvalidParameter (no address of
        this machine), Unavailable (no free port, not permitted).
        """
        held = [] if held is None else held
        before = len(held)
        try:
            return [self._reserve(request, held) for request in requests]
        except BaseException:
            while len(held) > before:
                os.close(held.pop())  # in one line: it is in the list, or closed
            raise

    def _reserve(self, request: PortRequest, held: list[int]) -> Reserved:
        if request.first == 0:
            return self._any_free(request, held)
        for port in range(request.first, request.last + 1):
            fd = bind(self._kernel, request, port, held)
            if fd >= 0:
                return Reserved(request.proto, request.container_port, request.host_ip, port, fd)
        if request.first == request.last:
            raise self._taken(request)
        raise Conflict(
            f"all ports are allocated: {request.host_ip}:{request.first}-{request.last}"
            f"/{request.proto}"
        )

    def _any_free(self, request: PortRequest, held: list[int]) -> Reserved:
        """Serially from the last one on, so that a port just given back is not reused at once."""
        with self._lock:
            last = self._last.get(request.proto)
            if last is None:
                last = self._store.highest_port(request.proto, FIRST_FREE, LAST_FREE)
            size = LAST_FREE - FIRST_FREE + 1
            for step in range(1, size + 1):
                port = FIRST_FREE + (last - FIRST_FREE + step) % size
                fd = bind(self._kernel, request, port, held)
                if fd >= 0:
                    self._last[request.proto] = port
                    return Reserved(
                        request.proto, request.container_port, request.host_ip, port, fd
                    )
        raise Unavailable(
            f"no free port from {FIRST_FREE} to {LAST_FREE} on {request.host_ip}: remove containers"
        )

    def _taken(self, request: PortRequest) -> Conflict:
        where = f"{request.host_ip}:{request.first}/{request.proto}"
        name = self._store.port_holder(request.proto, request.first, request.host_ip)
        holder = f"container {name}" if name else find_holder(request.proto, request.first)
        by = f" by {holder}" if holder else ""
        return Conflict(f"port {where} is already in use{by}")


def bind(kernel: Kernel, request: PortRequest, port: int, held: list[int]) -> int:
    """A socket bound to the port, in `held` too; -1 when it is taken."""
    try:
        with kernel.port_bind(_TYPES[request.proto], request.host_ip, port) as sock:
            held.append(sock.detach())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return -1
        raise _bind_error(request, port, error) from error
    return held[-1]


def _bind_error(request: PortRequest, port: int, error: OSError) -> Exception:
    where = f"port {request.host_ip}:{port}/{request.proto}"
    if error.errno == errno.EADDRNOTAVAIL:
        return InvalidParameter(f"{where}: this machine has no address {request.host_ip}")
    if error.errno == errno.EACCES:
        return Unavailable(f"{where}: binding it is not permitted: run as root")
    return System(f"{where}: {error.strerror}")


def port_rows(
    reserved: Sequence[Reserved], container_id: str, endpoint_id: str, container_ip: str
) -> list[PortRow]:
    """The store's rows for reservations."""
    return [
        PortRow(
            r.proto,
            r.host_ip,
            r.host_port,
            container_id,
            endpoint_id,
            container_ip,
            r.container_port,
        )
        for r in reserved
    ]


# ---- who has it? Only asked once a port turned out to be taken. ----


def find_holder(proto: str, port: int) -> str:
    """ "name (pid N)" of a program that listens on the port; "" when it cannot be told (a TCP
    socket that is bound but does not listen is in no table)."""
    inodes = set()
    for table in (proto, f"{proto}6"):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                inodes |= parse_socket_table(file.read(), port)
        except OSError:
            continue
    return _find_process({f"socket:[{inode}]" for inode in inodes})


def parse_socket_table(text: str, port: int) -> set[str]:
    """The inodes of the sockets on a local port, from the text of /proc/net/tcp or udp. proc(5)."""
    inodes = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > _INODE_FIELD and int(fields[_LOCAL_FIELD].rpartition(":")[2], 16) == port:
            inodes.add(fields[_INODE_FIELD])
    return inodes - {"0"}


def _find_process(links: set[str]) -> str:
    if not links:
        return ""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        if any(_read_link(f"/proc/{pid}/fd/{fd}") in links for fd in fds):
            return f"{_program(pid)} (pid {pid})"
    return ""


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _program(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a program"
