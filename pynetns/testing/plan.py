"""Reading a plan: what the process of a spawn would be, from the bytes that the shim is sent.

Owns: taking a plan apart (`struct pn_op`, csrc/pynetns.h). kernel/operations.py puts it together.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..kernel.lib import ffi, lib, step_name

_HEADER = struct.Struct("=IIII4q")
_MOUNTS = {lib.PN_OP_MOUNT: 2, lib.PN_OP_ATTACH: 0}  # which string is the place
_FIRST_FD = 3  # indexes 0 to 2 are stdin, stdout, stderr


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan makes. `steps`: its operations by name. Descriptors are indexes into the table that
    was sent with it, -1 for none: `cgroup` to be born in, `go` to wait for. `mounts`: where something
    is mounted, in order."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: tuple[int, int]
    hostname: str
    cgroup: int
    go: int
    steps: tuple[str, ...]
    mounts: tuple[str, ...] = ()


def operations(plan: bytes) -> Iterator[tuple[int, tuple[int, ...], tuple[str, ...]]]:
    """(code, numbers, strings) of each operation of a plan."""
    at = 0
    while at < len(plan):
        code, count, size, _, *numbers = _HEADER.unpack_from(plan, at)
        payload = plan[at + _HEADER.size : at + _HEADER.size + size]
        strings = tuple(os.fsdecode(one) for one in payload.split(b"\0")[:count])
        yield code, tuple(numbers), strings
        at += (_HEADER.size + size + 7) & ~7


def read_plan(plan: bytes) -> Planned:
    """What the plan makes."""
    found = {code: (numbers, strings) for code, numbers, strings in operations(plan)}
    (candidates, argc, _, _), strings = found[lib.PN_OP_EXEC]
    none: tuple[tuple[int, ...], tuple[str, ...]] = ((-1, -1, -1, -1), ("",))
    user = found.get(lib.PN_OP_USER, ((0, 0), ()))[0]
    return Planned(
        args=strings[candidates : candidates + argc],
        env=strings[candidates + argc :],
        cwd=found.get(lib.PN_OP_CWD, ((), ("/",)))[1][0],
        user=(user[0], user[1]),
        hostname=found.get(lib.PN_OP_HOSTNAME, none)[1][0],
        cgroup=_index(found.get(lib.PN_OP_CLONE, none)[0][1]),
        go=_index(found.get(lib.PN_OP_WAIT, none)[0][0]),
        steps=tuple(step_name(code) for code, _, _ in operations(plan)),
        mounts=tuple(
            strings[_MOUNTS[code]] for code, _, strings in operations(plan) if code in _MOUNTS
        ),
    )


def _index(number: int) -> int:
    return number - _FIRST_FD if number >= _FIRST_FD else -1


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where the output of a task is logged: a path below the directory sent along, and how."""

    driver: int
    name: str


def take_log_options(payload: bytes) -> tuple[LogPlace, bytes]:
    """The log options that stand in front of a plan, and the plan."""
    size = ffi.sizeof("struct pn_log_options")
    options = ffi.new("struct pn_log_options *")
    ffi.memmove(options, payload, size)
    name = os.fsdecode(ffi.string(options.name))
    return LogPlace(options.driver, name), payload[size:]
