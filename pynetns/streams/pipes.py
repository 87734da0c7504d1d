"""Pipes between a program and whoever reads its output.

Owns: what is asked of a pipe beyond reading it. Knows nothing of programs.
"""

from __future__ import annotations

import fcntl
import struct
import termios


def unread(fd: int) -> int:
    """How many bytes wait in the pipe `fd`. At the moment its writer has ended that is exactly what
    it still has to say: others that hold the pipe (its background jobs) may write for ever."""
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count
