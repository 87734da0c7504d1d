"""Custom seccomp profiles in Docker's JSON form: reading and checking them.

Owns: what a profile may hold. Each refusal is InvalidParameter naming --security-opt, the profile
and the key. Source: moby profiles/seccomp (Seccomp, LoadProfile); OCI runtime-spec config-linux,
"Seccomp"; runc libcontainer/seccomp for what a runtime then refuses.

As Docker does: keys in any case, unknown ones (a comment) passed over, names of calls that nobody
knows too. Other than Docker: an empty profile is refused, where Docker takes it for "unconfined",
and so is a rule without names or an unknown condition, which are but slips of the pen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ...errors import InvalidParameter

KernelVersion = tuple[int, int]

_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP")
)
_NOTIFY = "SCMP_ACT_NOTIFY"
_OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
_ARCH_WORDS = """
    X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32
    PARISC PARISC64 PPC PPC64 PPC64LE RISCV64 S390 S390X SH SHEB"""
_ARCHITECTURES = frozenset(f"SCMP_ARCH_{name}" for name in _ARCH_WORDS.split())
_OURS = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # a container's first process has one thread
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
"""name -> bit of seccomp(2)."""
_CONDITIONS = frozenset(("arches", "caps", "minKernel"))
_KEYS = {
    key.lower(): key
    for key in (
        "defaultAction defaultErrnoRet architectures archMap architecture subArchitectures syscalls"
        " flags listenerPath listenerMetadata names name action errnoRet args comment includes"
        " excludes index value valueTwo op caps arches minKernel"
    ).split()
}
_MAX_ARGUMENT = (1 << 64) - 1
_MAX_DATA = 0xFFFF  # SECCOMP_RET_DATA
_MAX_TEXT = 8 << 20  # characters; a path may lead to /dev/zero


def kernel_version(text: str) -> KernelVersion:
    """(major, minor) of "6.1", "6.18.44-foo"; ValueError for anything else."""
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"not a kernel version: {text!r}")
    return int(found[1]), int(found[2])


def loading_flags(names: Iterable[str]) -> int:
    """A checked profile's `flags` as seccomp(2) takes them."""
    bits = 0
    for name in names:
        bits |= _FLAGS[name]
    return bits


def source_of(profile: str) -> str:
    """How errors name a profile: its path, or "profile" for one that is given as text."""
    return "profile" if profile.lstrip().startswith("{") else profile


def read_profile(profile: str) -> str:
    """A profile's JSON text, from a path or from itself. Raises InvalidParameter."""
    if profile.lstrip().startswith("{"):
        return profile
    try:
        with open(profile, encoding="utf-8") as file:
            text = file.read(_MAX_TEXT + 1)
    except (OSError, UnicodeError, ValueError) as error:
        raise InvalidParameter(
            f"--security-opt seccomp: cannot read {profile}: {error}; accepted: builtin, "
            "unconfined, a profile's path or its JSON"
        ) from error
    if len(text) > _MAX_TEXT:
        raise _invalid(profile, "", f"is longer than {_MAX_TEXT} characters")
    return text


