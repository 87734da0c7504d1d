"""seccomp_rules.py and seccomp_bpf.py against libseccomp: the same answer to every call.

Both programs are run by tests/bpf.py (which tests/kernel/test_seccomp_bpf.py holds against the
kernel) over every architecture number, every call number there is and the borders of the others,
and, where arguments count, all combinations of values around each constant of the profile.
"""

import itertools
import math
import platform
import random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter
from pynetns.runtime.security import seccomp_compile
from pynetns.runtime.security.capabilities import DEFAULT, NAMES
from pynetns.runtime.security.seccomp import resolve_default
from pynetns.runtime.security.seccomp_bpf import MAX_INSTRUCTIONS, generate
from pynetns.runtime.security.seccomp_names import COMMON, MULTIPLEXED
from pynetns.runtime.security.seccomp_rules import (
    AARCH64,
    ALLOW,
    ARM,
    ENOSYS,
    FAMILIES,
    KILL_THREAD,
    TOKENS,
    X32,
    X32_BIT,
    X86,
    X86_64,
    Conditional,
    Unsupported,
    action_value,
    build_tables,
    with_newer_calls,
)

from .. import bpf

SCMP = seccomp_compile.load_library()
KNOWN = seccomp_compile.resolver(SCMP)
NATIVE = {"amd64": X86_64, "arm64": AARCH64}

