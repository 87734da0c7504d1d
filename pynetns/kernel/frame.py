"""Typed wrapper of csrc/frame.c: one datagram to or from the shim."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import KernelError
from .lib import call, ffi, lib, step_name

HELLO = lib.PN_FRAME_HELLO
SPAWN = lib.PN_FRAME_SPAWN
WAIT = lib.PN_FRAME_WAIT
ATTACH = lib.PN_FRAME_ATTACH
SIGNAL = lib.PN_FRAME_SIGNAL
RESIZE = lib.PN_FRAME_RESIZE
CLOSE_STDIN = lib.PN_FRAME_CLOSE_STDIN
LIST = lib.PN_FRAME_LIST
OK = lib.PN_FRAME_OK
ERROR = lib.PN_FRAME_ERROR
SPAWNED = lib.PN_FRAME_SPAWNED
EXITED = lib.PN_FRAME_EXITED
TASK = lib.PN_FRAME_TASK
FDS = lib.PN_FRAME_FDS
STARTED = lib.PN_FRAME_STARTED
HOME = lib.PN_FRAME_HOME
RECORD = lib.PN_FRAME_RECORD

SPAWN_STDIN = lib.PN_SPAWN_STDIN
SPAWN_STDIN_ONCE = lib.PN_SPAWN_STDIN_ONCE
SPAWN_TTY = lib.PN_SPAWN_TTY
SPAWN_LOG = lib.PN_SPAWN_LOG
SPAWN_RECORD = lib.PN_SPAWN_RECORD
SPAWN_ATTACH_IN = lib.PN_SPAWN_ATTACH_IN
SPAWN_ATTACH_OUT = lib.PN_SPAWN_ATTACH_OUT
SPAWN_ATTACH_ERR = lib.PN_SPAWN_ATTACH_ERR
SPAWN_TRACE = lib.PN_SPAWN_TRACE
SPAWN_MEMFD = lib.PN_SPAWN_MEMFD
SPAWN_DIRECT = lib.PN_SPAWN_DIRECT
SPAWN_CGROUP = lib.PN_SPAWN_CGROUP

LOG_NONE = lib.PN_LOG_NONE
LOG_JSON_FILE = lib.PN_LOG_JSON_FILE
LOG_LOCAL = lib.PN_LOG_LOCAL
LOG_BLOCKING = lib.PN_LOG_BLOCKING
LOG_NON_BLOCKING = lib.PN_LOG_NON_BLOCKING

PROTOCOL = lib.PN_PROTOCOL
FRAME_MAX = lib.PN_FRAME_MAX
FDS_MAX = 253  # SCM_MAX_FD of the kernel


class Frame(NamedTuple):
    """A received frame. `arg` and `value` mean what pynetns.h says for the kind; times in ns."""

    kind: int
    serial: int
    arg: int
    value: int
    received: int
    key: str
    payload: bytes


def send(
    sock: int,
    kind: int,
    *,
    key: str = "",
    serial: int = 0,
    flags: int = 0,
    arg: int = 0,
    hold: int = 0,
    value: int = 0,
    payload: bytes = b"",
    fds: Sequence[int] = (),
) -> None:
    """Send one frame on SOCK_SEQPACKET socket `sock`; descriptors that do not fit into one datagram
    go ahead of it. KernelError EPIPE when the shim is gone, EAGAIN after the socket's time-out."""
    frame = ffi.new("struct pn_frame *")
    frame.serial, frame.key = serial, key.encode()
    at = 0
    while len(fds) - at > FDS_MAX:
        frame.kind = FDS
        call(
            lib.pn_frame_send,
            sock,
            frame,
            b"",
            0,
            ffi.new("int[]", list(fds[at : at + FDS_MAX])),
            FDS_MAX,
        )
        at += FDS_MAX
    frame.kind, frame.flags, frame.arg, frame.hold, frame.value = kind, flags, arg, hold, value
    array = ffi.new("int[]", list(fds[at:])) if fds else ffi.NULL
    call(lib.pn_frame_send, sock, frame, payload, len(payload), array, len(fds) - at)


_new_buffer = ffi.new_allocator(should_clear_after_alloc=False)
_buffers: list[Any] = []  # free ones: zeroing or mapping 128 KiB costs more than the answer


def receive(sock: int) -> Frame:
    """The next frame; waits for it. KernelError EPIPE when the shim is gone, EAGAIN after the
    socket's time-out."""
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = _new_buffer("uint8_t[]", FRAME_MAX)
    try:
        return _receive_into(sock, buffer)
    finally:
        _buffers.append(buffer)


def _receive_into(sock: int, buffer: Any) -> Frame:
    frame = ffi.new("struct pn_frame *")
    nfds = ffi.new("uint32_t *")
    while True:
        try:
            size = call(lib.pn_frame_recv, sock, frame, buffer, FRAME_MAX, ffi.NULL, 0, nfds)
        except KernelError as error:
            if error.errno != errno.EINTR:
                raise
            continue  # a Python signal handler has run; if it raised we are not here
        key = ffi.string(frame.key).decode()
        payload = bytes(ffi.buffer(buffer, size))
        return Frame(frame.kind, frame.serial, frame.arg, frame.value, frame.received, key, payload)


def log_options(
    driver: int,
    name: str,
    *,
    mode: int = LOG_BLOCKING,
    max_size: int = 0,
    max_file: int = 1,
    max_buffer: int = 1 << 20,
) -> bytes:
    """A `struct pn_log_options`: what stands before the plan of a SPAWN with SPAWN_LOG.

    `name`: the log's path below the directory given with it, at most 103 bytes. Sizes in bytes;
    `max_size` 0 is unlimited; `max_file` counts the file being written. ValueError when `name` is too long.
    """
    options = ffi.new("struct pn_log_options *")
    encoded = os.fsencode(name)
    if len(encoded) >= ffi.sizeof(options.name):
        raise ValueError(f"log name too long: {name!r}")
    options.driver, options.mode, options.name = driver, mode, encoded
    options.max_size, options.max_file, options.max_buffer = max_size, max_file, max_buffer
    return bytes(ffi.buffer(options))


def parse_error(payload: bytes) -> KernelError:
    """The KernelError that the payload of an ERROR frame describes."""
    error = ffi.new("struct pn_error *")
    ffi.memmove(error, payload, ffi.sizeof("struct pn_error"))
    detail = ffi.string(error.detail).decode("utf-8", "replace")
    failure = KernelError(error.errnum, step_name(error.step), detail)
    failure.index = error.index
    return failure


def parse_trace(payload: bytes) -> tuple[int, list[int]]:
    """(time of clone, times at which each operation ended) from a SPAWNED frame's payload."""
    trace = ffi.new("struct pn_trace *")
    ffi.memmove(trace, payload, ffi.sizeof("struct pn_trace"))
    return trace.cloned, [trace.end[i] for i in range(trace.count)]


def parse_tasks(payload: bytes) -> list[tuple[str, int]]:
    """(key, pid) of each entry in the payload of a TASK frame."""
    size = ffi.sizeof("struct pn_task_entry")
    entries = ffi.new("struct pn_task_entry[]", len(payload) // size)
    ffi.memmove(entries, payload, len(payload) // size * size)
    return [(ffi.string(entry.key).decode(), entry.pid) for entry in entries]
