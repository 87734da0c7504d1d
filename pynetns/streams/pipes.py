"""Pipes between a program and whoever reads its output.

Owns: what is asked of a pipe beyond reading it. Knows nothing of programs.
"""

from __future__ import annotations

import fcntl
import struct
import termios

# Seconds for which what others hold of a program's pipes is still read after its end: long enough for
# the last member of a pipeline, too short to be felt.
DRAIN = 0.1


def unread(fd: int) -> int:
    """How many bytes wait in the pipe `fd`. Once its writer has ended whatever it had to say is among
    them: others that hold the pipe (its background jobs) may write for ever."""
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    return count
