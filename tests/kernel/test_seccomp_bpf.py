"""The compiled filter in the kernel: a forked child loads it and says what its calls answer.

That tests/bpf.py runs a filter as the kernel does is shown here too, with calls that do not exist:
nothing but the filter can answer them otherwise than by ENOSYS.
"""

import ctypes
import errno
import json
import os
import platform
import signal

import pytest

from pynetns.runtime.security.capabilities import DEFAULT
from pynetns.runtime.security.seccomp import machine, resolve, resolve_default
from pynetns.runtime.security.seccomp_bpf import generate
from pynetns.runtime.security.seccomp_compile import (
    compile_by_libseccomp,
    compile_filter,
    load_library,
)
from pynetns.runtime.security.seccomp_rules import (
    ALLOW,
    ERRNO,
    TOKENS,
    X86_64,
    Compare,
    Conditional,
    Table,
)

from .. import bpf

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by the filter alone"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64"),
]

NUMBERS = {
    "getpid": 39, "clone": 56, "personality": 135, "mount": 165, "ptrace": 101, "keyctl": 250,
    "unshare": 272, "bpf": 321, "clone3": 435, "fchmodat2": 452, "not_yet": 4000, "chroot": 161,
    "mkdir": 83, "socket": 41, "io_uring_setup": 425, **{f"call {n}": n for n in range(3000, 3010)},
}  # fmt: skip
AF_VSOCK = 40
CLONE_NEWUTS, CLONE_NEWUSER = 0x04000000, 0x10000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def call(name, *args):
    """0 or the errno of one system call; a clone's child ends at once."""
    result = libc.syscall(
        ctypes.c_long(NUMBERS[name]), *(ctypes.c_long(argument) for argument in (*args, 0, 0, 0))
    )
    if name == "clone" and result == 0:
        os._exit(0)
    if name == "clone" and result > 0:
        os.waitpid(result, 0)
    return ctypes.get_errno() if result == -1 else 0


def answers(program, calls):
    """What each of `calls` answers under the filter."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fprog = Program(len(program) // 8, program)
            libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(fprog), 0, 0):
                os._exit(100 + ctypes.get_errno())
            os.write(write_end, json.dumps([call(*one) for one in calls]).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0
    return json.loads(text)


@pytest.fixture(scope="module")
def default_filter():
    return compile_filter(resolve_default(DEFAULT, *machine()))


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("getpid", (), 0),
        ("clone", (signal.SIGCHLD,), 0),
        ("personality", (0xFFFFFFFF,), 0),
        ("socket", (1, 1), 0),
        ("mount", (), errno.EPERM),
        ("unshare", (CLONE_NEWUTS,), errno.EPERM),
        ("unshare", (0,), errno.EPERM),
        ("keyctl", (), errno.EPERM),
        ("bpf", (), errno.EPERM),
        ("clone", (CLONE_NEWUTS | signal.SIGCHLD,), errno.EPERM),
        ("clone", (CLONE_NEWUSER | signal.SIGCHLD,), errno.EPERM),
        ("personality", (0x0040000,), errno.EPERM),
        ("clone3", (), errno.ENOSYS),
        # Newer than the installed libseccomp.
        ("fchmodat2", (0, 0, 0, 0), errno.EFAULT if machine()[0] >= (6, 6) else errno.ENOSYS),
        ("io_uring_setup", (), errno.EPERM),
        ("socket", (AF_VSOCK, 1), errno.EPERM),
        # Newer than the profile: "no such call", so that a C library falls back on an older one.
        ("not_yet", (), errno.ENOSYS),
    ],
)
def test_default_profile(default_filter, name, args, expected):
    assert answers(default_filter, [(name, *args)]) == [expected]


def test_sys_admin_may_unshare_but_not_keyctl():
    program = compile_filter(resolve_default((*DEFAULT, "CAP_SYS_ADMIN"), *machine()))
    calls = [("unshare", 0), ("unshare", CLONE_NEWUTS), ("clone3",), ("keyctl",)]
    assert answers(program, calls) == [0, 0, errno.EINVAL, errno.EPERM]


def test_without_the_capability_chroot_is_refused():
    program = compile_filter(resolve_default((), *machine()))
    assert answers(program, [("chroot",)]) == [errno.EPERM]


def test_a_custom_deny_list():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ERRNO",
                # Twice the same argument: either is enough.
                "args": [
                    {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"},
                ],
            },
        ],
    }
    program = compile_filter(resolve(profile, (), *machine()))
    calls = [("mkdir",), ("personality", 8), ("personality", 0xFFFFFFFF), ("personality", 0)]
    calls += [("unshare", 0), ("getpid",)]
    assert answers(program, calls) == [errno.EXDEV, errno.EPERM, errno.EPERM, 0, 0, 0]


EDGES = (
    0,
    1,
    7,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 32) + 7,
    1 << 63,
    (1 << 64) - 1,
)
OPS = ("EQ", "NE", "LT", "LE", "GT", "GE")


def conditions():
    """One call number after the other, each with other rules."""
    for value in (7, 0x80000000, (1 << 32) + 7):
        yield tuple((Compare(index, op, value),) for index, op in ((0, "EQ"), (1, "EQ")))
        yield ((Compare(0, "GE", value), Compare(1, "NE", value)),)
        yield ((Compare(0, "MASKED_EQ", value & 5, value), Compare(1, "LT", value)),)


@pytest.mark.parametrize("op", OPS)
def test_python_runs_a_filter_as_the_kernel_does(op):
    pieces = {0: ALLOW, 3001: ERRNO | 301, 3002: ALLOW, 3003: ERRNO | 303, 3004: ERRNO | 304}
    pieces[3000] = Conditional(
        ERRNO | 300, ((Compare(0, op, (1 << 32) + 7),), (Compare(1, op, 7),))
    )
    for number, rules in enumerate(conditions(), start=3005):
        if number < 3010:
            pieces[number] = Conditional(ERRNO | number - 2700, rules)
    pieces[3010] = ALLOW
    program = generate(ALLOW, [Table(TOKENS[X86_64], tuple(sorted(pieces.items())))])
    decoded = bpf.decode(program)
    calls = [
        (f"call {number}", first, second)
        for number in range(3000, 3010)
        for first in EDGES
        for second in (EDGES if number in (3000, 3005, 3006, 3007) else (0, 7))
    ]
    expected = []
    for name, *args in calls:
        answer = bpf.run(decoded, bpf.seccomp_data(TOKENS[X86_64], NUMBERS[name], args))
        expected.append(errno.ENOSYS if answer == ALLOW else answer & 0xFFFF)
    assert answers(program, calls) == expected
    assert len(set(expected)) >= 8


def test_what_ours_does_not_know_goes_to_libseccomp():
    """Conditional rules of one call with different actions."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [],
        "syscalls": [
            {
                "names": ["mkdir"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": number,
                "args": [{"index": 1, "value": number, "op": "SCMP_CMP_EQ"}],
            }
            for number in (300, 301)
        ],
    }
    program = compile_filter(profile)
    assert program == compile_by_libseccomp(load_library(), profile, X86_64)
    calls = [("mkdir", 0, 300), ("mkdir", 0, 301), ("mkdir", 0, 302)]
    assert answers(program, calls) == [300, 301, errno.EFAULT]
