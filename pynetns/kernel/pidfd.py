"""What can be done with a process by its descriptor, whatever became of its number.

Owns: signals, waiting, the exit status of a process that is nobody's child of ours. How a descriptor
of the right process is had is process.py's. pidfd_open(2), ioctl_pidfd(2).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
from contextlib import suppress

_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_INFO = struct.Struct("=QQ11Ii")  # struct pidfd_info up to exit_code
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO
_REAPED_MS = 1000  # how long the one who has to may take to reap it


def ended(pidfd: int, timeout: float | None) -> bool:
    """Wait until the process has ended, at most `timeout` seconds (None: for ever); whether it has."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999))))


def send_signal(pidfd: int, number: int) -> bool:
    """Send a signal; False when the process has ended."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def exit_code(pidfd: int) -> int | None:
    """The exit code of an ended process (128 + n after signal n), whoever reaps it; None where the
    kernel does not tell (before Linux 6.15, or not reaped within a second)."""
    reaped = select.poll()
    reaped.register(pidfd, 0)  # POLLHUP: it has been reaped, its status is kept with the descriptor
    reaped.poll(_REAPED_MS)
    buffer = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    with suppress(OSError):
        fcntl.ioctl(pidfd, _GET_INFO, buffer)
        mask, status = _INFO.unpack(buffer)[0], _INFO.unpack(buffer)[-1]
        if mask & _INFO_EXIT:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
    return None
