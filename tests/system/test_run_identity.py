"""A waiter, a signal, an exit mean the run that was found, whoever restarts the container meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from pynetns.engine.verbs import wait
from pynetns.errors import Conflict, InvalidParameter, NotFound

from ..killing import die, killed

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]
LONG = 60.0  # seconds, after which a test that waits for the wrong run fails


@pytest.fixture
def once(place, tmp_path):
    """A running container whose first run ends with 3 when told to, and whose next ones go on; what
    ends the first and starts the second, by another engine."""
    engine, other = place.engine(), place.engine()
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f"test -e /ran && exec sleep 1000; touch /ran; read line < {go}; exit 3"
    container = engine.containers.run(
        "host", ["sh", "-c", script], detach=True, volumes={str(tmp_path): str(tmp_path)}
    )

    def again() -> None:
        go.write_text("go\n")
        same = other.containers.get(container.id)
        assert other.containers.get(container.id).wait(LONG)["StatusCode"] == 3
        same.start()

    return container, again


def before(monkeypatch, module: str, name: str, act: Callable[[], None]) -> None:
    """Have `act` come between what a verb has looked at and the function that it calls next."""
    import importlib

    home = importlib.import_module(f"pynetns.engine.{module}")
    real = getattr(home, name)
    done: list[bool] = []

    def instead(*args, **options):
        if not done:
            done.append(True)
            act()
        return real(*args, **options)

    monkeypatch.setattr(home, name, instead)


@pytest.mark.parametrize("moment", ["await_end", "settle_now"])
def test_wait_answers_for_the_run_it_began_with(once, monkeypatch, moment):
    container, again = once
    if moment == "settle_now":  # the end is seen, and somebody is faster in all that follows
        real = wait.await_end

        def end_and_again(*args, **options):
            monkeypatch.setattr(wait, "await_end", real)
            again()

        monkeypatch.setattr(wait, "await_end", end_and_again)
    else:
        before(monkeypatch, "verbs.wait", "await_end", again)
    assert container.wait(LONG) == {"StatusCode": 3}
    assert container.status == "running"
    assert container.row.state.run == 2


def test_kill_does_not_reach_the_next_run(once, monkeypatch):
    container, again = once
    before(monkeypatch, "verbs.stop", "send_signal", again)
    with pytest.raises(Conflict, match="is not running"):
        container.kill()
    container.reload()
    assert (container.status, container.row.state.run) == ("running", 2)


def test_stop_does_not_reach_the_next_run(once, monkeypatch):
    container, again = once
    before(monkeypatch, "verbs.stop", "send_signal", again)
    container.stop(timeout=LONG)
    container.reload()
    assert (container.status, container.row.state.run) == ("running", 2)


def test_an_exec_does_not_enter_the_next_run(once, monkeypatch):
    container, again = once
    before(monkeypatch, "verbs.exec", "start_exec", again)
    with pytest.raises(Conflict, match="is not running"):
        container.exec_run(["true"])
    container.reload()
    assert container.exec_run(["true"])[0] == 0


def test_whoever_lost_its_shim_records_no_end_of_the_next_run(once, monkeypatch):
    """An orphan's waiter writes the record: never into a bundle of a later run."""
    from pynetns.runtime.shim.client import ShimClient

    container, again = once
    engine = container._engine
    monkeypatch.setattr(engine.shim, "wait", lambda *args, **options: None)
    before(monkeypatch, "ending", "read_exit", lambda: None)
    real = ShimClient.tasks

    def tasks(self, *args):
        found = real(self, *args)
        found.pop(container.id, None)
        return found

    from pynetns.kernel import pidfd

    ended = pidfd.ended

    def end_and_again(fd, timeout):
        if timeout == 0:
            return ended(fd, timeout)
        again()
        monkeypatch.setattr(engine.shim, "tasks", tasks.__get__(engine.shim))
        return True

    monkeypatch.setattr("pynetns.engine.ending.pidfds.ended", end_and_again)
    assert container.wait(LONG) == {"StatusCode": 3}
    monkeypatch.undo()
    container.reload()
    assert (container.status, container.row.state.run) == ("running", 2)


# ---- conditions ----


@pytest.fixture
def waiting(monkeypatch):
    """Start a wait in a thread; returns once it watches, with what it will answer."""
    from pynetns.streams.inotify import DirectoryWatch

    watches = threading.Event()
    real = DirectoryWatch.wait

    def watch(self, *args, **options):
        watches.set()
        return real(self, *args, **options)

    monkeypatch.setattr(DirectoryWatch, "wait", watch)
    threads: list[threading.Thread] = []

    def begin(container, condition: str) -> Callable[[], int]:
        answers: list[object] = []

        def work() -> None:
            try:
                answers.append(container.wait(LONG, condition)["StatusCode"])
            except BaseException as error:
                answers.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        assert watches.wait(LONG)
        watches.clear()

        def answer():
            thread.join()
            return answers[0]

        return answer

    yield begin
    for thread in threads:
        thread.join()


def test_next_exit_of_one_that_does_not_run(place, waiting):
    engine, other = place.engine(), place.engine()
    container = engine.containers.create("host", ["sh", "-c", "exit 4"])
    assert container.wait() == {"StatusCode": 0}  # not-running: at once
    answer = waiting(container, "next-exit")
    other.containers.run("host", ["true"], remove=True)  # another's start and end
    other.containers.get(container.id).start()
    assert answer() == 4


def test_next_exit_of_one_that_runs(engine):
    container = engine.containers.run("host", ["sh", "-c", "exit 4"], detach=True)
    assert container.wait(condition="next-exit") == {"StatusCode": 4}


def test_a_removal_ends_the_wait_for_a_next_exit(place, waiting):
    engine, other = place.engine(), place.engine()
    container = engine.containers.create("host", SLEEP)
    answer = waiting(container, "next-exit")
    other.containers.get(container.id).remove()
    assert answer() == 0


def test_removed(place, waiting):
    engine, other = place.engine(), place.engine()
    container = engine.containers.run("host", SLEEP, detach=True)
    same = other.containers.get(container.id)
    same.kill()
    answer = waiting(container, "removed")
    same.restart(timeout=0)
    same.remove(force=True)
    assert answer() == 137
    with pytest.raises(NotFound):
        container.reload()


def test_removed_with_its_end(engine):
    container = engine.containers.run("host", ["sh", "-c", "exit 5"], detach=True, remove=True)
    assert container.wait(condition="removed") == {"StatusCode": 5}
    assert engine.containers.list(all=True) == []


def test_conditions_that_do_not_come(engine):
    container = engine.containers.create("host", SLEEP)
    for condition in ("next-exit", "removed"):
        with pytest.raises(TimeoutError):
            container.wait(timeout=0.01, condition=condition)
    container.start()
    for condition in ("not-running", "next-exit", "removed"):
        with pytest.raises(TimeoutError):
            container.wait(timeout=0.01, condition=condition)
    with pytest.raises(InvalidParameter, match='invalid condition: "gone"'):
        container.wait(condition="gone")


def test_auto_remove_takes_nothing_that_was_started_anew(place):
    """Its end and that it is to go are one write: there is no moment at which it could be started."""

    def half_ended(engine):
        from pynetns.engine import ending

        ending.release_resources = die
        engine.containers.run("host", ["true"], detach=True, remove=True, name="once").wait()

    engine = place.engine()
    killed(place, half_ended)
    row = engine.store.container_by_name("once")
    assert row.state.status == "removing"
    with pytest.raises(NotFound):
        engine.containers.get("once").start()
    assert engine.store.containers() == []
