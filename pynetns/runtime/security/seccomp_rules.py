"""`linux.seccomp` as tables: what each call of each architecture gets.

Owns: names to numbers, rules to decisions, and which calls are "not there" (ENOSYS) rather than
refused. Turning a table into instructions is seccomp_bpf.py's. Knows nothing of files.
Source: runc libcontainer/seccomp (matchCall, patchbpf); seccomp_rule_add(3); seccomp(2).

A table says what libseccomp's own program for the same profile says; tests/unit/test_seccomp_bpf.py
compares the two on every call. Two things are ours: calls of an ABI that this kernel has not are
refused in one step, and calls newer than the installed libseccomp have numbers.
"""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from .seccomp_names import COMMON, MULTIPLEXED, ONLY

Resolve = Callable[[str, str], int]
"""(architecture, name) -> number; -1 for a name nobody knows, below that for one which this
architecture has not (seccomp_syscall_resolve_name_arch)."""

X32_BIT = 0x40000000
NO_CALL = 0xFFFFFFFF  # what a tracer makes of a call that is to be skipped
WORD = 1 << 32

# Filter return values (uapi/linux/seccomp.h).
KILL_THREAD, KILL_PROCESS, TRAP, ERRNO = 0x00000000, 0x80000000, 0x00030000, 0x00050000
TRACE, LOG, ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
_PLAIN_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
_ACTIONS_WITH_DATA = {"SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_TRACE": TRACE}
ENOSYS = ERRNO | errno.ENOSYS
BAD_ARCHITECTURE = KILL_THREAD

X86_64, X86, X32 = "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"
AARCH64, ARM = "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"
TOKENS = {X86_64: 0xC000003E, X86: 0x40000003, AARCH64: 0xC00000B7, ARM: 0x40000028}
"""AUDIT_ARCH_*; x32 has x86-64's."""
FAMILIES = {X86_64: (X86_64, X86, X32), AARCH64: (AARCH64, ARM)}
"""What a kernel of the first can run at most. No other architecture's number ever arrives."""
_NARROW = frozenset((X86, X32, ARM))  # libseccomp compares the lower half of their arguments


class Unsupported(Exception):
    """A profile that only libseccomp can compile, with the reason."""


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition: argument `index` `op` `value`; `mask` for MASKED_EQ alone."""

    index: int
    op: str
    value: int
    mask: int = 0


Rule = tuple[Compare, ...]
"""All of them must hold."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """`action` if all conditions of any rule hold, else the filter's default."""

    action: int
    rules: tuple[Rule, ...]


Decision = int | Conditional


@dataclass(frozen=True, slots=True)
class Table:
    """One AUDIT_ARCH's calls: decisions from each number up to the next, over all 32 bits."""

    token: int
    pieces: tuple[tuple[int, Decision], ...]


def action_value(name: str, errno_ret: int | None) -> int:
    """An action as the filter's return value. ValueError for one that is not known."""
    if name in _ACTIONS_WITH_DATA:
        return _ACTIONS_WITH_DATA[name] | (errno.EPERM if errno_ret is None else errno_ret)
    if name not in _PLAIN_ACTIONS:
        raise ValueError(name)
    return _PLAIN_ACTIONS[name]


def with_newer_calls(resolve: Resolve) -> Resolve:
    """`resolve`, and our own tables for the names that it has never heard of."""

    def number(arch: str, name: str) -> int:
        found = resolve(arch, name)
        if found != -1:
            return found
        found = ONLY.get(arch, {}).get(name, COMMON.get(name, -1))
        return found | X32_BIT if arch == X32 and found >= 0 else found

    return number


def build_tables(
    oci: dict[str, Any], native: str, runnable: Iterable[str], resolve: Resolve
) -> tuple[int, list[Table]]:
    """(default action, tables, the native one first) of the architectures of the profile that are
    `runnable`. Raises Unsupported."""
    if native not in FAMILIES:
        raise Unsupported(f"no tables for {native}")
    default = action_value(oci["defaultAction"], oci.get("defaultErrnoRet"))
    listed = [arch for arch in FAMILIES[native] if arch == native or arch in oci["architectures"]]
    runnable = {native, *runnable}
    tables = []
    for arch in listed:
        if arch in runnable and arch != X32:
            with_x32 = arch == X86_64 and X32 in listed
            pieces = dict(_pieces(oci, default, arch, with_x32, X32 in runnable, resolve))
            tables.append(Table(TOKENS[arch], tuple(sorted(pieces.items(), key=itemgetter(0)))))
    return default, tables


def _pieces(
    oci: dict[str, Any],
    default: int,
    arch: str,
    with_x32: bool,
    can_x32: bool,
    resolve: Resolve,
) -> Iterator[tuple[int, Decision]]:
    if arch != X86_64:
        yield from _section(oci, default, arch, 0, WORD, resolve)
        return
    yield from _section(oci, default, arch, 0, X32_BIT, resolve)
    unknown = _answers_enosys(oci, default)
    if with_x32 and can_x32:
        yield from _section(oci, default, X32, X32_BIT, WORD, resolve)
    elif with_x32:
        yield X32_BIT, ENOSYS  # the kernel's own answer
        yield NO_CALL, ENOSYS if unknown else default
    elif unknown:
        yield X32_BIT, ENOSYS
    else:
        yield X32_BIT, BAD_ARCHITECTURE
        yield NO_CALL, default


