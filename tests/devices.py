"""A device to test the device rules with: one that this machine may open and a container may not."""

from __future__ import annotations

import os
import stat

# Opening any of these for reading changes nothing.
CANDIDATES = ("/dev/fuse", "/dev/loop-control", "/dev/loop0", "/dev/kmsg", "/dev/vcs", "/dev/zram0")


def forbidden_device() -> tuple[str, int, int]:
    """("c" or "b", major, minor). AssertionError where every candidate is closed to us as well:
    then a refusal inside would show nothing."""
    for path in CANDIDATES:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            continue
        info = os.stat(path)
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
        return kind, os.major(info.st_rdev), os.minor(info.st_rdev)
    raise AssertionError(f"none of {', '.join(CANDIDATES)} can be opened on this machine")
