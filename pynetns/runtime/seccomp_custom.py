"""Custom seccomp profiles in Docker's JSON form: reading and checking them.

Owns: what a profile may hold. Each refusal is InvalidParameter naming --security-opt.
Source: moby profiles/seccomp Seccomp type; OCI runtime-spec config-linux, "Seccomp".
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..errors import InvalidParameter

KernelVersion = tuple[int, int]

_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP")
)
_OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
_ARCH_WORDS = """
    X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64
    PPC PPC64 PPC64LE S390 S390X RISCV64"""
_ARCHITECTURES = frozenset(f"SCMP_ARCH_{name}" for name in _ARCH_WORDS.split())
_CONDITIONS = frozenset(("arches", "caps", "minKernel"))
_MAX_ARGUMENT = (1 << 64) - 1
_MAX_ERRNO = 4095


def kernel_version(text: str) -> KernelVersion:
    """(major, minor) of "6.1", "6.18.44-foo"; ValueError for anything else."""
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"not a kernel version: {text!r}")
    return int(found[1]), int(found[2])


def read_profile(profile: str) -> str:
    """A profile's JSON text, from a path or from itself. Raises InvalidParameter."""
    if profile.lstrip().startswith("{"):
        return profile
    try:
        with open(profile, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeError) as error:
        raise _invalid(f"cannot read {profile}: {error}") from error


def parse_profile(text: str) -> dict[str, Any]:
    """A profile in Docker's JSON form, checked. Raises InvalidParameter."""
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise _invalid(f"not JSON: {error}") from error
    if not isinstance(profile, dict):
        raise _invalid("must be a JSON object")
    _check_profile(profile)
    return profile


def _invalid(why: str) -> InvalidParameter:
    return InvalidParameter(f"--security-opt seccomp: {why}")


def _check_profile(profile: dict[str, Any]) -> None:
    if profile.get("flags") or profile.get("listenerPath"):
        raise _invalid("flags and listenerPath are not supported")
    _one_of("defaultAction", profile.get("defaultAction"), _ACTIONS)
    _number("defaultErrnoRet", profile.get("defaultErrnoRet"), _MAX_ERRNO)
    architectures = _words("architectures", profile)
    for entry in _objects("archMap", profile):
        if architectures:
            raise _invalid("has both architectures and archMap; one of them is accepted")
        architectures += [entry.get("architecture", ""), *_words("subArchitectures", entry)]
    for name in architectures:
        _one_of("architecture", name, _ARCHITECTURES)
    for call in _objects("syscalls", profile):
        _check_call(call)


def _check_call(call: dict[str, Any]) -> None:
    name = call.get("name") or ""
    if not isinstance(name, str) or bool(name) == bool(_words("names", call)):
        raise _invalid("each rule takes either name or names")
    _one_of("action", call.get("action"), _ACTIONS)
    _number("errnoRet", call.get("errnoRet"), _MAX_ERRNO)
    for arg in _objects("args", call):
        _one_of("op", arg.get("op"), _OPERATORS)
        _number("index", arg.get("index", -1), 5)
        _number("value", arg.get("value", -1), _MAX_ARGUMENT)
        _number("valueTwo", arg.get("valueTwo"), _MAX_ARGUMENT)
    for side in ("includes", "excludes"):
        for conditions in _objects(side, {side: [call.get(side) or {}]}):
            if not _CONDITIONS.issuperset(conditions):
                raise _invalid(f"{side} takes {', '.join(sorted(_CONDITIONS))}")
            _words("arches", conditions)
            _words("caps", conditions)
            try:
                kernel_version(conditions.get("minKernel") or "0.0")
            except (TypeError, ValueError) as error:
                raise _invalid(f"minKernel: {error}") from error


def _one_of(what: str, value: object, accepted: frozenset[str]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise _invalid(f"{what} {value!r}; accepted: {', '.join(sorted(accepted))}")


def _number(what: str, value: object, largest: int) -> None:
    """None is an absent optional number."""
    if value is not None and not (type(value) is int and 0 <= value <= largest):
        raise _invalid(f"{what} {value!r}; must be a number from 0 to {largest}")


def _list(what: str, parent: dict[str, Any], kind: type) -> list[Any]:
    value = parent.get(what) or []
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise _invalid(f"{what} must be a list of {'strings' if kind is str else 'objects'}")
    return value


def _words(what: str, parent: dict[str, Any]) -> list[str]:
    return list(_list(what, parent, str))


def _objects(what: str, parent: dict[str, Any]) -> list[dict[str, Any]]:
    return _list(what, parent, dict)
