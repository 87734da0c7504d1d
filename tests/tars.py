"""Archives for tests, as bytes."""

from __future__ import annotations

import io
import os
import tarfile


def member(name: str, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid = len(data), os.getuid(), os.getgid()
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def make_tar(*members, format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, data)
    return buffer.getvalue()


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def block(name: bytes, kind: bytes, size: int = 0, **fields: bytes) -> bytes:
    """One ustar header, written by hand: also what tarfile would not write. `fields` are raw."""
    raw = bytearray(512)
    parts = {
        "name": (0, name), "mode": (100, b"0000755\0" if kind == b"5" else b"0000644\0"), "uid": (108, b"%07o\0" % os.getuid()),
        "gid": (116, b"%07o\0" % os.getgid()), "raw_size": (124, b"%011o\0" % size),
        "mtime": (136, b"%011o\0" % 1000), "kind": (156, kind), "link": (157, b""),
        "magic": (257, b"ustar\x0000"), "major": (329, b""), "minor": (337, b""),
    }  # fmt: skip
    for key, (offset, value) in parts.items():
        value = fields.get(key, value)
        raw[offset : offset + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    """An extended header. Keys have "__" for "."."""
    body = b""
    for key, value in records.items():
        line = b" %s=%s\n" % (key.replace("__", ".").encode(), value)
        size = len(line) + 1
        while size != len(line) + len(str(size)):
            size = len(line) + len(str(size))
        body += b"%d%s" % (size, line)
    return block(b"PaxHeaders/x", b"x", len(body)) + padded(body)


END = bytes(1024)
