"""One member of an archive: its name as bytes, its data, and what a file is besides its data.

Owns: cleaning names, holes, owners, times and extended attributes. Knows nothing of how a place in the
tree is found: that is unpack.py's, which gives a directory's descriptor and a last name.
"""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from typing import Any

Reader = Callable[[int], bytes]

_CHUNK = 1 << 20
_XATTR = "SCHILY.xattr."
_SECONDS = (-(2**31), 2**34)  # what file systems hold


# ---- names ----


def clean(name: bytes) -> tuple[bytes, ...]:
    """The parts of a member's name, "." and ".." resolved. ValueError: it leads out of the root.

    Like docker's filepath.Clean: at the root of an absolute name ".." stays there.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
            elif not name.startswith(b"/"):
                raise ValueError("leads out of the root")
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


def to_path(parts: tuple[bytes, ...]) -> str:
    """Below the root, for a wrapper that takes str; its bytes are the parts'."""
    return os.fsdecode(b"/".join(parts)) or "."


def to_bytes(name: str) -> bytes:
    """As in the archive: tarfile was told "utf-8" and "surrogateescape"."""
    return name.encode("utf-8", "surrogateescape")


def to_text(name: str) -> str:
    """For messages: whole characters, of bounded length."""
    text = to_bytes(name).decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 200 else f"{text[:100]}...{text[-97:]}")


# ---- data and attributes ----


def copy_data(fd: int, size: int, read: Reader) -> None:
    """`size` bytes from `read` to where `fd` is. ValueError: there are fewer."""
    while size > 0:
        data = read(min(size, _CHUNK))
        if not data:
            raise ValueError("is cut off")
        size -= len(data)
        while data:
            data = data[os.write(fd, data) :]


def copy_sparse(fd: int, member: tarfile.TarInfo, read: Reader) -> None:
    """A file with holes. ValueError: its map is none."""
    holes: Any = member.sparse  # pairs; typeshed has it as a number
    end = 0
    for offset, size in holes:
        if size == 0:
            continue  # unused room of the old form, or the end of the file
        if not end <= offset <= offset + size <= member.size:
            raise ValueError("has a map of holes that does not fit it")
        os.lseek(fd, offset, os.SEEK_SET)
        copy_data(fd, size, read)
        end = offset + size
    os.ftruncate(fd, member.size)


def change_time(member: tarfile.TarInfo) -> int:
    """Its time of change in ns since the epoch, within what file systems hold."""
    seconds, nanoseconds = int(member.mtime), 0
    if exact := member.pax_headers.get("mtime"):
        whole, _, fraction = exact.partition(".")
        try:
            seconds, nanoseconds = int(whole), int(fraction[:9].ljust(9, "0"))
        except ValueError:
            pass  # no number: what tarfile makes of it
    low, high = _SECONDS
    return min(max(seconds, low), high) * 10**9 + nanoseconds


def set_time(name: bytes, moment: int, parent: int) -> None:
    """Times of reading and change, in ns since the epoch, of an entry of directory `parent`."""
    os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)


def set_owner_and_times(
    parent: int, name: bytes, member: tarfile.TarInfo, *, owner: bool = True
) -> None:
    """All but the mode, which a link has not; attributes after the owner."""
    if owner:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    set_attributes(parent, name, member)
    set_time(name, change_time(member), parent)


def set_attributes(parent: int, name: bytes, member: tarfile.TarInfo) -> None:
    """Extended attributes, after the owner, whose change takes capabilities away. Overlayfs's own
    would make a layer point elsewhere; what the file system has not, docker leaves out as well."""
    for key, value in member.pax_headers.items():
        if not key.startswith(_XATTR):
            continue
        attribute = key.removeprefix(_XATTR).replace("%3D", "=").replace("%25", "%")
        if attribute.startswith("trusted.overlay."):
            continue
        where = b"/proc/self/fd/%d/%s" % (parent, name)
        try:
            os.setxattr(where, attribute, to_bytes(value), follow_symlinks=False)
        except OSError as error:
            absent = error.errno == errno.EOPNOTSUPP
            no_place = error.errno == errno.EPERM and attribute.startswith("user.")
            if not absent and not no_place:
                raise