OTHER_TOKENS = (0x4000003E, 0x40000008, 0xC000003F, 0, 0xFFFFFFFF)
BORDERS = (0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
ARM_PRIVATE = range(0xF0000, 0xF0008)
EVERY_NUMBER = (*range(1025), *range(0x40000000, 0x40000401), *ARM_PRIVATE, *BORDERS)
ARGUMENTS = ((), (2**64 - 1,) * 6, (0x5555555555555555, 1, 2, 3, 0x100000000, 5))


def programs(oci, native):
    """(libseccomp's, ours, our tables), of calls that libseccomp knows."""
    theirs = bpf.decode(seccomp_compile.compile_by_libseccomp(SCMP, oci, native))
    ours, _, tables = build(oci, native, FAMILIES[native], KNOWN)
    return theirs, ours, tables


def build(oci, native, runnable, resolve):
    """(our program, default action, tables)."""
    default, tables = build_tables(oci, native, runnable, resolve)
    return bpf.decode(generate(default, tables)), default, tables


def values_around(constants, every_bit):
    values = {0, 2**32 - 1, 2**32, 2**64 - 1}
    for constant in constants:
        values |= {constant - 1, constant, constant + 1, constant | 0xFFFFFFFF << 32}
        values |= {constant ^ 1 << bit for bit in (range(64) if every_bit else (0, 31, 32, 63))}
    return sorted(value for value in values if 0 <= value < 2**64)


def argument_sets(decision, constants, most):
    """Arguments that could make a difference to a call with conditions. `constants`: all values
    of the profile by argument, as it was written (a 32-bit ABI's table has lost the upper half)."""
    indices = sorted({compare.index for rule in decision.rules for compare in rule})
    wanted = {index: set(constants.get(index, ())) for index in indices}
    for one in itertools.chain(*decision.rules):
        wanted[one.index] |= {one.value, one.mask}
    choices = [values_around(wanted[index], True) for index in indices]
    if math.prod(map(len, choices)) > most:
        choices = [values_around(wanted[index], False) for index in indices]
    if math.prod(map(len, choices)) > most:
        pick = random.Random(1)
        combinations = ([pick.choice(values) for values in choices] for _ in range(most))
    else:
        combinations = itertools.product(*choices)
    for combination in combinations:
        args = [0] * 6
        for index, value in zip(indices, combination, strict=True):
            args[index] = value
        yield args


def constants_of(oci, name=None):
    found = {}
    for call in oci["syscalls"]:
        for arg in call.get("args") or () if name is None or name in call["names"] else ():
            values = found.setdefault(arg.get("index", 0), set())
            values |= {arg.get("value", 0), arg.get("valueTwo", 0)}
    return found


WIDE = (TOKENS[X86_64], TOKENS[AARCH64])
HOLDS = {
    "EQ": lambda one, value: value == one.value,
    "NE": lambda one, value: value != one.value,
    "LT": lambda one, value: value < one.value,
    "LE": lambda one, value: value <= one.value,
    "GT": lambda one, value: value > one.value,
    "GE": lambda one, value: value >= one.value,
    "MASKED_EQ": lambda one, value: value & one.mask == one.value,
}


def by_reading(decision, default, args):
    """The decision as it is written."""
    matching = (
        rule for rule in decision.rules if all(HOLDS[one.op](one, args[one.index]) for one in rule)
    )
    return default if next(matching, None) is None else decision.action


def differences(theirs, ours, tables, oci, numbers, most=5000, thorough=False):
    """The first few calls whose answers differ. `thorough`: all `numbers` for architectures that
    the filter is not for, too."""
    found = []
    conditional = {
        (table.token, number): decision
        for table in tables
        for number, decision in table.pieces
        if isinstance(decision, Conditional)
    }
    constants = constants_of(oci) if len(oci["syscalls"]) < 12 else {}
    default = action_value(oci["defaultAction"], oci.get("defaultErrnoRet"))
    own = {table.token for table in tables}
    few = numbers_around(tables)
    for token in (*TOKENS.values(), *OTHER_TOKENS):
        for number in numbers if token in own or thorough else few:
            decision = conditional.get((token, number))
            sets = ARGUMENTS if decision is None else argument_sets(decision, constants, most)
            for args in sets:
                words = bpf.seccomp_data(token, number, args)
                expected, answer = bpf.run(theirs, words), bpf.run(ours, words)
                if decision is not None:
                    width = 2**64 if token in WIDE and number < X32_BIT else 2**32
                    read = by_reading(decision, default, [arg % width for arg in args])
                    assert answer == read, (hex(token), number, args)
                if expected != answer:
                    found.append(
                        f"{token:#x} {number:#x} {[hex(one) for one in args]}: libseccomp"
                        f" {expected:#x}, ours {answer:#x}"
                    )
                    if len(found) > 4:
                        return found
    return found


CAPABILITIES = {
    "default": DEFAULT,
    "none": (),
    "all": NAMES,
    "sys_admin": (*DEFAULT, "CAP_SYS_ADMIN"),
    "ptrace and nice": ("CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_TIME"),
}


@pytest.mark.parametrize("arch", NATIVE)
@pytest.mark.parametrize("capabilities", CAPABILITIES)
def test_the_default_profile_says_what_libseccomp_says(arch, capabilities):
    oci = resolve_default(CAPABILITIES[capabilities], (6, 1), arch)
    theirs, ours, tables = programs(oci, NATIVE[arch])
    assert differences(theirs, ours, tables, oci, EVERY_NUMBER, thorough=True) == []
    assert len(ours) < len(theirs) / 4


@pytest.mark.parametrize("arch", NATIVE)
def test_a_program_with_jumps_of_more_than_255_instructions(arch):
    names = resolve_default(NAMES, (6, 1), arch)["syscalls"][0]["names"]
    rules = [
        rule(name, "SCMP_ACT_ERRNO", (number % 6, "EQ", number), errnoRet=100 + number)
        for number, name in enumerate(names)
        if name not in MULTIPLEXED
    ]
    listed = list(FAMILIES[NATIVE[arch]])
    oci = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": listed, "syscalls": rules}
    theirs, ours, tables = programs(oci, NATIVE[arch])
    assert 1000 < len(ours) < len(theirs)
    assert any(code == bpf.JUMP for code, _, _, _ in ours)
    assert differences(theirs, ours, tables, oci, EVERY_NUMBER, most=100) == []


@pytest.mark.parametrize("arch", NATIVE)
def test_newer_calls_and_missing_abis_change_nothing_else(arch):
    """What containers get here: numbers that libseccomp may lack, and fewer ABIs."""
    native = NATIVE[arch]
    oci = resolve_default(DEFAULT, (6, 1), arch)
    known, _, _ = build(oci, native, FAMILIES[native], KNOWN)
    newer, _, _ = build(oci, native, (), with_newer_calls(KNOWN))
    named = {name for call in oci["syscalls"] for name in call["names"]}
    added = {COMMON[name] for name in named & set(COMMON)}
    unknown = {COMMON[name] for name in COMMON if KNOWN(native, name) == -1}
    for number in range(1025):
        words = bpf.seccomp_data(TOKENS[native], number)
        before, after = bpf.run(known, words), bpf.run(newer, words)
        if number not in unknown and number != 335:
            assert after == before, number
        elif number in added:
            assert (before, after) == (ENOSYS, ALLOW), number
    assert {458, 462} <= added  # listmount, mseal
    for token in set(TOKENS.values()) - {TOKENS[native]}:
        for number in range(600):
            assert bpf.run(newer, bpf.seccomp_data(token, number)) == KILL_THREAD
    if native == X86_64:
        x32 = {bpf.run(newer, bpf.seccomp_data(TOKENS[native], X32_BIT | n)) for n in range(600)}
        assert x32 == {ENOSYS}


def test_an_abi_that_is_not_there_is_refused_whatever_the_profile_allows():
    oci = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [X86_64, X86, X32], "syscalls": []}
    program, _, _ = build(oci, X86_64, (), KNOWN)
    answers = {
        bpf.run(program, bpf.seccomp_data(TOKENS[X86_64], number))
        for number in (X32_BIT, X32_BIT + 39, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE)
    }
    assert answers == {ENOSYS}
    assert bpf.run(program, bpf.seccomp_data(TOKENS[X86], 20)) == KILL_THREAD
    # -1 is what a tracer makes of a call to be skipped: its answer stands.
    assert bpf.run(program, bpf.seccomp_data(TOKENS[X86_64], 0xFFFFFFFF)) == ALLOW


