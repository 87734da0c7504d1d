"""csrc/spawn.c, child.c: plans executed from this process."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from pynetns.errors import KernelError
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, join
from pynetns.lowlevel.spawn import spawn
from pynetns.trace import Recorder

pytestmark = pytest.mark.root
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def run(plan: Plan) -> tuple[int, bytes]:
    """Exit code and standard output of a plan."""
    reader, writer = os.pipe()
    try:
        with spawn(plan, stdio=(0, writer, writer)) as process:
            os.close(writer)
            writer = -1
            with open(reader, "rb", closefd=False) as out:
                data = out.read()
            return process.wait(), data
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def plan_of(*steps: tuple, command: list[str], flags: int = 0) -> Plan:
    plan = Plan(flags)
    for name, *args in steps:
        getattr(plan, name)(*args)
    plan.stdio()
    plan.exec(command, ENV)
    return plan


def test_exit_code_and_output():
    assert run(plan_of(command=["sh", "-c", "echo out; exit 3"])) == (3, b"out\n")


def test_death_by_signal_is_128_plus_n():
    assert run(plan_of(command=["sh", "-c", "kill -TERM $$"]))[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("program", "code"),
    [("no-such-program", errno.ENOENT), ("/etc/hostname-none", errno.ENOENT), ("/", errno.EACCES)],
)
def test_failing_exec_names_the_program(program, code):
    with pytest.raises(KernelError) as caught:
        spawn(plan_of(command=[program]))
    assert (caught.value.errno, caught.value.step) == (code, "exec")
    assert caught.value.detail == program


def test_failing_step_is_named_and_nothing_is_left():
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError) as caught:
        spawn(plan_of(("cwd", "/no/such/directory"), command=["true"]))
    assert caught.value.step == "chdir"
    assert caught.value.detail == "/no/such/directory"
    assert set(os.listdir("/proc/self/fd")) == before


def test_new_namespaces_and_hostname():
    plan = plan_of(("hostname", "inner"), command=["hostname"], flags=CLONE_NEWUTS)
    assert run(plan) == (0, b"inner\n")
    assert os.uname().nodename != "inner"


def test_pid_namespace_makes_the_program_pid_1():
    assert run(plan_of(command=["sh", "-c", "echo $$"], flags=CLONE_NEWPID)) == (0, b"1\n")


def test_identity_and_capabilities():
    plan = Plan(0)
    plan.stdio(1234, 1235)
    plan.bounding(0)
    plan.groups([77])
    plan.user(1234, 1235)
    plan.capset(0, 0, 0)
    plan.exec(["sh", "-c", "id -u; id -g; id -G; grep CapBnd /proc/self/status"], ENV)
    code, out = run(plan)
    assert code == 0
    assert out.split() == [b"1234", b"1235", b"1235", b"77", b"CapBnd:", b"0000000000000000"]


def test_no_descriptor_but_stdio_reaches_the_program():
    leaky = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    try:
        code, out = run(plan_of(command=["sh", "-c", "ls /proc/self/fd"]))
    finally:
        os.close(leaky)
    assert code == 0
    assert set(out.split()) == {b"0", b"1", b"2", b"3"}  # 3 is ls's own


def test_signals_are_reset():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        code, out = run(plan_of(command=["sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status"]))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [int(word, 16) for word in out.split()[1::2]] == [0, 0]


def test_rlimit_umask_no_new_privs():
    plan = plan_of(
        ("rlimit", 7, 99, 100),
        ("umask", 0o027),
        ("no_new_privs",),
        command=["sh", "-c", "ulimit -n; umask; grep NoNewPrivs /proc/self/status"],
    )
    assert run(plan)[1].split() == [b"99", b"0027", b"NoNewPrivs:", b"1"]


def test_stdio_may_be_swapped():
    """Table entries that are themselves below 3 do not run over each other."""
    reader, writer = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)
    os.set_inheritable(1, True)
    try:
        plan = plan_of(command=["sh", "-c", "echo to-stderr >&2"])
        with spawn(plan, stdio=(0, 2, 1)) as process:
            assert process.wait() == 0
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(writer)
    with open(reader, "rb") as out:
        assert out.read() == b"to-stderr\n"


def test_join_enters_the_namespaces_of_a_process():
    plan = Plan(CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
    plan.private()
    plan.hostname("host-of-join")
    plan.mount("proc", "proc", "/proc", 0)
    plan.stdio()
    plan.exec(["sleep", "1000"], ENV)
    reader, writer = os.pipe()
    with spawn(plan) as process:
        flags = CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC
        command = ["sh", "-c", "hostname; test -d /proc/1 && readlink /proc/self"]
        with join(process.pid, command, ENV, namespaces=flags, stdio=(0, writer, writer)) as joined:
            os.close(writer)
            with open(reader, "rb") as out:
                words = out.read().split()
            assert joined.wait() == 0
        process.kill()
        assert process.wait() == 137
    assert words[0] == b"host-of-join"
    assert int(words[1]) < 10


def test_many_threads_spawn_at_once():
    codes: list[int] = []

    def work() -> None:
        for _ in range(10):
            codes.append(run(plan_of(command=["true"]))[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 80


def test_trace_has_a_span_per_operation():
    with Recorder() as recorder:
        run(plan_of(("umask", 0), command=["true"]))
    child = [s.name for s in recorder.spans if s.track == "child"]
    assert child == ["clone", "umask", "stdio"]
    assert all(s.start <= s.end for s in recorder.spans)


def test_in_process_spawn_refuses_what_needs_the_shim():
    plan = Plan(0)
    plan.tty()
    plan.exec(["true"], ENV)
    with pytest.raises(KernelError, match="shim"):
        spawn(plan)
