"""What a forked child has of its parent's: nothing that others wait for the parent to let go of."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pynetns import forks, locks
from pynetns.engine.exec_record import ExecRecord, sweep_records
from pynetns.kernel import LinuxKernel
from pynetns.network.ports import PortAllocator, PortRequest
from pynetns.runtime.oci_state import StateDirectory
from pynetns.runtime.task import told_socket
from pynetns.store import Store
from pynetns.trace import Metrics, Recorder, Span, add_spans
from pynetns.undo import Undo


@contextmanager
def living_child() -> Iterator[None]:
    """A child that does nothing but live, for as long as the block takes."""
    life, end = os.pipe()
    lives, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(tell, b"x")
        os.read(life, 1)
        os._exit(0)
    os.read(lives, 1)
    try:
        yield
    finally:
        for fd in (end, life, lives, tell):
            os.close(fd)
        os.waitpid(pid, 0)


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` returns in a child."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1)
    return code == 0


def at_end(fd: int) -> bool:
    """Whether nobody can write to the pipe any more."""
    return bool(select.select([fd], [], [], 0)[0]) and os.read(fd, 1) == b""


def test_a_pipe_ends_though_a_child_lives():
    with forks.Descriptors() as fds:
        reader, writer = fds.pipe()
        with living_child():
            fds.close_all_but((reader,))
            assert at_end(reader)
        assert writer not in fds


def test_the_numbers_stay_taken_in_the_child():
    """A frame of the thread that forked may close them there: they are nobody else's by then."""
    with forks.Descriptors() as fds:
        reader, writer = fds.pipe()

        def fails() -> bool:
            with pytest.raises(OSError, match="Invalid argument"):
                os.read(reader, 1)
            opened = [*os.pipe(), *os.pipe()]
            return not {reader, writer} & set(opened)

        assert in_child(fails)
        os.write(writer, b"x")  # the parent's own still work
        assert os.read(reader, 1) == b"x"


def test_what_is_closed_is_not_taken_from_the_child():
    """The number of a closed descriptor may be anybody's."""
    fds = forks.Descriptors()
    lock = locks.take(f"/dev/shm/pynetns-test-{os.getpid()}")
    os.unlink(f"/dev/shm/pynetns-test-{os.getpid()}")
    number = lock.fileno()
    closed = fds.pipe()
    fds.close()
    lock.close()
    others = [os.pipe() for _ in range(3)]
    assert {number, *closed} <= {fd for pipe in others for fd in pipe}
    try:
        assert in_child(lambda: all(os.write(writer, b"x") for _, writer in others))
        assert all(os.read(reader, 1) == b"x" for reader, _ in others)
    finally:
        for pipe in others:
            for fd in pipe:
                os.close(fd)


@pytest.mark.parametrize("take", [locks.take, locks.take_directory])
def test_a_lock_is_free_though_a_child_lives(tmp_path: Path, take: Callable[..., object]):
    path = str(tmp_path / "lock") if take is locks.take else str(tmp_path)
    with take(path) as held, living_child():
        with pytest.raises(BlockingIOError):
            take(path, wait=False)
        held.close()
        take(path, wait=False).close()


def test_the_childs_end_does_not_give_the_lock_back(tmp_path: Path):
    path = str(tmp_path / "lock")
    with locks.take(path) as held:
        assert in_child(lambda: held.close() is None)
        with pytest.raises(BlockingIOError):
            locks.take(path, wait=False)


def test_a_lock_of_a_killed_process_is_free_though_its_child_lives(tmp_path: Path):
    path = str(tmp_path / "lock")
    life, end = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = locks.take(path)
        if os.fork() == 0:
            os.close(end)
            os.write(tell, b"x")
            os.read(life, 1)
            os._exit(0)
        os.read(told, 1)
        os.kill(os.getpid(), 9 if lock else 0)
    os.waitpid(pid, 0)
    locks.take(path, wait=False).close()
    for fd in (end, life, told, tell):
        os.close(fd)


def test_a_removed_lock_file_is_made_anew(tmp_path: Path):
    path = str(tmp_path / "lock")
    first = locks.take(path)
    second: list[locks.FileLock] = []
    thread = threading.Thread(target=lambda: second.append(locks.take(path)))
    thread.start()
    os.unlink(path)
    first.close()
    thread.join()
    assert os.path.samestat(os.fstat(second[0].fileno()), os.stat(path))
    second[0].close()


def test_locks_between_threads_are_free_in_a_child():
    lock = locks.ThreadLock()
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        lock.alone(lambda: (inside.set(), go_on.wait(60)))

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    try:
        assert in_child(lambda: lock.alone(lambda: True))
    finally:
        go_on.set()
        thread.join()