def test_a_program_that_no_kernel_takes(monkeypatch):
    rules = [
        rule("ioctl", "SCMP_ACT_ALLOW", (1, "MASKED_EQ", 0xFFF7FFFFFF, 2 * number))
        for number in range(900)
    ]
    oci = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": [], "syscalls": rules}
    with pytest.raises(Unsupported, match="instructions"):
        build(oci, X86_64, (), KNOWN)
    assert len(seccomp_compile.compile_filter(oci)) <= MAX_INSTRUCTIONS * 8  # by libseccomp
    monkeypatch.setattr(seccomp_compile, "MAX_INSTRUCTIONS", 100)
    with pytest.raises(InvalidParameter, match=r"--security-opt seccomp: .* instructions"):
        seccomp_compile.compile_filter(oci)


@pytest.mark.parametrize(
    "conditions",
    [
        # The first of two orderings by different upper halves, and nothing after it.
        [[(2, "LT", 0)], [(2, "LT", 2**32)]],
        # What the first has in common with the second, and nothing after it.
        [[(0, "LE", 40), (2, "EQ", 1)], [(0, "LT", 14), (3, "EQ", 48)]],
    ],
)
def test_where_libseccomp_tries_rules_only_in_part_its_program_is_taken(conditions):
    rules = [rule("read", "SCMP_ACT_ERRNO", *one) for one in conditions]
    oci = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": rules}
    with pytest.raises(Unsupported, match="in part"):
        build(oci, X86_64, (), KNOWN)
    native = seccomp_compile.NATIVE[platform.machine()]
    expected = seccomp_compile.compile_by_libseccomp(SCMP, oci, native)
    assert seccomp_compile.compile_filter(oci) == expected


def rule(names, action="SCMP_ACT_ALLOW", *args, **rest):
    made = {"names": names.split(), "action": action, **rest}
    if args:
        made["args"] = [
            {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}
            for index, op, value, two in ((*arg, 0)[:4] for arg in args)
        ]
    return made


