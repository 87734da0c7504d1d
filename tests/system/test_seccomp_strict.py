"""Profiles that allow a program hardly more than it needs: none of them may stop our own last calls.

The program makes two calls, write and exit_group. What stands between the filter and `execve` must
not need any other, or must be done before the filter is there.
"""

import json
import platform
import subprocess

import pytest

from pynetns import errors

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is in its assembly"),
]

SOURCE = r"""
static long call(long number, long a, const void *b, long c)
{
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return ret;
}

void _start(void)
{
	call(1, 1, "here\n", 5);
	call(231, 7, 0, 0);
}
"""
NEEDED = ("execve", "write", "exit_group")
# What a child of ours might do between filter and execve, on any path.
OURS = (
    "read close close_range sendmsg sendto prctl capset setgroups setresuid setresgid rt_sigprocmask"
    " rt_sigaction setsid ioctl clone dup3 fcntl chdir fchdir getcwd umask openat openat2"
).split()


WAIT_FIRST = SOURCE.replace("call(1, 1,", "call(34, 0, 0, 0);\n\tcall(1, 1,")  # pause


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """/program, and /waiter that calls pause before."""
    root = tmp_path_factory.mktemp("image")
    for name, source in (("program", SOURCE), ("waiter", WAIT_FIRST)):
        (root / f"{name}.c").write_text(source)
        command = ["gcc", "-O2", "-static", "-nostdlib", "-fno-stack-protector", "-o"]
        subprocess.run([*command, root / name, root / f"{name}.c"], check=True)
    return str(root)


@pytest.fixture
def profile(tmp_path):
    def write(default, allowed=(), refused=()):
        rules = [{"names": list(allowed), "action": "SCMP_ACT_ALLOW"}] if allowed else []
        if refused:
            rules.append({"names": list(refused), "action": "SCMP_ACT_ERRNO"})
        path = tmp_path / "profile.json"
        path.write_text(json.dumps({"defaultAction": default, "syscalls": rules}))
        return f"seccomp={path}"

    return write


def ends_with_its_own_code(engine, image, **options):
    container = engine.containers.create(rootfs=image, command=["/program"], **options)
    container.start()
    assert container.wait()["StatusCode"] == 7
    assert container.logs().replace(b"\r", b"") == b"here\n"
    container.remove()


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user": "1000:1000"},
        {"security_opt": ["no-new-privileges"]},
        {"user": "1000", "security_opt": ["no-new-privileges"], "cap_drop": ["ALL"]},
        {"tty": True},
        {"working_dir": "/"},
    ],
    ids=str,
)
def test_a_program_with_just_its_own_calls_starts(engine, image, profile, default, options):
    security_opt = [*options.get("security_opt", ()), profile(default, NEEDED)]
    ends_with_its_own_code(engine, image, **{**options, "security_opt": security_opt})


@pytest.mark.parametrize("call", OURS)
def test_a_profile_without_one_call_of_ours_starts(engine, image, profile, call):
    ends_with_its_own_code(engine, image, security_opt=[profile("SCMP_ACT_ALLOW", refused=[call])])


def test_a_process_joins_under_the_strictest_profile(engine, image, profile):
    """The container's program waits for a signal; the one that joins has its two calls."""
    option = profile("SCMP_ACT_ERRNO", [*NEEDED, "pause"])
    container = engine.containers.create(rootfs=image, command=["/waiter"], security_opt=[option])
    container.start()
    try:
        assert container.exec_run(["/program"]) == (7, b"here\n")
    finally:
        container.remove(force=True)


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_without_execve_the_start_fails(engine, image, profile, default):
    container = engine.containers.create(
        rootfs=image, command=["/program"], security_opt=[profile(default, ["write", "exit_group"])]
    )
    with pytest.raises(errors.StartFailed):
        container.start()
    assert container.logs() == b""
    container.remove()


def test_a_missing_program_is_reported_under_the_strictest_profile(engine, image, profile):
    container = engine.containers.create(
        rootfs=image, command=["/missing"], security_opt=[profile("SCMP_ACT_ERRNO", ["execve"])]
    )
    with pytest.raises(errors.StartFailed, match="/missing"):
        container.start()
    container.remove()
