"""A device to test the device rules with: one that this machine may open and a container may not."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

# Opening any of these, for reading or for writing, changes nothing.
CANDIDATES = ("/dev/fuse", "/dev/loop-control", "/dev/loop0", "/dev/kmsg", "/dev/vcs", "/dev/zram0")


class Device(NamedTuple):
    """`path` on this machine; `kind` is "c" or "b"."""

    path: str
    kind: str
    major: int
    minor: int


def forbidden_node() -> Device:
    """AssertionError where every candidate is closed to us as well: then a refusal inside would
    show nothing."""
    for path in CANDIDATES:
        if not all(_opens(path, flags) for flags in (os.O_RDONLY, os.O_WRONLY)):
            continue
        info = os.stat(path)
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
        return Device(path, kind, os.major(info.st_rdev), os.minor(info.st_rdev))
    raise AssertionError(f"none of {', '.join(CANDIDATES)} can be opened on this machine")


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def forbidden_device() -> tuple[str, int, int]:
    """("c" or "b", major, minor) of `forbidden_node`."""
    return forbidden_node()[1:]
