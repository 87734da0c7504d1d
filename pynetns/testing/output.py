"""What a fake program writes: into its log, and to whoever is attached.

Owns: the sinks of one task, the formats of the log drivers. A log is written as the shim does it, but
never rotated: a fake program says a few words. docs/logging.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time

from ..kernel import frame
from ..model.state import rfc3339
from .plan import LogPlace

_PIPE_SIZE = 1 << 20  # nobody reads while a fake program writes


class Output:
    """The output of one task. `streams`: each stream's descriptors, owned from here on."""

    def __init__(self, streams: dict[str, list[int]], log: int, place: LogPlace | None) -> None:
        self._streams = streams
        self._log_directory = log
        self._place = place
        for fd in (fd for fds in streams.values() for fd in fds):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def write(self, stream: str, data: bytes) -> None:
        """As if the program had written it."""
        for fd in self._streams.get(stream, ()):
            try:
                os.write(fd, data)
            except BrokenPipeError:
                continue  # its reader has gone
        if self._place is not None:
            entry = _WRITERS[self._place.driver]
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            log = os.open(self._place.name, flags, 0o640, dir_fd=self._log_directory)
            try:
                for line in data.splitlines(keepends=True):
                    os.write(log, entry(stream, line, time.time_ns()))
            finally:
                os.close(log)

    def close(self) -> None:
        """The streams have ended. Idempotent."""
        for fds in self._streams.values():
            while fds:
                os.close(fds.pop())
        directory, self._log_directory = self._log_directory, -1
        self._place = None
        if directory >= 0:
            os.close(directory)


def json_entry(stream: str, data: bytes, moment: int) -> bytes:
    """A line of driver json-file."""
    entry = {"log": data.decode("utf-8", "replace"), "stream": stream, "time": rfc3339(moment)}
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def local_entry(stream: str, data: bytes, moment: int) -> bytes:
    """A record of driver local: streams/logs/local.py says what is in it."""
    line = data.removesuffix(b"\n")
    payload = b"\n" + _varint(len(stream)) + stream.encode()
    payload += b"\x10" + _varint(moment) + b"\x1a" + _varint(len(line)) + line
    payload += b"" if data.endswith(b"\n") else b" \x01"  # partial
    return struct.pack(">I", len(payload)) + payload + struct.pack(">I", len(payload))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


_WRITERS = {frame.LOG_JSON_FILE: json_entry, frame.LOG_LOCAL: local_entry}
