"""csrc/keeper.c, csrc/shim_store.c: the shim or its keeper is killed, at any moment, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from pynetns.errors import StartFailed
from pynetns.kernel import frame
from pynetns.runtime.task import Attach, read_exit

from ..conftest import shim_processes, wait_for_ends
from .shim_bench import Bench

pytestmark = pytest.mark.root
SHIM, KEEPER = 0, 1
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
    assert codes == [9] and read_exit(str(bench.root / "a")).code == 9
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
    for which in (SHIM, KEEPER, SHIM):
        kill(bench, which)
    assert not select.select([waiter], [], [], 0)[0]
    bench.shim.signal("a", signal.SIGKILL)
    answer = frame.receive(waiter.fileno())
    assert (answer.kind, answer.arg) == (frame.EXITED, 137)
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

    def check_logs(self) -> None:
        for key, lines in self.logs:
            logged = "".join(entry["log"] for entry in self.bench.log(key))
            expected = "".join(f"{i}\n" for i in range(1, lines + 1))
            assert logged == expected, (key, len(logged), len(expected))


def read_all(fd: int, received: list[bytes]) -> None:
    with open(fd, "rb") as file:
        received.append(file.read())


def test_killing_either_at_random_under_load(bench):
    seed = random.randrange(1 << 30)
    rng, load = random.Random(seed), Load(bench, seed)
    bench.task("first", "exec sleep 1000")
    threads = [threading.Thread(target=load.run, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    kills, until = 0, time.monotonic() + SECONDS
    try:
        while not load.faults and (time.monotonic() < until or kills < 20 or load.done < 10):
            select.select([], [], [], rng.random() * 0.05)  # the moment is the input here
            kill(bench, rng.randrange(2))
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
