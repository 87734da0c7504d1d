"""csrc/keeper.c, csrc/shim_store.c: the shim or its keeper is killed, at any moment, and nothing is lost."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from pynetns.engine.ending import LOST
from pynetns.errors import StartFailed
from pynetns.kernel import frame
from pynetns.kernel.pidfd import exit_code
from pynetns.runtime.task import Attach, read_exit

from ..conftest import shim_processes, wait_for_ends
from .shim_bench import Bench

pytestmark = pytest.mark.root
SHIM, KEEPER = 0, 1


@functools.cache
def exits_are_told() -> bool:
    """Whether this kernel tells how a process ended that somebody else has reaped (Linux 6.15)."""
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    code = exit_code(pidfd, pid, 0)
    os.close(pidfd)
    return code is not None


def code_after(killed: list[int], code: int) -> int:
    """What is known of a task's end when these were killed during its life: of one that has lost both
    its parents only what the kernel tells."""
    return code if len(set(killed)) < 2 or exits_are_told() else LOST


SECONDS = 40  # of killing at random


def kill(bench: Bench, which: int) -> None:
    """Kill one of the two; returns when both are there again."""
    bench.replaced = True
    before = shim_processes(bench)
    pidfd = os.pidfd_open(before[which])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait_for_ends([pidfd])
    while True:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            now = shim_processes(bench)  # waits for an answer
            if now[SHIM] != before[SHIM] and now[KEEPER] != 1:
                return


@pytest.mark.parametrize("killed", [[SHIM], [KEEPER], [SHIM, KEEPER, SHIM], [KEEPER, SHIM, KEEPER]])
def test_a_task_outlives_the_death_of_either(bench, killed):
    """Its output goes on where it was, a waiter and a client that were there before are served."""
    go = bench.root / "go"
    os.mkfifo(go)
    reader, writer = os.pipe()
    script = f"trap 'echo SIGPIPE' PIPE; echo one; read x < {go}; seq 1 30000; exit 9"
    bench.task("a", script, attach=Attach(stdout_fd=writer))
    os.close(writer)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(bench.wait("a")))
    waiter.start()
    with open(reader, "rb") as out:
        assert out.readline() == b"one\n"
        for which in killed:
            kill(bench, which)
        go.write_text("\n")
        expected = "".join(f"{i}\n" for i in range(1, 30001))
        assert out.read().decode() == expected
    waiter.join()
    assert codes == [code_after(killed, 9)]
    assert read_exit(str(bench.root / "a")).code == codes[0]
    assert "".join(entry["log"] for entry in bench.log("a")) == "one\n" + expected


def test_an_exit_in_the_moment_without_a_shim_is_known(bench):
    pidfds = [os.pidfd_open(bench.task(f"t{i}", "exec sleep 1000").pid) for i in range(5)]
    shim = shim_processes(bench)[SHIM]
    bench.replaced = True
    os.kill(shim, signal.SIGSTOP)
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait_for_ends(pidfds)
    os.kill(shim, signal.SIGKILL)
    for i in range(5):
        assert bench.wait(f"t{i}") == 137
        assert read_exit(str(bench.root / f"t{i}")).code == 137


def test_requests_that_lay_unread_are_answered_by_the_successor(bench):
    bench.task("a", "exec sleep 1000")
    connection = bench.shim.connect()
    fd = connection.fileno()
    shim = shim_processes(bench)[SHIM]
    bench.replaced = True
    os.kill(shim, signal.SIGSTOP)
    frame.send(fd, frame.LIST, serial=7)
    os.kill(shim, signal.SIGKILL)
    answer = frame.receive(fd)
    assert (answer.kind, answer.serial) == (frame.TASK, 7)
    assert frame.parse_tasks(answer.payload)[0][0] == "a"
    connection.close()


def test_who_waits_does_not_notice(bench):
    """`logs -f` follows until this socket is readable."""
    bench.task("a", "exec sleep 1000")
    waiter = bench.shim.waiter("a")
    killed = [SHIM, KEEPER, SHIM]
    for which in killed:
        kill(bench, which)
    assert not select.select([waiter], [], [], 0)[0]
    bench.shim.signal("a", signal.SIGKILL)
    answer = frame.receive(waiter.fileno())
    assert (answer.kind, answer.arg) == (frame.EXITED, code_after(killed, 137))
    waiter.close()


def test_a_terminal_goes_on(bench):
    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    bench.task(
        "a",
        "stty -echo; echo ready; while read line; do echo got $line; done",
        tty=True,
        flags=frame.SPAWN_STDIN,
        attach=Attach(stdin_fd=in_reader, stdout_fd=out_writer),
    )
    os.close(in_reader)
    os.close(out_writer)
    with open(out_reader, "rb") as out:
        assert out.readline().strip() == b"ready"
        for which in (SHIM, KEEPER):
            kill(bench, which)
            os.write(in_writer, b"line\n")
            assert out.readline().strip() == b"got line"
    os.close(in_writer)


def test_the_two_stay_small(bench):
    """At most 2 MiB and 20 KiB a task, shared pages counted once."""
    count = 100
    for i in range(count):
        bench.task(f"t{i}", "echo started; exec sleep 1000")
    kilobytes = 0
    for pid in shim_processes(bench):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kilobytes += int(rollup.split("Pss:")[1].split()[0])
    assert kilobytes <= 2048 + count * 20


class Load:
    """Tasks of several kinds, one after the other on each of some threads, each checked to the byte."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.seed = seed
        self.stop = threading.Event()
        self.faults: list[object] = []
        self.logs: list[tuple[str, int]] = []  # key, lines: looked at when all is written
        self.done = 0

    def run(self, worker: int) -> None:
        number = 0
        while not (self.stop.is_set() or self.faults):
            key = f"w{worker}-{number}"
            number += 1
            try:
                self.one(key, random.Random(f"{self.seed}-{key}"))
            except BaseException as error:
                self.faults.append((key, repr(error)))

    def one(self, key: str, rng: random.Random) -> None:
        self.refused(f"{key}-refused")
        code, lines = rng.randrange(1, 100), rng.choice([10, 2000, 20000, 60000])
        half = lines // 2
        script = f"seq 1 {half}; sleep 0.0{rng.randrange(9)}; seq {half + 1} {lines}; exit {code}"
        reader, writer = os.pipe()
        received: list[bytes] = []
        client = threading.Thread(target=read_all, args=(reader, received))
        attached = Attach(stdout_fd=writer) if rng.random() < 0.5 else Attach()
        try:
            self.bench.task(key, script, attach=attached)
        except StartFailed as error:
            if "killed during the start" not in str(error):
                raise
            os.close(reader)
            os.close(writer)
            return  # told, and nothing has happened
        os.close(writer)
        client.start()
        assert self.bench.wait(key) == code
        assert read_exit(str(self.bench.root / key)).code == code
        client.join()
        expected = "".join(f"{i}\n" for i in range(1, lines + 1))
        self.logs.append((key, lines))
        if attached.stdout_fd >= 0:
            assert received[0].decode() == expected, ("client", len(received[0]), len(expected))
        self.done += 1

    def refused(self, key: str) -> None:
        """A program that is not there: told as such, or as killed before anything was known of it."""
        try:
            self.bench.task(key, "", program="no-such-program")
        except StartFailed as error:
            if "killed during the start" in str(error):
                return
            assert (error.exit_code, "not found" in str(error)) == (127, True), str(error)
        else:
            raise AssertionError("started")

    def check_logs(self) -> None:
        for key, lines in self.logs:
            logged = "".join(entry["log"] for entry in self.bench.log(key))
            expected = "".join(f"{i}\n" for i in range(1, lines + 1))
            assert logged == expected, (key, len(logged), len(expected))