ALL_OPS = ("EQ", "NE", "LT", "LE", "GT", "GE")
EDGES = (0, 1, 5, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**64 - 1)
ERR = "SCMP_ACT_ERRNO"
X86_ALL = [X86_64, X86, X32]

PROFILES = {
    "nothing": ("SCMP_ACT_ALLOW", [], []),
    "refuse all": (ERR, [X86_64, X86, X32, ARM], []),
    "deny list": ("SCMP_ACT_ALLOW", X86_ALL, [rule("mkdir chmod socket ipc", ERR, errnoRet=13)]),
    "kill": ("SCMP_ACT_KILL", X86_ALL, [rule("read write exit_group execve")]),
    "kill process": ("SCMP_ACT_KILL_PROCESS", [X86_64], [rule("read write execve clone")]),
    "trap": ("SCMP_ACT_TRAP", [X86_64, X86], [rule("read", "SCMP_ACT_LOG")]),
    "log": ("SCMP_ACT_LOG", [], [rule("read", "SCMP_ACT_TRACE", errnoRet=0x1234)]),
    "trace": ("SCMP_ACT_TRACE", [X86_64, X32], [rule("read", "SCMP_ACT_KILL_THREAD")]),
    "no architecture": (ERR, [], [rule("read write socket shmget")]),
    "x32 without x86": (ERR, [X86_64, X32], [rule("read ptrace writev")]),
    "only a subarchitecture": (ERR, [X86], [rule("read socketcall")]),
    "another machine's": (ERR, [X86_64, "SCMP_ARCH_MIPSEL64"], [rule("read")]),
    "unknown names": (ERR, X86_ALL, [rule("getpid never_a_call")]),
    "unknown names only": (ERR, X86_ALL, [rule("never_a_call")]),
    "the default's own action": (ERR, X86_ALL, [rule("getpid", ERR), rule("read")]),
    "first of two": ("SCMP_ACT_KILL", [], [rule("read"), rule("read", ERR, errnoRet=9)]),
    "always after sometimes": (ERR, X86_ALL, [rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 1)),
                                              rule("read")]),
    "sometimes after always": (ERR, X86_ALL, [rule("read"),
                                              rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 1))]),
    "multiplexed": (ERR, [X86_64, X86], [rule("socket bind accept accept4 recv shmget semop")]),
    "multiplexed, conditions": (ERR, X86_ALL, [
        rule("socket", "SCMP_ACT_ALLOW", (0, "LT", 12)),
        rule("socket", "SCMP_ACT_ALLOW", (0, "EQ", 16)),
        rule("msgctl", "SCMP_ACT_ALLOW", (1, "GE", 7)),
    ]),
    "arm's own": (ERR, [AARCH64, ARM], [rule("breakpoint set_tls cacheflush read sync_file_range2")]),
    "several arguments": (ERR, X86_ALL, [
        rule("ioctl", "SCMP_ACT_ALLOW", (0, "EQ", 1), (1, "MASKED_EQ", 0xFF00, 0x5400)),
        rule("prctl", "SCMP_ACT_ALLOW", (0, "EQ", 1)),
        rule("prctl", "SCMP_ACT_ALLOW", (1, "MASKED_EQ", 0xFF00, 0x5400)),
        rule("prctl", "SCMP_ACT_ALLOW", (2, "GT", 0x1234)),
        rule("fcntl", "SCMP_ACT_ALLOW", (0, "LE", 2), (1, "GT", 4), (2, "NE", 2**32)),
    ]),
    "an argument twice": ("SCMP_ACT_ALLOW", [X86_64, X86], [
        rule("personality", ERR, (0, "EQ", 8), (0, "EQ", 0xFFFFFFFF)),
        rule("kill", ERR, (1, "EQ", 9), (1, "GT", 30), (0, "EQ", 1)),
    ]),
    "masks": (ERR, X86_ALL, [
        rule("clone", "SCMP_ACT_ALLOW", (0, "MASKED_EQ", 0x7E020000, 0)),
        rule("unshare", "SCMP_ACT_ALLOW", (0, "MASKED_EQ", 2**64 - 1, 77)),
        rule("mmap", "SCMP_ACT_ALLOW", (2, "MASKED_EQ", 0x8000000100000004, 0x8000000000000004)),
    ]),
}  # fmt: skip

