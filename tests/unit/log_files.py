"""Logs as the C core writes them, made in Python: the reference that the readers are held against."""

from __future__ import annotations

import json
import struct

SECOND = 1_700_000_000  # 2023-11-14T22:13:20Z


def stamp(offset_ns: int = 0) -> str:
    """SECOND and some nanoseconds (less than 40 s), as text."""
    seconds, nanoseconds = divmod(offset_ns, 10**9)
    return f"2023-11-14T22:13:{20 + seconds:02}.{nanoseconds:09}Z"


_SHORT = {0x22: b'\\"', 0x5C: b"\\\\", 8: b"\\b", 12: b"\\f", 10: b"\\n", 13: b"\\r", 9: b"\\t"}


def json_escape(data: bytes) -> bytes:
    """The inside of a JSON string: what is no UTF-8 becomes an escaped U+FFFD, byte by byte."""
    out = []
    for char in data.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if code in _SHORT:
            out.append(_SHORT[code])
        elif code < 0x20 or code == 0x7F:
            out.append(b"\\u%04x" % code)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(b"\\ufffd")
        else:
            out.append(char.encode())
    return b"".join(out)


def json_line(data: bytes, stream: str = "stdout", offset_ns: int = 0) -> bytes:
    """One entry of a json-file log."""
    head = b'{"log":"' + json_escape(data)
    return head + f'","stream":"{stream}","time":"{stamp(offset_ns)}"}}\n'.encode()


def json_shown(line: bytes) -> tuple[str, bytes] | None:
    """Stream and bytes of a line by Python's JSON parser alone, None for no entry."""
    try:
        document = json.loads(line)
        return document["stream"], document["log"].encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def local_record(
    data: bytes, stream: str = "stdout", offset_ns: int = 0, *, more: bytes = b""
) -> bytes:
    """One entry of a local log. `data` with its newline, or partial without; `more`: other fields."""
    line = data.removesuffix(b"\n")
    payload = b"\n" + varint(len(stream)) + stream.encode()
    payload += b"\x10" + varint(SECOND * 10**9 + offset_ns)
    payload += b"\x1a" + varint(len(line)) + line
    payload += (b"" if data.endswith(b"\n") else b" \x01") + more
    return struct.pack(">I", len(payload)) + payload + struct.pack(">I", len(payload))