def _section(
    oci: dict[str, Any], default: int, arch: str, start: int, end: int, resolve: Resolve
) -> Iterator[tuple[int, Decision]]:
    """The decisions of one ABI's range of numbers; of two for one number the later counts."""
    calls = _calls(oci, default, arch, resolve)
    yield start, default
    for number in sorted(calls):
        if start <= number < end:
            yield number, calls[number]
            if number + 1 < end and number + 1 not in calls:
                yield number + 1, default
    if _answers_enosys(oci, default):
        last = last_number(oci, arch, resolve)
        yield max(last + 1, start), ENOSYS


def _answers_enosys(oci: dict[str, Any], default: int) -> bool:
    """Whether calls newer than all that the profile knows are "not there". A C library takes EPERM
    for an answer, but falls back on the older call after ENOSYS. Idea: runc patchbpf."""
    return oci["defaultAction"] == "SCMP_ACT_ERRNO" and default != ENOSYS


def last_number(oci: dict[str, Any], arch: str, resolve: Resolve) -> int:
    """The newest call that the profile names."""
    return max(
        (
            number
            for call in oci["syscalls"]
            for name in call["names"]
            for number, _ in _places(arch, name, (), resolve)
        ),
        default=0,
    )


def _calls(oci: dict[str, Any], default: int, arch: str, resolve: Resolve) -> dict[int, Decision]:
    """Number -> decision, as seccomp_rule_add would have it: an unconditional rule makes the
    conditional ones of its call void, and the first of two counts."""
    always: dict[int, int] = {}
    sometimes: dict[int, tuple[int, dict[Rule, None]]] = {}
    for call in oci["syscalls"]:
        action = action_value(call["action"], call.get("errnoRet"))
        if action == default:
            continue
        rules = split_rules(call.get("args") or (), arch)
        for name, rule in itertools.product(call["names"], rules):
            for number, conditions in _places(arch, name, rule, resolve):
                if not conditions:
                    always.setdefault(number, action)
                elif number not in always:
                    known, its = sometimes.setdefault(number, (action, {}))
                    if known != action:
                        raise Unsupported(
                            f"call {number} has conditional rules with different actions"
                        )
                    its[conditions] = None
    conditional = {
        number: Conditional(action, tuple(its))
        for number, (action, its) in sometimes.items()
        if number not in always
    }
    for number, decision in conditional.items():
        if _is_tried_in_part(decision.rules):
            raise Unsupported(f"libseccomp tries the rules of call {number} in part")
    return {**conditional, **always}


def _is_tried_in_part(rules: tuple[Rule, ...]) -> bool:
    """Whether libseccomp may pass over a rule that holds: it goes down one way of a tree and does
    not come back when a rule's second condition fails, or one of two orderings by different upper
    halves. Whoever has such a profile gets what Docker gives."""
    if len(rules) < 2:
        return False
    if any(len(rule) > 1 for rule in rules):
        return True
    uppers: dict[int, set[int]] = {}
    for (one,) in rules:
        uppers.setdefault(one.index, set()).add(one.value >> 32)
    return any(
        one.op in ("LT", "LE", "GT", "GE") and len(uppers[one.index]) > 1 for (one,) in rules
    )


def _places(arch: str, name: str, rule: Rule, resolve: Resolve) -> Iterator[tuple[int, Rule]]:
    """The numbers a rule goes to: none where the architecture has no such call, two for those of
    i386 that exist on their own and through socketcall or ipc. The latter's arguments are behind a
    pointer, out of a filter's reach."""
    number = resolve(arch, name)
    if arch == X86 and name in MULTIPLEXED:
        through, which, number = MULTIPLEXED[name]
        kept = tuple(compare for compare in rule if compare.index != 0)
        yield through, (Compare(0, "EQ", which), *kept)
        if number == 0:
            return
    if number >= 0:
        yield number, rule


def split_rules(args: Iterable[dict[str, Any]], arch: str) -> list[Rule]:
    """One rule with all conditions, or one for each when an argument has several: then any of them
    is enough, as in runc."""
    conditions = tuple(_compare(arg, arch in _NARROW) for arg in args)
    if any(count > 1 for count in Counter(one.index for one in conditions).values()):
        rules: list[Rule] = [(condition,) for condition in conditions]
    else:
        rules = [conditions]
    # A mask without bits is no condition: libseccomp takes such a rule for an unconditional one.
    return [tuple(one for one in rule if one.op != "MASKED_EQ" or one.mask) for rule in rules]


def _compare(arg: dict[str, Any], narrow: bool) -> Compare:
    op = arg["op"].removeprefix("SCMP_CMP_")
    index = arg.get("index") or 0
    value, mask = arg.get("value") or 0, 0
    if op == "MASKED_EQ":
        mask = value
        value = mask & (arg.get("valueTwo") or 0)  # as libseccomp: bits outside never matter
    if narrow:
        value, mask = value % WORD, mask % WORD
    return Compare(index, op, value, mask)
