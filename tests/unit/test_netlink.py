"""What the kernel says over netlink, parsed: csrc/netlink.c and pynetns/kernel/netlink.py.

Lengths in a message are never believed beyond the bytes that are there.
"""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import KernelError
from pynetns.kernel import netlink
from pynetns.kernel.conntrack import parse_flow
from pynetns.kernel.lib import ffi, lib

CAPPED, TLVS = 0x100, 0x200
ERROR, DONE, NOOP = 3 - 1, 3, 1


def header(kind: int, payload: bytes, *, flags=0, number=7, size: int | None = None) -> bytes:
    return (
        struct.pack("=IHHII", 16 + len(payload) if size is None else size, kind, flags, number, 0)
        + payload
    )


def ack(code: int, tail: bytes = b"", *, flags=CAPPED | TLVS, echoed=16, **fields) -> bytes:
    request = struct.pack("=IHHII", echoed, 16, 5, 7, 0)
    return header(ERROR, struct.pack("=i", code) + request + tail, flags=flags, **fields)


def text(value: bytes, size: int | None = None) -> bytes:
    return (
        struct.pack("=HH", 4 + len(value) if size is None else size, 1)
        + value
        + bytes(-len(value) & 3)
    )


def acks(data: bytes) -> list[tuple[int, int, str]]:
    """Every acknowledgement that C finds in a datagram that ends where its memory does."""
    buffer, at = ffi.new("uint8_t[]", data), ffi.new("uint32_t *")
    one, found = ffi.new("struct pn_nl_ack *"), []
    while (result := lib.pn_nl_next_ack(buffer, len(data), at, one)) == 1:
        found.append((one.seq, one.errnum, ffi.string(one.text).decode("utf-8", "replace")))
        assert at[0] <= len(data)
    assert result in (0, -errno.EBADMSG)
    return found


WORDS = text(b"no such thing\0")
OTHER = struct.pack("=HHI", 8, 2, 99)  # NLMSGERR_ATTR_OFFS


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", []),
        (ack(0), [(7, 0, "")]),
        (ack(-errno.ENODEV, WORDS), [(7, errno.ENODEV, "no such thing")]),
        (ack(-errno.EINVAL, OTHER + WORDS), [(7, errno.EINVAL, "no such thing")]),
        (ack(-errno.EINVAL, b"\1" * 20 + WORDS, flags=TLVS, echoed=36), [(7, errno.EINVAL, "no such thing")]),
        (ack(0) + ack(-errno.EEXIST, number=8), [(7, 0, ""), (8, errno.EEXIST, "")]),
        (header(NOOP, b"") + ack(0), [(7, 0, "")]),
        # a reason without its end, and one longer than we keep
        (ack(-errno.EINVAL, text(b"abcd")), [(7, errno.EINVAL, "abcd")]),
        (ack(-errno.EINVAL, text(b"x" * 400)), [(7, errno.EINVAL, "x" * 127)]),
        # what the kernel never says
        (ack(errno.EINVAL), [(7, errno.EPROTO, "")]),
        (ack(-(2**31)), [(7, errno.EPROTO, "")]),
        # attributes with lengths that cannot be
        *((ack(-1, text(b"words\0", size)), [(7, 1, "")]) for size in (0, 3, 999, 0xFFFF)),
        # the echoed request is longer than all of the message, or shorter than its header
        *((ack(-1, WORDS, flags=TLVS, echoed=echoed), [(7, 1, "")]) for echoed in (0, 15, 37, 4096, 2**32 - 1)),
        # the message is cut off by a small buffer, in its text and in its error
        (ack(-errno.EINVAL, WORDS)[:-8], [(7, errno.EINVAL, "")]),
        (ack(-errno.EINVAL)[:-1], []),
        # lengths that lead backwards, nowhere, or far away
        *((ack(0, size=size) + ack(0), []) for size in (0, 1, 15)),
        (ack(0, size=16) + ack(0, number=9), []),
        (ack(-1, size=2**32 - 1) + WORDS, [(7, 1, "no such thing")]),
        (ack(-1, size=2**31), [(7, 1, "")]),
    ],
)  # fmt: skip
def test_acknowledgements(data, found):
    assert acks(data) == found


