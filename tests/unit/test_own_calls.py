"""runtime/security/own_calls.py: which of the child's last calls a profile lets through."""

from __future__ import annotations

import itertools

import pytest

from pynetns.runtime.security import own_calls
from pynetns.runtime.security.own_calls import allows
from pynetns.runtime.security.seccomp import container_seccomp

_serial = itertools.count()


def ask(rules, calls, default="SCMP_ACT_ERRNO") -> bool:
    """`allows` on a block of its own: answers are remembered by the compiled program."""
    block = {"defaultAction": default, "syscalls": rules}
    return allows(block, str(next(_serial)).encode(), calls)


def rule(*names, action="SCMP_ACT_ALLOW", **more):
    return {"names": list(names), "action": action, **more}


READ = (("read", ()),)
CLONE = (("clone", ((0, 0x9000),)),)
MASKED = {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}


@pytest.mark.parametrize("calls", [own_calls.INIT, own_calls.JOIN, own_calls.JOIN_CROWDED])
def test_the_default_profile_allows_all(calls):
    block = container_seccomp((), ("CAP_CHOWN",), False)
    assert allows(block, b"default" + repr(calls).encode(), calls)


@pytest.mark.parametrize(
    ("rules", "default", "expected"),
    [
        ([rule("read")], "SCMP_ACT_ERRNO", True),
        ([rule("read", action="SCMP_ACT_LOG")], "SCMP_ACT_ERRNO", True),
        ([rule("write")], "SCMP_ACT_ERRNO", False),
        ([], "SCMP_ACT_ALLOW", True),
        ([rule("read", action="SCMP_ACT_ERRNO")], "SCMP_ACT_ALLOW", False),
        ([rule("read"), rule("read", action="SCMP_ACT_KILL")], "SCMP_ACT_ERRNO", False),
        ([rule("read", action="SCMP_ACT_TRACE")], "SCMP_ACT_ALLOW", False),
        # an argument nobody knows: it may match, and may not
        ([rule("read", args=[MASKED])], "SCMP_ACT_ERRNO", False),
        ([rule("read", action="SCMP_ACT_KILL", args=[MASKED])], "SCMP_ACT_ALLOW", False),
    ],
)
def test_names_and_actions(rules, default, expected):
    assert ask(rules, READ, default) is expected


@pytest.mark.parametrize(
    ("op", "value", "two", "expected"),
    [
        ("MASKED_EQ", 0x7E020000, 0, True),
        ("MASKED_EQ", 0x8000, 0, False),
        ("EQ", 0x9000, 0, True),
        ("EQ", 0x9001, 0, False),
        ("NE", 0x9000, 0, False),
        ("NE", 0x9001, 0, True),
        *(("GT", 0x8FFF, 0, True), ("GT", 0x9000, 0, False)),
        *(("GE", 0x9000, 0, True), ("GE", 0x9001, 0, False)),
        *(("LT", 0x9001, 0, True), ("LT", 0x9000, 0, False)),
        *(("LE", 0x9000, 0, True), ("LE", 0x8FFF, 0, False)),
    ],
)
def test_arguments_that_are_known(op, value, two, expected):
    args = [{"index": 0, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}]
    assert ask([rule("clone", args=args)], CLONE) is expected
    refused = [rule("clone", action="SCMP_ACT_ERRNO", args=args)]
    assert ask(refused, CLONE, "SCMP_ACT_ALLOW") is not expected


def test_every_call_must_pass():
    assert not ask([rule("read")], (*READ, *CLONE))


def test_a_refusal_that_lists_an_argument_twice_may_match():
    args = [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in (0x9000, 1)]
    assert not ask([rule("clone", action="SCMP_ACT_ERRNO", args=args)], CLONE, "SCMP_ACT_ALLOW")


@pytest.mark.parametrize(
    ("rules", "default", "expected"),
    [
        ([rule("execve", action="SCMP_ACT_KILL_PROCESS")], "SCMP_ACT_ALLOW", True),
        ([rule("execve", action="SCMP_ACT_ERRNO"), rule("execve", action="SCMP_ACT_ALLOW")], "SCMP_ACT_ALLOW", True),
        ([rule("execve", action="SCMP_ACT_ERRNO")], "SCMP_ACT_KILL", True),
        ([rule("execve", action="SCMP_ACT_ALLOW")], "SCMP_ACT_KILL", False),
        ([rule("execve", action="SCMP_ACT_KILL", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": 1}])],
         "SCMP_ACT_ALLOW", False),
        ([], "SCMP_ACT_ERRNO", True),
        ([], "SCMP_ACT_LOG", False),
    ],
)  # fmt: skip
def test_what_is_refused_whatever_the_arguments(rules, default, expected):
    block = {"defaultAction": default, "syscalls": rules}
    assert own_calls.never_allows(block, repr(block).encode(), "execve") is expected


def test_what_was_asked_is_not_kept_for_ever():
    for number in range(1000):
        own_calls.never_allows({"defaultAction": "SCMP_ACT_ALLOW"}, b"%d" % number, "execve")
    assert len(own_calls._known) <= own_calls._KNOWN_MAX