def test_a_reserved_port_is_free_though_a_child_lives(tmp_path: Path):
    store = Store(str(tmp_path / "db"))
    ports = PortAllocator(store, LinuxKernel())
    held = forks.Descriptors()
    taken = ports.reserve([PortRequest("tcp", 80, "127.0.0.1", 0, 0)], held)[0]
    with living_child():
        held.close()
        with socket.socket() as other:
            other.bind(("127.0.0.1", taken.host_port))
    store.close()


def test_a_record_that_only_a_child_has_is_nobodys(tmp_path: Path):
    """Who waited for the exec has gone: the next one sweeps its record."""
    exec_root = str(tmp_path)
    os.makedirs(f"{exec_root}/tasks/c")
    record = ExecRecord(exec_root, "c", "e")
    with living_child():
        assert sweep_records(exec_root, "c") == []
        del record
        assert sweep_records(exec_root, "c") == ["c/e"]


def test_an_oci_containers_directory_is_free_though_a_child_lives(tmp_path: Path):
    place = StateDirectory(str(tmp_path), "c")
    with ExitStack() as life:
        with place.locked():
            life.enter_context(living_child())
            assert place.is_locked()
        assert not place.is_locked()


def test_a_process_that_died_is_told_though_a_child_lives():
    """The socket on which it would have said that it is prepared has ended."""
    with forks.Descriptors() as theirs, told_socket(theirs) as ours, living_child():
        theirs.close()
        assert select.select([ours], [], [], 0)[0] and ours.recv(1) == b""


def test_ports_can_be_reserved_in_a_child_of_the_middle(tmp_path: Path):
    """Whatever thread was choosing one when it was forked."""
    store = Store(str(tmp_path / "db"))
    ports = PortAllocator(store, LinuxKernel())
    request = PortRequest("tcp", 80, "127.0.0.1", 0, 0)

    def choose() -> bool:
        with forks.Descriptors() as held:
            return len(ports.reserve([request], held)) == 1

    assert ports._lock.alone(lambda: forked_elsewhere(choose))
    store.close()


def forked_elsewhere(work: Callable[[], bool]) -> bool:
    """`work` in a child that another thread forks."""
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(in_child(work)))
    thread.start()
    thread.join(60)
    return done == [True]


def test_a_fork_waits_for_who_is_opening_something(monkeypatch):
    """What is opened meanwhile is known to it: never a descriptor in between."""
    order: list[str] = []
    inside, forking = threading.Event(), threading.Event()

    def before() -> None:
        forking.set()
        order.append("forked")

    def nothing() -> None:
        pass

    def slow() -> int:
        inside.set()
        forking.wait(0.5)  # in vain
        order.append("opened")
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(forks._Process, "hooks", [forks.Hooks(before, nothing, nothing)])
    fds = forks.Descriptors()
    thread = threading.Thread(target=lambda: fds.open(slow))
    thread.start()
    assert inside.wait(60)
    assert in_child(lambda: len(fds) == 1)
    thread.join()
    fds.close()
    assert order == ["opened", "forked"]


def test_a_child_undoes_nothing():
    done: list[str] = []
    with Undo() as undo:
        undo.push(done.append, "undone")

        def leave() -> bool:
            undo.__exit__(None, None, None)
            return done == []

        assert in_child(leave)
    assert done == ["undone"]


def test_the_table_of_holders_does_not_grow():
    before = len(forks._Process.holders)
    for _ in range(100):
        forks.Descriptors().close()
    assert len(forks._Process.holders) == before


# ---- trace ----


def test_recorders_of_tasks_are_apart():
    """Two asyncio tasks of one thread, each with its own recorder."""

    async def work(name: str) -> list[str]:
        with Recorder() as recorder:
            for _ in range(3):
                now = time.monotonic_ns()
                add_spans([Span(name, now, now)])
                await asyncio.sleep(0)
            return [span.name for span in recorder.spans]

    async def both() -> list[list[str]]:
        return await asyncio.gather(work("a"), work("b"))

    assert asyncio.run(both()) == [["a"] * 3, ["b"] * 3]


def test_metrics_are_summed_up():
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.add("start", 1000) for _ in range(2500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = metrics.snapshot()
    assert found == {"start": {"count": 10000, "seconds": pytest.approx(0.01)}}
    assert len(metrics._new) == 0


def test_metrics_can_be_added_to_in_a_child_of_the_middle():
    metrics = Metrics()

    def add() -> bool:
        for _ in range(2000):
            metrics.add("start", 1)
        return metrics.snapshot()["start"]["count"] == 2000

    assert metrics._lock.alone(lambda: forked_elsewhere(add))


def test_flock_of_a_copy_is_what_it_is_about(tmp_path: Path):
    """What os.fork() would do without all this: the lock stays with the child's copy."""
    fd = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with living_child():
        os.close(fd)
        with pytest.raises(BlockingIOError):
            locks.take(str(tmp_path / "lock"), wait=False)
