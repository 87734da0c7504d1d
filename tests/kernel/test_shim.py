"""csrc/shim*.c: tasks, logs, exit records, attached clients; the shim alone, without an engine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pynetns.errors import KernelError, StartFailed
from pynetns.kernel import frame
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWNS, CLONE_NEWPID
from pynetns.runtime.task import Attach, Task, read_exit

from ..conftest import shim_processes
from .shim_bench import ENV, Bench, run

pytestmark = pytest.mark.root


def test_output_is_logged_as_docker_does(bench):
    bench.task("a", "echo out; echo err >&2; printf 'tail \\377 \\303\\251 \"\\\\\\t'")
    assert bench.wait("a") == 0
    entries = bench.log("a")
    assert sorted((e["stream"], e["log"]) for e in entries) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
        ("stdout", 'tail � é "\\\t'),
    ]
    assert all(e["time"].endswith("Z") and len(e["time"]) == 30 for e in entries)


def test_long_line_is_cut_at_16_kib(bench):
    bench.task("a", "head -c 40000 /dev/zero | tr '\\0' x; echo")
    assert bench.wait("a") == 0
    assert [len(e["log"]) for e in bench.log("a")] == [16384, 16384, 7233]


def test_every_byte_of_a_flood_is_kept(bench):
    bench.task("a", "seq 1 20000")
    assert bench.wait("a") == 0
    assert [e["log"] for e in bench.log("a")] == [f"{i}\n" for i in range(1, 20001)]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 0), ("true", 0)])
def test_exit_record(bench, script, code):
    # pid 1 of its namespace cannot kill itself: the second line is a survivor
    bench.task("a", script)
    assert bench.wait("a") == code
    ended = read_exit(str(bench.root / "a"))
    assert ended is not None and ended.code == code
    assert abs(ended.finished / 1e9 - time.time()) < 60


def test_signal_and_list(bench):
    task = bench.task("a", "exec sleep 1000")
    assert bench.shim.tasks() == {"a": task.pid}
    assert bench.shim.signal("a", signal.SIGKILL)
    assert bench.wait("a") == 137
    assert bench.shim.tasks() == {}
    assert not bench.shim.signal("a", signal.SIGKILL)


def test_waiting_for_a_task_may_time_out(bench):
    bench.task("a", "exec sleep 1000")
    with pytest.raises(TimeoutError):
        bench.shim.wait("a", 0.01)


def test_key_in_use_is_refused(bench):
    bench.task("a", "exec sleep 1000")
    with pytest.raises(KernelError) as caught:
        bench.shim.finish_spawn(bench.shim.begin_spawn("a", Plan(0).encode(), [], flags=0), "a")
    assert caught.value.name == "EEXIST"


@pytest.mark.parametrize("stdin", [False, True])
def test_a_start_that_fails_leaves_the_shim_no_descriptor(bench, stdin):
    """Before the clone (a plan without a program) and in the child (a program that is not there)."""
    bench.task("a", "exec sleep 1000")
    held = Path(f"/proc/{shim_processes(bench)[0]}/fd")
    bench.shim.tasks()
    before = len(os.listdir(held))
    missing = Plan(0)
    missing.stdio()
    missing.exec(["/missing"], ENV)
    for number, plan in enumerate([Plan(0), missing] * 5):
        reader, writer = os.pipe()
        (bench.root / f"f{number}").mkdir()
        attach = Attach(stdin_fd=reader) if stdin else Attach(stdout_fd=writer)
        task = Task(
            bench.shim, f"f{number}", str(bench.root / f"f{number}"),
            flags=frame.SPAWN_STDIN if stdin else 0, attach=attach,
        )  # fmt: skip
        with pytest.raises(StartFailed):
            run(task, plan)
        os.close(reader)
        os.close(writer)
    bench.shim.tasks()
    assert len(os.listdir(held)) == before


def test_a_start_is_not_answered_for_an_earlier_run(bench):
    """A client that asks again after the shim was killed names its run: keys come again."""
    reader, writer = os.pipe()
    pending = bench.shim.begin_spawn(
        "a", waiting_plan(bench, reader).encode(), [bench.mounts, reader], flags=0
    )
    run = bench.shim._runs[pending]
    os.write(writer, b"\n")
    bench.shim.finish_spawn(pending, "a")
    os.close(reader)
    os.close(writer)
    bench.shim.wait("a")
    assert bench.shim.request(frame.STARTED, key="a", value=run).kind == frame.SPAWNED
    with pytest.raises(KernelError) as caught:
        bench.shim.request(frame.STARTED, key="a", value=run + 1)
    assert caught.value.name == "ESRCH"


def waiting_plan(bench: Bench, reader: int) -> Plan:
    plan = Plan(0)
    plan.setns(bench.mounts, CLONE_NEWNS)
    plan.stdio()
    plan.wait(reader)
    plan.exec(["sh", "-c", "exit 9"], ENV)
    return plan


def test_a_created_task_waits_for_its_start(bench):
    (bench.root / "w").mkdir()
    reader, writer = os.pipe()
    task = Task(bench.shim, "w", str(bench.root / "w"), go_fd=writer)
    task.create(waiting_plan(bench, reader))
    with pytest.raises(TimeoutError):  # it does nothing by itself
        bench.shim.wait("w", 0.1)
    task.start()
    assert bench.wait("w") == 9
    os.close(reader)


@pytest.mark.parametrize("how", ["abandoned", "starter gone"])
def test_a_created_task_that_is_never_started_ends(bench, how):
    (bench.root / "w").mkdir()
    reader, writer = os.pipe()
    task = Task(bench.shim, "w", str(bench.root / "w"), go_fd=writer)
    task.create(waiting_plan(bench, reader))
    os.close(reader)
    if how == "abandoned":
        task.abandon()
    else:
        os.close(writer)
        bench.shim.wait("w")
        os.close(task.pending)
    assert bench.shim.tasks() == {}
    assert not (bench.root / "w" / "exit").exists()


def test_failed_start_leaves_no_task(bench):
    plan = Plan(0)
    plan.setns(bench.mounts, CLONE_NEWNS)
    plan.stdio()
    plan.exec(["no-such-program"], ENV)
    (bench.root / "x").mkdir()
    with pytest.raises(StartFailed) as caught:
        run(Task(bench.shim, "x", str(bench.root / "x")), plan)
    assert caught.value.exit_code == 127
    assert bench.shim.tasks() == {}
    assert not (bench.root / "x" / "exit").exists()


def test_attached_client_gets_a_copy_and_log_is_kept(bench):
    reader, writer = os.pipe()
    bench.task("a", "echo one; echo two", attach=Attach(stdout_fd=writer))
    os.close(writer)
    with open(reader, "rb") as out:
        assert out.read() == b"one\ntwo\n"
    assert bench.wait("a") == 0
    assert [e["log"] for e in bench.log("a")] == ["one\n", "two\n"]


def test_slow_client_loses_nothing_and_holds_up_nobody_at_the_end(bench):
    """The client stops reading; the task is killed; what the log has the client still gets."""
    reader, writer = os.pipe()
    far = bench.root / "far"
    os.mkfifo(far)
    bench.task("a", f"seq 1 20000; echo > {far}; seq 1 100000", attach=Attach(stdout_fd=writer))
    os.close(writer)
    first = os.read(reader, 10)
    far.read_text()  # the program is past what the client's pipe holds
    bench.task("b", "echo not held up")
    assert bench.wait("b") == 0
    bench.shim.signal("a", signal.SIGKILL)
    assert bench.wait("a") == 137
    with open(reader, "rb") as out:
        got = first + out.read()
    assert len(got) > 65536, "the pipe alone would have held that"
    assert got.decode() == "".join(e["log"] for e in bench.log("a"))


def test_client_that_goes_away_is_forgotten(bench):
    reader, writer = os.pipe()
    os.close(reader)
    bench.task("a", "seq 1 5000; echo end", attach=Attach(stdout_fd=writer))
    os.close(writer)
    assert bench.wait("a") == 0
    assert bench.log("a")[-1]["log"] == "end\n"


def test_a_client_that_attaches_later(bench):
    """To a running task: it gets what comes from then on, and may type."""
    script = "read line; echo got $line; cat"
    bench.task("a", script, flags=frame.SPAWN_STDIN | frame.SPAWN_STDIN_ONCE)
    reader, writer = os.pipe()
    out_reader, out_writer = os.pipe()
    flags = frame.SPAWN_ATTACH_IN | frame.SPAWN_ATTACH_OUT
    assert bench.shim.attach("a", flags, [reader, out_writer])
    os.close(reader)
    os.close(out_writer)
    os.write(writer, b"one\ntwo\n")
    os.close(writer)
    with open(out_reader, "rb") as out:
        assert out.read() == b"got one\ntwo\n"
    assert bench.wait("a") == 0
    assert not bench.shim.attach("gone", 0, [])


def test_stdin_from_a_client(bench):
    reader, writer = os.pipe()
    out_reader, out_writer = os.pipe()
    bench.task(
        "a",
        "cat",
        flags=frame.SPAWN_STDIN | frame.SPAWN_STDIN_ONCE,
        attach=Attach(stdin_fd=reader, stdout_fd=out_writer),
    )
    os.close(reader)
    os.close(out_writer)
    os.write(writer, b"typed\n")
    os.close(writer)
    with open(out_reader, "rb") as out:
        assert out.read() == b"typed\n"
    assert bench.wait("a") == 0


def test_stdin_is_dev_null_unless_asked_for(bench):
    bench.task("a", "cat; echo end")
    assert bench.wait("a") == 0
    assert [e["log"] for e in bench.log("a")] == ["end\n"]


def test_kept_open_stdin_ends_on_request(bench):
    bench.task("a", "cat; echo end", flags=frame.SPAWN_STDIN)
    assert bench.shim.close_stdin("a")
    assert bench.wait("a") == 0


def test_terminal(bench):
    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    bench.task(
        "a",
        "stty size; read line; echo got $line; test -t 0 && tty",
        tty=True,
        flags=frame.SPAWN_STDIN,
        attach=Attach(stdin_fd=in_reader, stdout_fd=out_writer),
    )
    os.close(in_reader)
    os.close(out_writer)
    os.write(in_writer, b"hello\n")
    with open(out_reader, "rb") as out:
        words = out.read().split()
    os.close(in_writer)
    assert bench.wait("a") == 0
    assert words[words.index(b"24") + 1] == b"80"
    assert b"got" in words
    assert words[-1].startswith(b"/dev/pts/")


def test_resize(bench):
    out_reader, out_writer = os.pipe()
    bench.task(
        "a",
        "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done",
        tty=True,
        attach=Attach(stdout_fd=out_writer),
    )
    os.close(out_writer)
    with open(out_reader, "rb") as out:
        assert out.readline().strip() == b"ready"
        assert bench.shim.resize("a", 33, 111)
        assert out.readline().strip() == b"33 111"
    assert bench.wait("a") == 0


def test_tasks_survive_their_starter(bench):
    pid = os.fork()
    if pid == 0:
        child = Bench(bench.root)
        child.task("orphan", "read x < /proc/uptime; sleep 0.2; echo still here; exit 5")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    bench.keys.append("orphan")
    assert bench.wait("orphan") == 5
    assert bench.log("orphan")[0]["log"] == "still here\n"


def test_large_plan_goes_through_a_memory_file(bench):
    directory = bench.root / "big"
    directory.mkdir()
    plan = Plan(CLONE_NEWPID)
    plan.setns(bench.mounts, CLONE_NEWNS)
    plan.stdio()
    plan.exec(["sh", "-c", 'test "${#1}" = 100000', "sh", "x" * 100000], {**ENV, "Y": "y" * 100000})
    bench.keys.append("big")
    run(Task(bench.shim, "big", str(directory)), plan)
    assert bench.wait("big") == 0


def test_shim_lives_in_an_empty_place(bench):
    bench.task("a", "exec sleep 1000")
    pid = shim_processes(bench)[0]
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    assert len(mounts) == 1 and " ro," in mounts[0]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:pynetns-shim")
    with pytest.raises(OSError):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)


def test_shim_stays_small(bench):
    """At most 2 MiB and 20 KiB a task; most of what is there is the program itself."""
    for i in range(40):
        bench.task(f"t{i}", "exec sleep 1000")
    status = Path(f"/proc/{shim_processes(bench)[0]}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident <= 2048 + 40 * 20


def test_shim_ends_when_nothing_is_left(bench):
    bench.task("a", "true")
    assert bench.wait("a") == 0
    pidfd = os.pidfd_open(shim_processes(bench)[0])
    bench.replaced = True
    bench.shim.close()
    try:
        import select

        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(10_000), "the shim is still there"
    finally:
        os.close(pidfd)
    # and a new one is started when needed
    bench.task("b", "exit 3")
    assert bench.wait("b") == 3


def test_hostile_frames_are_answered_by_a_closed_connection(bench):
    bench.task("a", "exec sleep 1000")
    fd = bench.shim.connect()
    frame.send(fd, 99)
    with pytest.raises(KernelError) as caught:
        frame.receive(fd)
    assert caught.value.name == "EPIPE"
    os.close(fd)
    assert "a" in bench.shim.tasks()
