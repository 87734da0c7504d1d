"""OCI mount options as the kernel's flags. One table; what is not in it is file system data.

Source: OCI runtime spec config-linux, mount(8), mount(2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

# option -> (MS_* bit, MOUNT_ATTR_* bit of mount_setattr(2), set or clear)
_FLAGS: dict[str, tuple[int, int, bool]] = {
    "ro": (MS_RDONLY, 0x1, True),
    "rw": (MS_RDONLY, 0x1, False),
    "nosuid": (MS_NOSUID, 0x2, True),
    "suid": (MS_NOSUID, 0x2, False),
    "nodev": (MS_NODEV, 0x4, True),
    "dev": (MS_NODEV, 0x4, False),
    "noexec": (MS_NOEXEC, 0x8, True),
    "exec": (MS_NOEXEC, 0x8, False),
    "sync": (MS_SYNCHRONOUS, 0, True),
    "async": (MS_SYNCHRONOUS, 0, False),
    "dirsync": (MS_DIRSYNC, 0, True),
    "noatime": (MS_NOATIME, 0x10, True),
    "atime": (MS_NOATIME, 0x10, False),
    "strictatime": (MS_STRICTATIME, 0x20, True),
    "nostrictatime": (MS_STRICTATIME, 0x20, False),
    "relatime": (MS_RELATIME, 0, True),
    "norelatime": (MS_RELATIME, 0, False),
    "nodiratime": (MS_NODIRATIME, 0x80, True),
    "diratime": (MS_NODIRATIME, 0x80, False),
    "defaults": (0, 0, True),
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE,
    "shared": MS_SHARED,
    "rshared": MS_SHARED,
}
_BIND = {"bind": False, "rbind": True}
FLAGS_OF_BINDS = frozenset(
    [*_PROPAGATION, *_BIND, "defaults"]
    + [word for word, (_, attr, on) in _FLAGS.items() if attr or not on or word == "relatime"]
)
"""The options that say something about a bind mount, or ask for what it is anyway."""


class MountOptions(NamedTuple):
    """`flags` MS_*, `attr` MOUNT_ATTR_*, `propagation` one MS_* or 0, `data` the rest."""

    flags: int
    attr: int
    propagation: int
    recursive: bool
    data: str


def parse_options(options: Iterable[str]) -> MountOptions:
    """Split OCI mount options."""
    flags = attr = propagation = 0
    recursive = False
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            ms, bit, on = _FLAGS[option]
            flags, attr = (flags | ms, attr | bit) if on else (flags & ~ms, attr & ~bit)
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        elif option in _BIND:
            recursive = _BIND[option]
        else:
            data.append(option)
    return MountOptions(flags, attr, propagation, recursive, ",".join(data))
