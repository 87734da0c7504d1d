"""`linux.seccomp` as a BPF program. Imported only when no compiled one is cached.

Owns: which of two ways a profile is compiled. Ours (seccomp_rules.py, seccomp_bpf.py) is smaller
and knows newer calls; libseccomp's is the measure of it, in the tests, and takes what ours does
not know (Unsupported): a call with conditional rules of different actions, or with rules that
libseccomp tries only in part; more than 4096 instructions.
Source: runc libcontainer/seccomp; seccomp(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

from ...errors import InvalidParameter, Unavailable
from .seccomp_bpf import MAX_INSTRUCTIONS, generate
from .seccomp_rules import (
    Resolve,
    Unsupported,
    action_value,
    build_tables,
    last_number,
    with_newer_calls,
)

NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
"""uname's machine -> libseccomp's name."""

_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE
_X32_BIT = 0x40000000
_NO_SYSCALL = -1


def compile_filter(oci: dict[str, Any], runnable: Iterable[str] = ()) -> bytes:
    """The filter as struct sock_filter[], for this machine and those of its other ABIs that are
    `runnable` (seccomp_abi.py). Names that nobody knows are left out, as runc does. Raises
    Unavailable, InvalidParameter."""
    scmp = load_library()
    native = NATIVE[os.uname().machine]
    try:
        return generate(*build_tables(oci, native, runnable, with_newer_calls(resolver(scmp))))
    except Unsupported:
        program = compile_by_libseccomp(scmp, oci, native)
    if len(program) > MAX_INSTRUCTIONS * 8:
        raise InvalidParameter(
            f"--security-opt seccomp: the profile makes {len(program) // 8} instructions; a filter "
            f"has at most {MAX_INSTRUCTIONS}"
        )
    return program


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


def resolver(scmp: ModuleType) -> Resolve:
    """Numbers as this libseccomp knows them."""

    @cache
    def number(arch: str, name: str) -> int:
        return int(scmp.resolve_syscall(_arch(scmp, arch), name))

    return number


def compile_by_libseccomp(scmp: ModuleType, oci: dict[str, Any], native: str) -> bytes:
    """libseccomp's program, with runc's answer to unknown calls before it. Raises
    InvalidParameter."""
    try:
        return _compile(scmp, oci, native)
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidParameter(f"--security-opt seccomp: libseccomp refuses it: {error}") from error


def _arch(scmp: ModuleType, name: str) -> int:
    return int(getattr(scmp.Arch, name.removeprefix("SCMP_ARCH_")))


def _compile(scmp: ModuleType, oci: dict[str, Any], native: str) -> bytes:
    default = action_value(oci["defaultAction"], oci.get("defaultErrnoRet"))
    filter_ = scmp.SyscallFilter(default)
    filter_.set_attr(scmp.Attr.CTL_NNP, 0)
    if oci["syscalls"]:
        _optimize(scmp, filter_)
    names = list(dict.fromkeys((native, *oci["architectures"])))
    arches = [_arch(scmp, name) for name in names]
    for arch in arches:
        if arch != scmp.system_arch():
            filter_.add_arch(arch)
    if scmp.system_arch() not in arches:
        filter_.remove_arch(scmp.system_arch())
    for call in oci["syscalls"]:
        action = action_value(call["action"], call.get("errnoRet"))
        if action == default:
            continue
        for name in call["names"]:
            number = scmp.resolve_syscall(scmp.Arch.NATIVE, name)
            if number != _NO_SYSCALL:
                for args in _conditions(scmp, call.get("args") or ()):
                    filter_.add_rule(action, number, *args)
    program = _export(filter_)
    if oci["defaultAction"] == "SCMP_ACT_ERRNO" and default & 0xFFFF != errno.ENOSYS:
        program = _enosys_prologue(scmp, names, oci) + program
    return program


def _optimize(scmp: ModuleType, filter_: Any) -> None:
    # Not only faster: without the tree libseccomp 2.5.4 forgets to load the number where the first
    # call is one that the architecture has not. Before 2.5 there is no tree.
    with contextlib.suppress(AttributeError, OSError):
        filter_.set_attr(scmp.Attr.CTL_OPTIMIZE, _BINARY_TREE)


def _conditions(scmp: ModuleType, args: Any) -> Iterator[list[Any]]:
    """One rule with all conditions, or, as libseccomp takes an argument only once in a rule, one
    rule each when an argument has several: then any of them is enough, as in runc."""
    made = [
        scmp.Arg(
            arg.get("index") or 0,
            getattr(scmp, arg["op"].removeprefix("SCMP_CMP_")),
            arg.get("value") or 0,
            arg.get("valueTwo") or 0,
        )
        for arg in args
    ]
    indices = [arg.get("index") or 0 for arg in args]
    if len(set(indices)) < len(indices):
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


def _enosys_prologue(scmp: ModuleType, arches: list[str], oci: dict[str, Any]) -> bytes:
    """seccomp_rules.py's ENOSYS, before libseccomp's program. Idea: runc patchbpf."""
    resolve = resolver(scmp)
    last = {_arch(scmp, name): last_number(oci, name, resolve) for name in arches}
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
