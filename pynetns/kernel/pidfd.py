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

_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_INFO = struct.Struct("=QQ11Ii")  # struct pidfd_info up to exit_code
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO
_TICKS_FIELD, _EXIT_FIELD = 19, 49  # of /proc/<pid>/stat after the name: numbers 22 and 52 there
_REAPED_MS = 1000  # how long the one who has to may take to reap it


def stat_fields(pid: int) -> list[bytes]:
    """/proc/<pid>/stat after the name, which may hold anything, also ")"; [] when there is no such
    process. OSError when it cannot be read. proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


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


def exit_code(pidfd: int, pid: int, start_ticks: int) -> int | None:
    """The exit code of an ended process (128 + n after signal n) that somebody else reaps, `pid` and
    `start_ticks` being its own; None where the kernel does not tell (reaped, before Linux 6.15)."""
    status = _zombie_status(pid, start_ticks)
    if status is None:
        status = _kept_status(pidfd)
    if status is None:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _zombie_status(pid: int, start_ticks: int) -> int | None:
    """As proc(5) shows it until the process is reaped."""
    fields = stat_fields(pid)
    if len(fields) <= _EXIT_FIELD or int(fields[_TICKS_FIELD]) != start_ticks:
        return None
    return int(fields[_EXIT_FIELD]) if fields[0] == b"Z" else None


def _kept_status(pidfd: int) -> int | None:
    """As the kernel keeps it with a pidfd once the process is reaped (PIDFD_INFO_EXIT)."""
    reaped = select.poll()
    reaped.register(pidfd, 0)  # for POLLHUP
    reaped.poll(_REAPED_MS)
    buffer = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = _INFO.unpack(buffer)
    return int(status) if mask & _INFO_EXIT else None
