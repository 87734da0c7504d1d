"""Every system call from inside a container against what its profile says.

The filter's refusal is told from the kernel's own EPERM by the number it gives: the profile under
test is Docker's with `defaultErrnoRet` 511, which no call answers. The profile that containers get
is then tried with the errors that it really has.
"""

import errno
import json
import platform
import signal
import subprocess
from pathlib import Path

import pytest

from pynetns.runtime.security import seccomp_compile
from pynetns.runtime.security.capabilities import DEFAULT
from pynetns.runtime.security.seccomp import machine, resolve
from pynetns.runtime.security.seccomp_abi import runnable_abis
from pynetns.runtime.security.seccomp_profile import docker_default
from pynetns.runtime.security.seccomp_rules import FAMILIES, X86, split_rules, with_newer_calls

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() not in seccomp_compile.NATIVE, reason="no profile"),
]

PROBE = Path(__file__).with_name("seccomp_probe.c")
REFUSED = 511
NATIVE = seccomp_compile.NATIVE.get(platform.machine(), "")
RESOLVE = with_newer_calls(seccomp_compile.resolver(seccomp_compile.load_library()))
HAS_I386 = X86 in runnable_abis(NATIVE, platform.release())
NUMBERS = range(600)
UNFILTERED = {336} if platform.machine() == "x86_64" else set()
"""uprobe: the kernel asks no filter about it (seccomp_uprobe_exception)."""
ALL_ONES = (1 << 64) - 1  # what the probe passes where no arguments are given


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The directory with the probe."""
    directory = tmp_path_factory.mktemp("probe")
    subprocess.run(
        ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-static", "-o", directory / "probe", PROBE],
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture
def ask(run, probe, tmp_path):
    """calls, container options -> {"abi number": answer}; several of one number: a list of lines."""

    def ask_(calls, **options):
        (tmp_path / "calls").write_text("".join(f"{call}\n" for call in calls))
        lines = run(
            ["sh", "-c", "/probe/probe < /calls/calls"],
            volumes=[f"{probe}:/probe:ro", f"{tmp_path}:/calls:ro"],
            **options,
        ).splitlines()
        assert len(lines) == len(calls)
        return [line.split(" ", 2)[2] for line in lines]

    return ask_


def holds(rule, args):
    """Whether all conditions of one rule hold for these arguments."""
    return all(
        {
            "EQ": args[one.index] == one.value,
            "NE": args[one.index] != one.value,
            "LT": args[one.index] < one.value,
            "MASKED_EQ": args[one.index] & one.mask == one.value,
        }[one.op]
        for one in rule
    )


def expected(profile, arch, capabilities):
    """number -> True (to the kernel), REFUSED or another errno, from the profile's text alone: by
    names, rule by rule, with nothing of what makes filters. For a call with all arguments ~0."""
    oci = resolve(profile, capabilities, *machine())
    width = 1 << (32 if arch == X86 else 64)
    args = [ALL_ONES % width] * 6
    answers = {}
    for call in oci["syscalls"]:
        answer = True if call["action"] == "SCMP_ACT_ALLOW" else call["errnoRet"]
        for name in call["names"]:
            number = RESOLVE(arch, name)
            rules = split_rules(call.get("args") or (), arch)
            if (
                number >= 0
                and answers.get(number) is not True
                and any(holds(r, args) for r in rules)
            ):
                answers[number] = answer
    newest = max(RESOLVE(arch, name) for call in oci["syscalls"] for name in call["names"])
    return {
        number: errno.ENOSYS if number > newest else answers.get(number, REFUSED)
        for number in NUMBERS
    }


def docker_profile(**changes):
    return {**docker_default(), **changes}


def wrong(answers, expectation):
    """What differs, readable."""
    found = []
    for number, answer in zip(NUMBERS, answers, strict=True):
        should = expectation[number]
        if number in UNFILTERED:
            continue
        if (answer == str(REFUSED)) if should is True else (answer != str(should)):
            found.append(f"call {number}: {answer}, by the profile {should}")
    return found


@pytest.mark.parametrize(
    "added", [(), ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_SYS_NICE")], ids=str
)
def test_every_call_is_answered_as_the_profile_says(ask, tmp_path, added):
    profile = docker_profile(defaultErrnoRet=REFUSED)
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    answers = ask(
        [f"n {number}" for number in NUMBERS],
        security_opt=[f"seccomp={tmp_path}/profile.json"],
        cap_add=[name.removeprefix("CAP_") for name in added],
    )
    assert wrong(answers, expected(profile, NATIVE, (*DEFAULT, *added))) == []


@pytest.mark.security
def test_the_built_in_profile_refuses_the_same_with_eperm(ask):
    expectation = expected(docker_profile(defaultErrnoRet=REFUSED), NATIVE, DEFAULT)
    answers = ask([f"n {number}" for number in NUMBERS])
    refused = {number for number, should in expectation.items() if should is not True}
    refused -= UNFILTERED
    for number in refused:
        should = errno.EPERM if expectation[number] == REFUSED else expectation[number]
        assert answers[number] == str(should), number
    assert len(refused) > 150


@pytest.mark.skipif(not HAS_I386, reason="this kernel runs no i386 calls")
def test_every_i386_call_is_answered_as_the_profile_says(ask, tmp_path):
    profile = docker_profile(defaultErrnoRet=REFUSED)
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    answers = ask(
        [f"i {number}" for number in NUMBERS],
        security_opt=[f"seccomp={tmp_path}/profile.json"],
    )
    # Those that libseccomp knows by another number, as parts of socketcall and ipc.
    through = {*range(359, 374), 337, 345, *range(393, 403)}
    expectation = expected(profile, X86, DEFAULT)
    for number in through:
        expectation[number] = True
    expectation[359] = REFUSED  # socket(~0)
    assert wrong(answers, expectation) == []


@pytest.mark.security
@pytest.mark.skipif(NATIVE not in FAMILIES or len(FAMILIES[NATIVE]) < 3, reason="x86-64 only")
def test_no_x32_call_gets_through(ask):
    answers = ask([f"x {number}" for number in NUMBERS])
    if "SCMP_ARCH_X32" in runnable_abis(NATIVE, platform.release()):
        assert answers[425] == answers[165] == str(errno.EPERM)  # io_uring_setup, mount
    else:
        assert set(answers) == {str(errno.ENOSYS)}


CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
AF_UNIX, AF_INET, AF_DECNET, AF_ALG, AF_VSOCK = 1, 2, 12, 38, 40
HIGH = 1 << 32

# (call, arguments) -> whether the filter lets it through; anything but EPERM is the kernel's.
BY_ARGUMENT = [
    ("socket", (AF_UNIX, 1, 0), True),
    ("socket", (AF_INET, 1, 0), True),
    ("socket", (16, 3, 0), True),  # netlink
    ("socket", (AF_DECNET, 1, 0), False),
    ("socket", (AF_ALG, 5, 0), False),
    ("socket", (AF_VSOCK, 1, 0), False),
    ("socket", (AF_VSOCK | HIGH, 1, 0), False),  # the kernel would look at the lower half
    ("socket", (AF_ALG | 7 * HIGH, 5, 0), False),
    ("socket", (46, 1, 0), False),
    ("personality", (0,), True),
    ("personality", (8,), True),
    ("personality", (0x20000,), True),
    ("personality", (0x20008,), True),
    ("personality", (0xFFFFFFFF,), True),
    ("personality", (0x40000,), False),  # no address space randomization
    ("personality", (8 | HIGH,), False),
    ("personality", (0x20,), False),
    ("clone", (signal.SIGCHLD, 0, 0, 0, 0), True),
    ("clone", (signal.SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0), False),
    ("clone", (signal.SIGCHLD | CLONE_NEWNS, 0, 0, 0, 0), False),
    ("clone", (signal.SIGCHLD | CLONE_NEWUSER | HIGH, 0, 0, 0, 0), False),
    ("unshare", (CLONE_NEWUSER,), False),
    ("unshare", (0,), False),
    ("ioctl", (0, 0x5401, 0), True),
    ("keyctl", (0,), False),
    ("io_uring_setup", (1, 0), False),
    ("io_uring_enter", (0, 0, 0, 0), False),
    ("io_uring_register", (0, 0, 0, 0), False),
    ("add_key", (0, 0, 0, 0, 0), False),
    ("userfaultfd", (0,), False),
    ("bpf", (0, 0, 0), False),
    ("open_by_handle_at", (0, 0, 0), False),
]


@pytest.mark.security
def test_rules_on_arguments(ask):
    calls = [
        f"n {RESOLVE(NATIVE, name)} " + " ".join(f"{int(arg):#x}" for arg in args)
        for name, args, _ in BY_ARGUMENT
    ]
    answers = ask(calls)
    for (name, args, through), answer in zip(BY_ARGUMENT, answers, strict=True):
        assert (answer != str(errno.EPERM)) == through, (name, args, answer)


def test_clone3_is_not_there(ask):
    assert ask([f"n {RESOLVE(NATIVE, 'clone3')}"]) == [str(errno.ENOSYS)]


def test_actions_other_than_an_error(ask, tmp_path):
    """KILL_PROCESS and TRAP end the child, LOG lets it through."""
    number = {name: RESOLVE(NATIVE, name) for name in ("sched_yield", "getpriority", "getitimer")}
    rules = [
        {"names": ["sched_yield"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["getpriority"], "action": "SCMP_ACT_TRAP"},
        {"names": ["getitimer"], "action": "SCMP_ACT_LOG"},
    ]
    (tmp_path / "profile.json").write_text(
        json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    )
    answers = ask(
        [f"n {one}" for one in number.values()],
        security_opt=[f"seccomp={tmp_path}/profile.json"],
    )
    killed = f"signal {signal.SIGSYS.value}"
    assert answers == [killed, killed, str(errno.EINVAL)]


def test_unconfined_lets_everything_through(ask):
    keyctl = RESOLVE(NATIVE, "keyctl")
    assert ask([f"n {keyctl}"]) == [str(errno.EPERM)]
    assert ask([f"n {keyctl}"], security_opt=["seccomp=unconfined"]) != [str(errno.EPERM)]
