"""engine/lock.py: one at a time, also between processes; never on a file that has lost its name."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pynetns.engine.lock import container_lock, remove_lock, try_container_lock

ID = "ab" * 32
HOLD = (
    "import sys\n"
    "from pynetns.engine.lock import container_lock\n"
    "with container_lock(sys.argv[1], sys.argv[2]):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "locks").mkdir()
    return str(tmp_path)


def is_free(place: str) -> bool:
    with try_container_lock(place, ID) as held:
        return held


def holder(place: str) -> subprocess.Popen[bytes]:
    """Another process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, place, ID], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize("lock", [container_lock, try_container_lock])
def test_nobody_else_has_it_meanwhile(place: str, lock) -> None:  # type: ignore[no-untyped-def]
    with lock(place, ID):
        assert not is_free(place)
        with try_container_lock(place, "cd" * 32) as other:
            assert other
    assert is_free(place)


def test_another_process_keeps_it_out_and_its_end_lets_it_in(place: str) -> None:
    with holder(place) as process:
        assert not is_free(place)
        process.kill()
        process.wait()
        assert is_free(place)


def test_whoever_waits_comes_in_after_the_other(place: str) -> None:
    inside: list[str] = []
    started = threading.Event()

    def wait() -> None:
        started.set()
        with container_lock(place, ID):
            inside.append("waiter")

    with container_lock(place, ID):
        thread = threading.Thread(target=wait)
        thread.start()
        started.wait()
        inside.append("holder")
    thread.join()
    assert inside == ["holder", "waiter"]


def test_an_exception_gives_it_back(place: str) -> None:
    for lock in (container_lock, try_container_lock):
        with pytest.raises(ZeroDivisionError), lock(place, ID):
            raise ZeroDivisionError
        assert is_free(place)


@pytest.mark.parametrize("lock", [container_lock, try_container_lock])
@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_that_was_forked_meanwhile_does_not_keep_it(place: str, lock) -> None:  # type: ignore[no-untyped-def]
    reader, writer = os.pipe()
    with lock(place, ID):
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        assert is_free(place)
    finally:
        os.close(reader)
        os.close(writer)
        os.waitpid(pid, 0)


def test_a_lock_whose_file_was_removed_is_not_taken_for_the_new_one(
    place: str, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    """Who waits has the file open that the holder removes; the next one comes to a file of its own."""
    import fcntl

    real, order = fcntl.flock, []

    def removed_before_it_is_locked(file, operation):  # type: ignore[no-untyped-def]
        if not order:
            order.append("removed")
            remove_lock(place, ID)
        return real(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before_it_is_locked)
    with container_lock(place, ID):
        assert order == ["removed"]
        assert os.listdir(f"{place}/locks") == [ID]
        assert not is_free(place)


def test_a_removed_lock_leaves_no_file_and_no_descriptor(place: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with container_lock(place, ID):
            remove_lock(place, ID)
            remove_lock(place, ID)  # absent is fine
    with container_lock(place, ID), try_container_lock(place, ID) as held:
        assert not held
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(f"{place}/locks") == [ID]