def read_all(fd: int, received: list[bytes]) -> None:
    with open(fd, "rb") as file:
        received.append(file.read())


def test_killing_either_at_random_under_load(bench):
    if exits_are_told():
        kill_under_load(bench, [SHIM, KEEPER], SECONDS)
    else:  # codes are only kept while one of the two that know them is left
        kill_under_load(bench, [SHIM], SECONDS / 2)


def test_killing_the_keeper_at_random_under_load(bench):
    kill_under_load(bench, [KEEPER], SECONDS / 4)


def kill_under_load(bench: Bench, killed: list[int], seconds: float) -> None:
    seed = random.randrange(1 << 30)
    rng, load = random.Random(seed), Load(bench, seed)
    bench.task("first", "exec sleep 1000")
    threads = [threading.Thread(target=load.run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    kills, until = 0, time.monotonic() + seconds
    try:
        while not load.faults and (time.monotonic() < until or kills < 20 or load.done < 10):
            select.select([], [], [], rng.random() * 0.05)  # the moment is the input here
            kill(bench, rng.choice(killed))
            kills += 1
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()
    assert not load.faults, (seed, load.faults)
    assert list(bench.shim.tasks()) == ["first"]
    bench.shim.signal("first", signal.SIGKILL)
    assert bench.wait("first") == 137
    pidfd = os.pidfd_open(shim_processes(bench)[SHIM])
    bench.shim.close()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(60_000), "it ends when everything is written"
    os.close(pidfd)
    load.check_logs()