OPERATORS = {
    f"{op} {value:#x}": (
        default,
        X86_ALL,
        [rule("getpid", "SCMP_ACT_ALLOW", (index % 6, op, value))],
    )
    for op in ALL_OPS
    for index, value in enumerate(EDGES)
    for default in ([ERR, "SCMP_ACT_KILL"][index % 2],)
}


def profile(of, native):
    default, architectures, rules = of
    listed = [one for one in architectures if one in FAMILIES[native] or "MIPS" in one]
    return {"defaultAction": default, "architectures": listed, "syscalls": rules}


def numbers_around(tables):
    """Where a table's answer changes, and the borders."""
    numbers = {0, 1, 1000, 0x40000000, 0x400003E8, *ARM_PRIVATE, *BORDERS}
    for table in tables:
        starts = {start for start, _ in table.pieces}
        numbers |= starts | {start - 1 for start in starts if start}
    return sorted(numbers)


@pytest.mark.parametrize("label", PROFILES)
@pytest.mark.parametrize("arch", NATIVE)
def test_other_profiles_say_what_libseccomp_says(arch, label):
    oci = profile(PROFILES[label], NATIVE[arch])
    theirs, ours, tables = programs(oci, NATIVE[arch])
    assert differences(theirs, ours, tables, oci, EVERY_NUMBER) == []


@pytest.mark.parametrize("label", OPERATORS)
@pytest.mark.parametrize("arch", NATIVE)
def test_each_operator_says_what_libseccomp_says(arch, label):
    oci = profile(OPERATORS[label], NATIVE[arch])
    theirs, ours, tables = programs(oci, NATIVE[arch])
    assert differences(theirs, ours, tables, oci, numbers_around(tables)) == []


NAME_POOL = (
    "read getpid mkdir socket bind accept accept4 recv sendmmsg socketcall ipc shmget semtimedop"
    " clone personality arch_prctl set_tls breakpoint _llseek execveat statx never_a_call futex"
    " io_uring_setup"
).split()
ACTION_POOL = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "LOG", "TRACE"]
values = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1) | st.integers(0, 100)
conditions = st.builds(
    lambda index, op, value, two: (index, op, value, two),
    st.integers(0, 5),
    st.sampled_from((*ALL_OPS, "MASKED_EQ")),
    values,
    values,
)


@st.composite
def any_profile(draw, native):
    def action():
        return f"SCMP_ACT_{draw(st.sampled_from(ACTION_POOL))}"

    default = action()
    one_for_all = f"SCMP_ACT_{draw(st.sampled_from(ACTION_POOL))}"
    rules = [
        rule(
            " ".join(draw(st.lists(st.sampled_from(NAME_POOL), min_size=1, max_size=4))),
            one_for_all if draw(st.integers(0, 9)) else action(),
            *draw(st.lists(conditions, max_size=3)),
            errnoRet=draw(st.sampled_from([None, 0, 1, 38, 4095])),
        )
        for _ in range(draw(st.integers(0, 7)))
    ]
    return {
        "defaultAction": default,
        "defaultErrnoRet": draw(st.sampled_from([None, 1, 38, 5])),
        "architectures": draw(st.lists(st.sampled_from(FAMILIES[native]), unique=True)),
        "syscalls": rules,
    }


@pytest.mark.parametrize("arch", NATIVE)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_profile_says_what_libseccomp_says(arch, data):
    oci = data.draw(any_profile(NATIVE[arch]))
    try:
        theirs, ours, tables = programs(oci, NATIVE[arch])
    except (InvalidParameter, Unsupported):
        assume(False)
    assert differences(theirs, ours, tables, oci, numbers_around(tables), most=150) == []