def parse_profile(text: str, source: str = "profile") -> dict[str, Any]:
    """A profile in Docker's JSON form, checked, its keys spelled as documented. `source` names it
    in errors. Raises InvalidParameter."""
    try:
        profile = _spelled(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _invalid(source, "", f"not JSON: {error}") from error
    if not isinstance(profile, dict):
        raise _invalid(source, "", "must be a JSON object")
    _Check(source).profile(profile)
    return profile


def _spelled(value: Any) -> Any:
    """Keys in any case, as Go's decoder takes them."""
    if isinstance(value, dict):
        return {_KEYS.get(key.lower(), key): _spelled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_spelled(inner) for inner in value]
    return value


def _invalid(source: str, key: str, why: str) -> InvalidParameter:
    return InvalidParameter(
        f"--security-opt seccomp: {source}: {key}: {why}"
        if key
        else f"--security-opt seccomp: {source}: {why}"
    )


class _Check:
    """The checks of one profile; `key` is the way to what is checked, as in "syscalls[2].op"."""

    def __init__(self, source: str) -> None:
        self._source = source

    def _refuse(self, key: str, why: str) -> InvalidParameter:
        return _invalid(self._source, key, why)

    def profile(self, profile: dict[str, Any]) -> None:
        if profile.get("listenerPath"):
            raise self._refuse("listenerPath", "there is no agent here that could listen")
        if not profile.get("defaultAction"):
            raise self._refuse("defaultAction", f"is missing; accepted: {_words_of(_ACTIONS)}")
        self._action("defaultAction", profile["defaultAction"])
        self._number("defaultErrnoRet", profile.get("defaultErrnoRet"), _MAX_DATA)
        for index, flag in enumerate(self._words("flags", profile)):
            self._one_of(f"flags[{index}]", flag, _FLAGS)
        self._architectures(profile)
        for index, call in enumerate(self._objects("syscalls", profile)):
            self._call(f"syscalls[{index}]", call)

    def _architectures(self, profile: dict[str, Any]) -> None:
        names = self._words("architectures", profile)
        entries = self._objects("archMap", profile)
        if names and entries:
            raise self._refuse("archMap", "is there beside architectures; one of them is accepted")
        for index, name in enumerate(names):
            self._one_of(f"architectures[{index}]", name, _ARCHITECTURES)
        for index, entry in enumerate(entries):
            key = f"archMap[{index}]"
            others = self._words("subArchitectures", entry, key)
            # The entries of other machines may name what only those know.
            if entry.get("architecture") in _OURS:
                for place, name in enumerate(others):
                    self._one_of(f"{key}.subArchitectures[{place}]", name, _ARCHITECTURES)
            elif not isinstance(entry.get("architecture"), str):
                raise self._refuse(f"{key}.architecture", "must be a string")

    def _call(self, key: str, call: dict[str, Any]) -> None:
        name = call.get("name") or ""
        names = self._words("names", call, key)
        if not isinstance(name, str):
            raise self._refuse(f"{key}.name", "must be a string")
        if name and names:
            raise self._refuse(f"{key}.name", "is there beside names; one of them is accepted")
        if not name and "names" not in call:
            raise self._refuse(key, "has neither names nor name")
        if "" in names:
            raise self._refuse(f"{key}.names", "an empty name")
        self._action(f"{key}.action", call.get("action"))
        self._number(f"{key}.errnoRet", call.get("errnoRet"), _MAX_DATA)
        for index, arg in enumerate(self._objects("args", call, key)):
            self._arg(f"{key}.args[{index}]", arg)
        for side in ("includes", "excludes"):
            self._conditions(f"{key}.{side}", call.get(side))

    def _arg(self, key: str, arg: dict[str, Any]) -> None:
        self._one_of(f"{key}.op", arg.get("op"), _OPERATORS)
        self._number(f"{key}.index", arg.get("index"), 5)
        self._number(f"{key}.value", arg.get("value"), _MAX_ARGUMENT)
        self._number(f"{key}.valueTwo", arg.get("valueTwo"), _MAX_ARGUMENT)

    def _conditions(self, key: str, conditions: Any) -> None:
        if conditions is None:
            return
        if not isinstance(conditions, dict):
            raise self._refuse(key, "must be an object")
        for unknown in sorted(set(conditions) - _CONDITIONS):
            raise self._refuse(f"{key}.{unknown}", f"accepted: {_words_of(_CONDITIONS)}")
        self._words("arches", conditions, key)
        self._words("caps", conditions, key)
        version = conditions.get("minKernel") or "0.0"
        if not isinstance(version, str) or not re.fullmatch(r"\d{1,3}\.\d{1,3}", version):
            raise self._refuse(f"{key}.minKernel", f'{version!r}; must be as in "5.15"')

    def _action(self, key: str, value: object) -> None:
        if value == _NOTIFY:
            raise self._refuse(key, f"{_NOTIFY}: there is no agent here that could answer")
        self._one_of(key, value, _ACTIONS)

    def _one_of(self, key: str, value: object, accepted: Any) -> None:
        if not isinstance(value, str) or value not in accepted:
            raise self._refuse(key, f"{value!r}; accepted: {_words_of(accepted)}")

    def _number(self, key: str, value: object, largest: int) -> None:
        """None is an absent number: 0, or none at all."""
        if value is not None and not (type(value) is int and 0 <= value <= largest):
            raise self._refuse(key, f"{value!r}; must be a number from 0 to {largest}")

    def _list(self, what: str, parent: dict[str, Any], key: str, kind: type) -> list[Any]:
        value = parent.get(what) or []
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self._refuse(
                f"{key}.{what}" if key else what,
                f"must be a list of {'strings' if kind is str else 'objects'}",
            )
        return value

    def _words(self, what: str, parent: dict[str, Any], key: str = "") -> list[str]:
        return self._list(what, parent, key, str)

    def _objects(self, what: str, parent: dict[str, Any], key: str = "") -> list[dict[str, Any]]:
        return self._list(what, parent, key, dict)


def _words_of(accepted: Any) -> str:
    return ", ".join(sorted(accepted))
