"""`linux.seccomp` as a BPF program, by libseccomp. Imported only when no compiled one is cached.

Owns: the translation and the ENOSYS prologue. Source: runc libcontainer/seccomp; seccomp(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ..errors import InvalidParameter, Unavailable

_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE
_X32_BIT = 0x40000000
_NO_SYSCALL = -1
_ACTION_ERRNO, _ACTION_TRACE = "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"


def compile_filter(oci: dict[str, Any]) -> bytes:
    """The filter as struct sock_filter[]. Names that this libseccomp or architecture does not have
    are left out, as runc does. Raises Unavailable, InvalidParameter."""
    scmp = load_library()
    try:
        return _compile(scmp, oci)
    except OSError as error:
        raise InvalidParameter(f"--security-opt seccomp: libseccomp refuses it: {error}") from error


def load_library() -> ModuleType:
    """pyseccomp with libseccomp behind it; Unavailable with the remedy."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise Unavailable(
            f"libseccomp is not usable ({error}): install libseccomp2 (Debian, Ubuntu) or "
            "libseccomp (Fedora, Arch, Alpine) and the Python package pyseccomp, or start the "
            "container with --security-opt seccomp=unconfined"
        ) from error
    module: ModuleType = pyseccomp
    return module


def _compile(scmp: ModuleType, oci: dict[str, Any]) -> bytes:
    default = oci["defaultAction"], oci.get("defaultErrnoRet")
    filter_ = scmp.SyscallFilter(_action(scmp, *default))
    filter_.set_attr(scmp.Attr.CTL_NNP, 0)
    _optimize(scmp, filter_)
    arches = [getattr(scmp.Arch, name.removeprefix("SCMP_ARCH_")) for name in oci["architectures"]]
    native = scmp.system_arch()
    for arch in arches:
        if arch != native:
            filter_.add_arch(arch)
    default_action = _action(scmp, *default)
    for call in oci["syscalls"]:
        action = _action(scmp, call["action"], call.get("errnoRet"))
        if action == default_action:
            continue
        for name in call["names"]:
            number = scmp.resolve_syscall(scmp.Arch.NATIVE, name)
            if number != _NO_SYSCALL:
                for args in _conditions(scmp, call.get("args") or ()):
                    filter_.add_rule(action, number, *args)
    program = _export(filter_)
    if default[0] == _ACTION_ERRNO and default[1] != errno.ENOSYS:
        program = _enosys_prologue(scmp, arches or [native], oci) + program
    return program


def _optimize(scmp: ModuleType, filter_: Any) -> None:
    # Before libseccomp 2.5 the same filter, only slower.
    with contextlib.suppress(AttributeError, OSError):
        filter_.set_attr(scmp.Attr.CTL_OPTIMIZE, _BINARY_TREE)


def _action(scmp: ModuleType, name: str, errno_ret: int | None) -> int:
    if name == _ACTION_ERRNO:
        return int(scmp.ERRNO(errno.EPERM if errno_ret is None else errno_ret))
    if name == _ACTION_TRACE:
        return int(scmp.TRACE(errno.EPERM if errno_ret is None else errno_ret))
    return int(getattr(scmp, name.removeprefix("SCMP_ACT_")))


def _conditions(scmp: ModuleType, args: Any) -> Iterator[list[Any]]:
    """One rule with all conditions, or, as libseccomp takes an argument only once in a rule, one
    rule each when an argument has several: then any of them is enough, as in runc."""
    made = [
        scmp.Arg(
            arg["index"],
            getattr(scmp, arg["op"].removeprefix("SCMP_CMP_")),
            arg["value"],
            arg.get("valueTwo") or 0,
        )
        for arg in args
    ]
    if any(count > 1 for count in Counter(arg["index"] for arg in args).values()):
        yield from ([arg] for arg in made)
    else:
        yield made


def _export(filter_: Any) -> bytes:
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()


# struct sock_filter: code, jump if true, jump if false, operand (linux/filter.h)
_LOAD, _JUMP, _JUMP_EQ, _JUMP_GT, _JUMP_GE, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06
_DATA_NR, _DATA_ARCH = 0, 4  # offsets in struct seccomp_data
_RET_ENOSYS = 0x00050000 | errno.ENOSYS


def _enosys_prologue(scmp: ModuleType, arches: list[int], oci: dict[str, Any]) -> bytes:
    """Answers ENOSYS to system calls newer than all that the profile knows. A C library takes EPERM
    for an answer, but falls back on the older call after ENOSYS. Idea: runc patchbpf."""
    last = {arch: _last_syscall(scmp, arch, oci) for arch in arches}
    x32 = last.pop(scmp.Arch.X32, 0)
    sections = [
        (arch, _section(number, x32 if arch == scmp.Arch.X86_64 else 0))
        for arch, number in last.items()
    ]
    left = sum(len(section) + 2 for _, section in sections)
    program = [(_LOAD, 0, 0, _DATA_ARCH)]
    for arch, section in sections:
        left -= len(section) + 2
        program.append((_JUMP_EQ, 0, len(section) + 1, arch))
        program += section
        program.append((_JUMP, 0, 0, left))  # past the other sections, into libseccomp's filter
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _section(last: int, last_x32: int) -> list[tuple[int, int, int, int]]:
    if not last_x32:
        return [(_LOAD, 0, 0, _DATA_NR), (_JUMP_GT, 0, 1, last), (_RETURN, 0, 0, _RET_ENOSYS)]
    # x32 has x86-64's architecture number and a bit in the call's.
    return [
        (_LOAD, 0, 0, _DATA_NR),
        (_JUMP_GE, 1, 0, _X32_BIT),
        (_JUMP_GT, 1, 2, last),
        (_JUMP_GT, 0, 1, last_x32),
        (_RETURN, 0, 0, _RET_ENOSYS),
    ]


def _last_syscall(scmp: ModuleType, arch: int, oci: dict[str, Any]) -> int:
    numbers = (
        scmp.resolve_syscall(arch, name) for call in oci["syscalls"] for name in call["names"]
    )
    return max(numbers, default=0)
