"""Which of our own system calls a seccomp filter lets through.

Between the filter and execve(2) the child has a few calls left to make. Where a profile allows them
the filter is loaded early, beside other work; where it does not, last of all. Pure: it reads the
OCI block `linux.seccomp`, and in doubt says no. OCI runtime spec config-linux, seccomp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Call = tuple[str, tuple[tuple[int, int], ...]]  # name; (index, value) of arguments that are known

_CLONE_FLAGS = 0x00008000 | 0x00001000  # CLONE_PARENT | CLONE_PIDFD
_ALLOWING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_COMPARE: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_NE": lambda value, one, _: value != one,
    "SCMP_CMP_LT": lambda value, one, _: value < one,
    "SCMP_CMP_LE": lambda value, one, _: value <= one,
    "SCMP_CMP_EQ": lambda value, one, _: value == one,
    "SCMP_CMP_GE": lambda value, one, _: value >= one,
    "SCMP_CMP_GT": lambda value, one, _: value > one,
    "SCMP_CMP_MASKED_EQ": lambda value, one, two: value & one == two,
}


def _calls(*names: str) -> tuple[Call, ...]:
    return tuple((name, ()) for name in names)


# What csrc/child.c does after the filter: wait for its start, report, execute.
INIT = _calls("read", "close", "sendmsg", "execve", "exit_group")
# A process that joins: it forks into the pid namespace, in a session of its own.
JOIN = (
    *_calls("close", "sendmsg", "setsid", "ioctl", "execve", "exit_group"),
    ("clone", ((0, _CLONE_FLAGS),)),
)
# The same into a full container: it joins the cgroups and finds its directory afterwards.
JOIN_CROWDED = (
    *JOIN,
    *_calls("write", "openat", "openat2", "fchdir", "getcwd", "close_range"),
)
JOIN_INIT = (*INIT, *JOIN)  # a container that joins a pid namespace does both
CAPSET = _calls("capset")

# An action that lets a call be made, at least as far as somebody else decides.
_PERHAPS = (*_ALLOWING, "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")

# Answers by the compiled program, which is one object for all containers with a profile, and what
# was asked: nothing of a block is looked at twice.
_known: dict[tuple[bytes, object], bool] = {}
_KNOWN_MAX = 256


def allows(block: Mapping[str, Any], program: bytes, calls: tuple[Call, ...]) -> bool:
    """Whether `block`, compiled to `program`, lets every one of `calls` through."""
    key = (program, calls)
    known = _known.get(key)
    if known is None:
        known = _remember(
            key, all(_allows(block, name, dict(arguments)) for name, arguments in calls)
        )
    return known


def never_allows(block: Mapping[str, Any], program: bytes, name: str) -> bool:
    """Whether `block`, compiled to `program`, refuses the call whatever its arguments are."""
    key = (program, name)
    known = _known.get(key)
    if known is None:
        known = _remember(key, _refuses(block, name))
    return known


def _remember(key: tuple[bytes, object], answer: bool) -> bool:
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    _known[key] = answer
    return answer


def _refuses(block: Mapping[str, Any], name: str) -> bool:
    default = block["defaultAction"]
    rules = [
        rule
        for rule in block.get("syscalls") or ()
        if name in rule["names"] and rule["action"] != default
    ]
    certain = [rule["action"] for rule in rules if not rule.get("args")][:1]  # the first one holds
    return not any(
        action in _PERHAPS for action in certain or [*(rule["action"] for rule in rules), default]
    )


def _allows(block: Mapping[str, Any], name: str, arguments: Mapping[int, int]) -> bool:
    rules = [rule for rule in block.get("syscalls") or () if name in rule["names"]]
    matching = [rule["action"] for rule in rules if _matches(rule, arguments)]
    refusing = [rule for rule in rules if rule["action"] not in _ALLOWING]
    if any(_may_match(rule, arguments) for rule in refusing):
        return False
    return bool(matching) or block["defaultAction"] in _ALLOWING


def _matches(rule: Mapping[str, Any], arguments: Mapping[int, int]) -> bool:
    """Whether the rule applies whatever the unknown arguments are."""
    return all(
        argument["index"] in arguments and _holds(argument, arguments[argument["index"]])
        for argument in rule.get("args") or ()
    )


def _may_match(rule: Mapping[str, Any], arguments: Mapping[int, int]) -> bool:
    """Whether the rule applies for some value of the unknown arguments. One that lists an argument
    twice means any of its conditions (runc does)."""
    indexes = [argument["index"] for argument in rule.get("args") or ()]
    return len(indexes) != len(set(indexes)) or all(
        argument["index"] not in arguments or _holds(argument, arguments[argument["index"]])
        for argument in rule.get("args") or ()
    )


def _holds(argument: Mapping[str, Any], value: int) -> bool:
    compare = _COMPARE[argument["op"]]
    return compare(value, argument["value"], argument.get("valueTwo") or 0)
