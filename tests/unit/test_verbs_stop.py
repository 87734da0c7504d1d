"""engine/verbs/stop.py on a fake machine: kill, stop and wait."""

from __future__ import annotations

import signal
import threading

import pytest

from pynetns import errors
from pynetns.engine.verbs.wait import container_wait
from pynetns.kernel.process import ProcessIdentity
from pynetns.testing import FakeEngine, fake_engine

from .verbs import SLEEP, events, failing, files, left, start

# ---- kill ----


def test_kill(engine: FakeEngine) -> None:
    container = start(engine)
    container.kill()
    state = container.attrs["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert state["FinishedAt"] >= state["StartedAt"]
    assert events(engine) == ["create", "start", "kill", "die"]
    assert [e.attributes.get("signal") for e in engine.events()] == [None, None, "9", None]
    assert left(engine) == []


@pytest.mark.parametrize("given", ["SIGHUP", "HUP", "1", 1])
def test_another_signal_is_sent_and_not_waited_for(engine: FakeEngine, given) -> None:
    container = start(engine, network_mode="none")
    container.kill(given)
    assert engine.shim.task(container.id).signals == [signal.SIGHUP]
    assert container.status == "running" and events(engine)[-1] == "kill"


def test_kill_of_one_that_does_not_run(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="down")
    with pytest.raises(errors.Conflict, match="Cannot kill container: down: container is not run"):
        container.kill()
    assert events(engine) == ["create"]
    container.remove()
    with pytest.raises(errors.NotFound):
        container.kill()


def test_an_unknown_signal(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    with pytest.raises(errors.InvalidParameter, match="NOSUCH"):
        container.kill("NOSUCH")
    assert engine.shim.task(container.id).signals == []


def test_kill_of_one_that_has_ended_unnoticed(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    engine.shim.task(container.id).exit(0)
    with pytest.raises(errors.Conflict):
        container.kill()


# ---- stop ----


def test_stop_asks_first(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    task = engine.shim.task(container.id)
    task.handlers[signal.SIGTERM] = 0
    container.stop()
    assert task.signals == [signal.SIGTERM]
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 0)
    assert events(engine) == ["create", "start", "die", "stop"] and left(engine) == []


def test_stop_kills_then(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none", stop_signal="SIGINT")
    task = engine.shim.task(container.id)
    container.stop(0.01)
    assert task.signals == [signal.SIGINT, signal.SIGKILL]
    assert container.attrs["State"]["ExitCode"] == 137


@pytest.mark.parametrize(
    ("own", "given", "waited"), [(None, None, 10), (3, None, 3), (3, 5, 5), (0, None, 0)]
)
def test_how_long_stop_waits(engine: FakeEngine, monkeypatch, own, given, waited) -> None:
    options = {} if own is None else {"stop_timeout": own}
    container = start(engine, network_mode="none", **options)
    seen: list[float | None] = []
    real = engine.shim.wait

    def wait(key: str, timeout: float | None = None, **run):
        seen.append(timeout)
        return real(key, timeout, **run)

    monkeypatch.setattr(engine.shim, "wait", wait)
    container.stop(given)
    assert seen[0] is not None and waited - 1 < seen[0] <= waited


def test_stop_for_ever(engine: FakeEngine, monkeypatch) -> None:
    container = start(engine, network_mode="none")
    seen: list[float | None] = []
    task = engine.shim.task(container.id)

    def wait(key: str, timeout: float | None = None, **run) -> None:
        seen.append(timeout)
        task.exit(0)

    monkeypatch.setattr(engine.shim, "wait", wait)
    container.stop(-1)
    assert seen == [None] and task.signals == [signal.SIGTERM]


def test_stop_of_one_that_does_not_run(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP)
    container.stop()
    assert events(engine) == ["create"]
    container.remove()
    with pytest.raises(errors.NotFound):
        container.stop()


def test_restart(engine: FakeEngine) -> None:
    container = start(engine)
    first = engine.shim.task(container.id).pid
    container.restart(0)
    assert container.status == "running" and engine.shim.task(container.id).pid != first


# ---- wait ----


def test_wait_returns_with_the_end(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    waits = threading.Event()
    real = engine.shim.wait

    def wait(key: str, timeout: float | None = None, **run):
        waits.set()
        return real(key, timeout, **run)

    engine.shim.wait = wait  # type: ignore[method-assign]

    def end() -> None:
        waits.wait()
        engine.shim.task(container.id).exit(4)

    thread = threading.Thread(target=end)
    thread.start()
    assert container.wait() == {"StatusCode": 4}
    thread.join()
    assert container.wait() == {"StatusCode": 4}  # at once
    assert events(engine) == ["create", "start", "die"] and left(engine) == []


def test_wait_not_longer_than_told(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    with pytest.raises(TimeoutError):
        container.wait(0.01)
    assert container.status == "running"


def test_wait_for_one_that_is_gone(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP)
    container.remove()
    with pytest.raises(errors.NotFound):
        container.wait()


def test_wait_for_one_that_is_removed_at_its_end(engine: FakeEngine, directory: str) -> None:
    """Another engine is faster: its code is known all the same."""
    container = start(engine, network_mode="none", remove=True)
    task = engine.shim.task(container.id)

    def wait(key: str, timeout: float | None = None, **run) -> None:
        task.exit(6)
        with fake_engine(directory, engine.machine) as other:
            assert other.containers.list(all=True) == []

    engine.shim.wait = wait  # type: ignore[method-assign]
    assert container_wait(engine, container.id) == 6
    assert left(engine) == [] and files(engine) == []


# ---- the shim is gone, or the kernel refuses ----


def test_without_a_shim_the_process_itself_is_asked(engine: FakeEngine, monkeypatch) -> None:
    """It was killed, and its keeper: the container runs on, is signalled and waited for."""
    container = start(engine, network_mode="none")
    task = engine.shim.task(container.id)
    engine.shim.lose()
    assert engine.containers.get(container.id).status == "running"
    container.kill("HUP")
    assert task.signals == [signal.SIGHUP]
    real = engine.kernel.process_open

    def ends(identity: ProcessIdentity) -> int:
        pidfd = real(identity)
        task.exit(9)
        return pidfd

    monkeypatch.setattr(engine.kernel, "process_open", ends)
    assert container.wait() == {"StatusCode": 9}
    assert container.status == "exited" and left(engine) == []


def test_kill_without_a_shim_takes_what_is_in_the_cgroup(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    other = engine.shim.task(container.exec_start(SLEEP).id)
    other.leader = None  # it would outlive the first process
    engine.shim.lose()
    container.kill()
    assert container.status == "exited" and other.exit_code == 137
    assert left(engine) == []


@pytest.mark.parametrize("verb", ["kill", "stop", "remove"])
def test_whichever_call_fails_the_next_try_does_it(engine: FakeEngine, verb: str) -> None:
    options = {"force": True} if verb == "remove" else {}
    current, tried = [start(engine)], 0
    for name, _ in failing(engine, lambda: getattr(current[0], verb)(**options)):
        tried += 1
        for container in engine.containers.list(all=True):
            container.remove(force=True)
        assert left(engine) == [] and files(engine) == [], name
        current[0] = start(engine)
    assert tried >= 4