@given(st.binary(max_size=200), st.booleans())
def test_no_datagram_is_too_odd_for_c(data, begin_well):
    acks((ack(-1, WORDS) if begin_well else b"") + data)


# ---- in Python ----


@pytest.mark.parametrize("size", [0, 3, 9, 0xFFFF])
def test_attribute_of_impossible_size(size):
    with pytest.raises(KernelError, match="attribute of impossible size"):
        netlink.parse(netlink.attr(5, b"1234") + struct.pack("=HH", size, 1) + b"1234")


def test_attributes():
    data = netlink.attr(5, b"123") + netlink.nest(6, netlink.text(1, "x")) + b"\0\0\0"
    assert netlink.parse(data) == {5: b"123", 6: netlink.text(1, "x")}


@pytest.mark.parametrize("size", [0, 15, 21, 2**32 - 1])
def test_message_of_impossible_size(size):
    with pytest.raises(KernelError, match="message of impossible size"):
        list(netlink.messages(header(16, b"1234", size=size)))


def dumped(*datagrams: bytes | KernelError) -> list[bytes] | None:
    rest = iter(datagrams)

    def receive():
        data = next(rest)
        if isinstance(data, KernelError):
            raise data
        return netlink.messages(data)

    return netlink._dumped(receive, "things")


def one(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return header(kind, payload, number=1, flags=flags)


END = one(DONE, bytes(4))


def test_dump():
    assert dumped(one(20, b"a   ") + one(20, b"b   "), END) == [b"a   ", b"b   "]
    assert dumped(header(20, b"late", number=3) + one(20, b"b   ") + END) == [b"b   "]


def test_torn_dump_is_no_dump():
    assert dumped(one(20, b"a   ", flags=0x10), END) is None
    assert dumped(one(20, b"a   "), one(DONE, struct.pack("=i", -errno.EINTR))) is None
    assert dumped(one(20, b"a   "), KernelError(errno.ENOBUFS, "netlink")) is None


def test_dump_without_its_end_is_an_error():
    with pytest.raises(KernelError) as caught:
        dumped(one(20, b"a   "), KernelError(errno.EAGAIN, "netlink"))
    assert caught.value.errno == errno.EAGAIN
    with pytest.raises(KernelError) as caught:
        dumped(one(ERROR, struct.pack("=i", -errno.EPERM) + bytes(16)))
    assert caught.value.errno == errno.EPERM
    with pytest.raises(KernelError) as caught:
        dumped(one(ERROR, struct.pack("=i", 5) + bytes(16)))
    assert caught.value.errno == errno.EPROTO


def test_a_list_that_never_stops_changing(monkeypatch):
    monkeypatch.setattr(netlink, "_dumped", lambda *_: None)
    with pytest.raises(KernelError) as caught:
        netlink.dump(netlink.ROUTE, 18, bytes(16), "links")
    assert caught.value.errno == errno.EINTR


@given(st.binary(max_size=80))
def test_no_bytes_are_too_odd_for_python(data):
    for parse in (netlink.parse, parse_flow, lambda data: list(netlink.messages(data))):
        try:
            parse(data)
        except KernelError as error:
            assert error.errno == errno.EBADMSG


def test_flow_with_parts_missing():
    udp = netlink.attr(1, b"\x11")
    assert parse_flow(netlink.nest(1, netlink.nest(2, udp))) is None
    assert parse_flow(netlink.nest(1, netlink.nest(2, udp, netlink.attr(3, b"\1")))) is None


def test_loopback_is_found():
    """The real kernel's answers pass."""
    request = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)
    assert any(b"lo\0" in payload for payload in netlink.dump(netlink.ROUTE, 18, request, "links"))
    with pytest.raises(KernelError) as caught:
        netlink.get(netlink.ROUTE, 18, struct.pack("=BBHiII", 0, 0, 0, 2**30, 0, 0), "link")
    assert caught.value.errno == errno.ENODEV
    assert os.strerror(errno.ENODEV) in str(caught.value)
