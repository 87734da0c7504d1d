"""Device rules of a container: a BPF program for v2, lines for devices.allow/deny for v1; pure.

Owns: what a list of rules means, and its two forms. The last rule that speaks of a device and a
kind of access decides on it; what no rule speaks of is denied. A request is allowed when every
kind of access in it is. OCI runtime-spec config-linux, "Allowed Device list"; kernel struct
bpf_cgroup_dev_ctx.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...errors import InvalidParameter

Rule = Mapping[str, Any]

_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_ALL = 7

# What every container's own set-up needs, whatever its rules: making nodes (opening one is another
# matter), /dev/full, and terminals. The list that the OCI runtimes append.
RUNTIME_RULES: tuple[Rule, ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)

# struct bpf_insn: opcode, destination and source register, offset, immediate
_INSN = struct.Struct("<BBhi")
_LDX_W = 0x61  # r[dst] = *(u32 *)(r[src] + off)
_MOV_REG = 0xBF
_MOV_IMM = 0xB7
_AND_IMM = 0x57
_RSH_IMM = 0x77
_JA = 0x05
_JEQ_IMM = 0x15
_JNE_IMM = 0x55
_JSET_IMM = 0x45
_EXIT = 0x95
_TYPE, _LEFT, _MAJOR, _MINOR = 2, 3, 4, 5  # registers; _LEFT: kinds of access not yet decided on


def _insn(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return _INSN.pack(opcode, dst | src << 4, off, imm)


_ALLOW = _insn(_MOV_IMM, 0, imm=1) + _insn(_EXIT)
_DENY = _insn(_MOV_IMM, 0, imm=0) + _insn(_EXIT)
_PROLOGUE = (
    _insn(_LDX_W, _TYPE, 1, 0)  # access << 16 | type
    + _insn(_MOV_REG, _LEFT, _TYPE)
    + _insn(_AND_IMM, _TYPE, imm=0xFFFF)
    + _insn(_RSH_IMM, _LEFT, imm=16)
    + _insn(_LDX_W, _MAJOR, 1, 4)
    + _insn(_LDX_W, _MINOR, 1, 8)
    + _insn(_JNE_IMM, _LEFT, off=2, imm=0)
    + _ALLOW
)


def access_bits(rule: Rule) -> int:
    """The rule's access letters as BPF_DEVCG_ACC_* bits; absent means all."""
    letters = rule.get("access") or "rwm"
    if not set(letters) <= set(_ACCESS):
        raise InvalidParameter(f"device rule: access {letters!r}: must be of r, w, m")
    return sum(_ACCESS[letter] for letter in set(letters))


def _conditions(rule: Rule) -> Iterator[tuple[int, int]]:
    """(register, value) pairs that must be equal for the rule to speak of a device."""
    kind = rule.get("type") or "a"
    if kind != "a":
        if kind not in ("b", "c", "u"):
            raise InvalidParameter(f"device rule: type {kind!r}: must be a, b, c or u")
        yield _TYPE, _TYPES["c" if kind == "u" else kind]
    for register, key in ((_MAJOR, "major"), (_MINOR, "minor")):
        number = rule.get(key)
        if number is not None and number >= 0:
            if number >= 1 << 31:
                raise InvalidParameter(f"device rule: {key} {number}: out of range")
            yield register, number


def _verdict(rule: Rule) -> bytes:
    """What to do when a rule speaks of the device; falls through when it leaves something open."""
    bits = access_bits(rule)
    if bits == _ALL:
        return _ALLOW if rule["allow"] else _DENY
    if rule["allow"]:
        return (
            _insn(_AND_IMM, _LEFT, imm=_ALL & ~bits) + _insn(_JNE_IMM, _LEFT, off=2, imm=0) + _ALLOW
        )
    return _insn(_JSET_IMM, _LEFT, off=1, imm=bits) + _insn(_JA, off=2) + _DENY


def assemble(rules: Iterable[Rule]) -> bytes:
    """A BPF_PROG_TYPE_CGROUP_DEVICE program, 8 bytes an instruction. Raises InvalidParameter."""
    program = [_PROLOGUE]
    for rule in reversed([*rules, *RUNTIME_RULES]):
        conditions, verdict = list(_conditions(rule)), _verdict(rule)
        for position, (register, value) in enumerate(conditions):
            rest = len(conditions) - position - 1 + len(verdict) // _INSN.size
            program.append(_insn(_JNE_IMM, register, off=rest, imm=value))
        program.append(verdict)
        if not conditions and access_bits(rule) == _ALL:
            return b"".join(program)  # the verifier refuses what nothing leads to
    return b"".join([*program, _DENY])


def v1_lines(rules: Iterable[Rule]) -> list[tuple[str, str]]:
    """(file, line) pairs for a cgroup of the v1 devices hierarchy, in order."""
    lines = [("devices.deny", "a")]
    for rule in [*rules, *RUNTIME_RULES]:
        dict(_conditions(rule))  # refuses what is not well-formed
        access_bits(rule)
        kind = (rule.get("type") or "a").replace("u", "c")
        numbers = [rule.get(key) for key in ("major", "minor")]
        place = ":".join("*" if n is None or n < 0 else str(n) for n in numbers)
        file = "devices.allow" if rule["allow"] else "devices.deny"
        if kind == "a" and place == "*:*" and access_bits(rule) == _ALL:
            lines = [(file, "a")]
            continue
        for letter in "bc" if kind == "a" else kind:
            lines.append((file, f"{letter} {place} {rule.get('access') or 'rwm'}"))
    return lines
