"""Netlink from Python, as little as the network layer needs: attributes, requests, answers.

Owns: bytes, and one socket per request. Knows no protocol. What a start does with links is in C;
this is for rules and for looking around, where importing something large would cost more than the
work. Source: netlink(7), Linux include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ..errors import KernelError

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
ROUTE, NETFILTER = 0, 12  # protocols
_DUMP_INTERRUPTED = 0x10
_DUMP_TRIES = 64
_ANSWER_MAX = 1 << 17
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_SO_SNDBUFFORCE = 32
_DEFAULT_SNDBUF = 100_000  # below what any machine gives a socket
_HEADER = struct.Struct("=IHHII")


class Answer(NamedTuple):
    """One message from the kernel, without its header."""

    kind: int
    flags: int
    number: int
    payload: bytes

    @property
    def errno(self) -> int:
        """The code in an ERROR or DONE message; 0 is success. The kernel's are -1 to -4095."""
        code = int(struct.unpack_from("=i", self.payload)[0]) if len(self.payload) >= 4 else 0
        return -code if -4096 < code <= 0 else errno.EPROTO


# ---- attributes ----


def attr(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = len(value) + 4
    return struct.pack("=HH", size, kind) + value + bytes(-size & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | 0x8000, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attr(kind, value.encode() + b"\0")


def parse(data: bytes) -> dict[int, bytes]:
    """Attributes by their kind."""
    return dict(attributes(data))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Attributes as (kind, value), in order. KernelError EBADMSG: a length that cannot be."""
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if not 4 <= size <= len(data) - at:
            raise _malformed("attribute")
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += (size + 3) & ~3


def string(value: bytes) -> str:
    """The text of a NUL-terminated attribute."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


# ---- messages ----


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """One request; `body` begins with the protocol's own fixed part."""
    return _HEADER.pack(16 + len(body), kind, flags | REQUEST, number, 0) + body


def open_socket(protocol: int) -> socket.socket:
    """A netlink socket in the calling thread's network namespace. KernelError."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise _failed(error, "socket") from error
    sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)  # no copy of the request in answers
    return sock


def send(sock: socket.socket, data: bytes) -> None:
    """Send requests; the kernel has executed them when this returns. KernelError."""
    try:
        if len(data) > _DEFAULT_SNDBUF:
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data))
        sock.sendto(data, (0, 0))
    except OSError as error:
        raise _failed(error, "send") from error


def receive(sock: socket.socket) -> list[Answer]:
    """The next answers. They exist since the request was sent: KernelError when there are none.

    What another process sent here (root may) is no answer.
    """
    while True:
        try:
            data, _, flags, sender = sock.recvmsg(_ANSWER_MAX, 0, socket.MSG_DONTWAIT)
        except OSError as error:
            raise _failed(error, "answer") from error
        if flags & socket.MSG_TRUNC:
            raise _malformed("answer")
        if sender[0] == 0:
            return list(messages(data))


def messages(data: bytes) -> Iterator[Answer]:
    """The messages of one datagram. KernelError EBADMSG: a length that cannot be."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, number, _ = _HEADER.unpack_from(data, at)
        if not 16 <= size <= len(data) - at:
            raise _malformed("message")
        yield Answer(kind, flags, number, data[at + 16 : at + size])
        at += (size + 3) & ~3


def _malformed(what: str) -> KernelError:
    return KernelError(errno.EBADMSG, "netlink", f"{what} of impossible size")


def _failed(error: OSError, detail: str) -> KernelError:
    return KernelError(error.errno or errno.EIO, "netlink", detail)


def get(protocol: int, kind: int, body: bytes, detail: str) -> bytes:
    """The one object a GET request names. KernelError with `detail`."""
    with open_socket(protocol) as sock:
        send(sock, message(kind, 0, 1, body))
        answer = answer_to(sock, 1)
    if answer.kind == ERROR:
        raise KernelError(answer.errno, "netlink", detail)
    return answer.payload


def answer_to(sock: socket.socket, number: int) -> Answer:
    """The first answer to request `number`. KernelError when there is none."""
    while True:
        for answer in receive(sock):
            if answer.number == number:
                return answer


def dump(protocol: int, kind: int, body: bytes, detail: str) -> list[bytes]:
    """Every object a GET request lists, asked again while they change. KernelError, EINTR where they
    never stop."""
    for _ in range(_DUMP_TRIES):
        with open_socket(protocol) as sock:
            send(sock, message(kind, DUMP, 1, body))
            found = _dumped(lambda: receive(sock), detail)
        if found is not None:
            return found
    raise KernelError(errno.EINTR, "netlink", detail)


def _dumped(receive_some: Callable[[], Iterable[Answer]], detail: str) -> list[bytes] | None:
    """None when the list may be torn: things changed meanwhile, or a part did not fit the socket.

    A list without its end is a KernelError of `receive_some`, never a short list.
    """
    found: list[bytes] = []
    torn = False
    while True:
        try:
            answers = receive_some()
        except KernelError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise
        for answer in answers:
            if answer.number != 1:
                continue
            torn = torn or bool(answer.flags & _DUMP_INTERRUPTED)
            if answer.kind in (ERROR, DONE):
                if answer.errno not in (0, errno.EINTR):
                    raise KernelError(answer.errno, "netlink", detail)
                return None if torn or answer.errno else found
            found.append(answer.payload)
