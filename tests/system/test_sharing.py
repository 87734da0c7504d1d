"""What containers and execs share is counted under its owner's lock, and given back by the last."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pynetns.engine import joining
from pynetns.engine.lock import try_container_lock
from pynetns.errors import Conflict, StartFailed

from .. import leaks
from ..killing import die, killed

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def end(engine, container) -> None:
    """Its process ends; nobody notices."""
    engine.shim.signal(container.id, signal.SIGKILL)
    engine.shim.wait(container.id)


def test_who_joins_a_network_and_its_ending_owner_exclude_each_other(place, monkeypatch):
    """The owner ends between the look at it and the mark: its end is settled after the mark."""
    engine, other = place.engine(), place.engine()
    engine.containers.run("host", ["true"], remove=True)
    idle = {link for link in leaks.links() if not link.startswith("link veth")}
    owner = engine.containers.run("host", SLEEP, detach=True)
    joiner = engine.containers.create("host", SLEEP, network_mode=f"container:{owner.id}")
    real = joining.mark_shared

    def mark(exec_root, key):
        end(other, owner)
        assert [c.status for c in other.containers.list()] == ["running"]  # whoever settles waits
        real(exec_root, key)
        assert os.path.exists(f"{exec_root}/tasks/{key}/shared")

    monkeypatch.setattr(joining, "mark_shared", mark)
    with pytest.raises(Conflict, match="not running"):
        joiner.start()
    assert other.containers.list() == []
    assert other.store.endpoints() == [] and os.listdir(f"{engine.exec_root}/netns") == []
    leaks.wait_for_links(idle)
    assert leaks.links() <= idle


def test_an_end_decides_under_the_lock_by_which_it_is_joined(place, monkeypatch):
    from pynetns.engine import ending

    engine = place.engine()
    owner = engine.containers.run("host", SLEEP, detach=True)
    held: list[bool] = []
    real = ending.is_shared

    def is_shared(exec_root, key):
        with try_container_lock(exec_root, key) as free:
            held.append(not free)
        return real(exec_root, key)

    monkeypatch.setattr(ending, "is_shared", is_shared)
    owner.kill()
    assert held == [True]


@pytest.mark.parametrize("step", ["initialize_networking", "create_spec", "create_task"])
@pytest.mark.parametrize("kind", ["network", "ipc", "pid"])
def test_an_owner_that_ends_during_the_start(engine, monkeypatch, step, kind):
    """Whenever it is settled, nothing of it is used afterwards; the error says why."""
    from pynetns.engine.verbs import start

    owner = engine.containers.run("host", SLEEP, detach=True, ipc_mode="shareable")
    joiner = engine.containers.create("host", SLEEP, **{f"{kind}_mode": f"container:{owner.id}"})
    real = getattr(start, step)

    def ended(*args, **options):
        end(engine, owner)
        owner.reload()
        assert owner.status == "exited"
        return real(*args, **options)

    monkeypatch.setattr(start, step, ended)
    with pytest.raises(Conflict, match="not running"):
        joiner.start()
    assert engine.shim.tasks() == {} and os.listdir(f"{engine.exec_root}/tasks") == []


def test_each_container_is_looked_up_once(engine, monkeypatch):
    """A name that gets another container between two look-ups would join two of them."""
    engine.containers.run("host", SLEEP, detach=True, name="owner", ipc_mode="shareable")
    looked_up: list[str] = []
    real = joining.get_container_id

    def get(store, name):
        looked_up.append(name)
        return real(store, name)

    for module in ("joining", "container_spec", "verbs.start"):
        monkeypatch.setattr(f"pynetns.engine.{module}.get_container_id", get, raising=False)
    modes = {f"{kind}_mode": "container:owner" for kind in ("network", "ipc", "pid")}
    engine.containers.run("host", SLEEP, detach=True, **modes)
    assert looked_up == ["owner"]


def test_joining_oneself_is_refused_and_does_not_wait(engine):
    for kind in ("network", "ipc", "pid"):
        container = engine.containers.create(
            "host", SLEEP, name="self", **{f"{kind}_mode": "container:self"}
        )
        with pytest.raises(Conflict, match=f"own {kind}"):
            container.start()
        container.remove()


# ---- shareable ipc ----


def test_a_failed_start_gives_its_shared_memory_back(engine):
    container = engine.containers.create("host", ["/no/such/program"], ipc_mode="shareable")
    with pytest.raises(StartFailed):
        container.start()
    assert os.listdir(f"{engine.exec_root}/shm") == []
    assert f"{engine.exec_root}/shm/" not in Path("/proc/self/mountinfo").read_text()


# ---- records of execs ----


def records(engine, container) -> list[str]:
    entries = os.scandir(f"{engine.exec_root}/tasks/{container.id}")
    return [entry.name for entry in entries if entry.is_dir()]


def test_an_exec_leaves_no_record(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    assert container.exec_run(["true"])[0] == 0
    container.exec_run(["sh", "-c", "touch /done; exec sleep 1000"], detach=True)
    process = container.exec_start(["sh", "-c", "exit 3"], detach=True)
    engine.shim.wait(process.id)
    with pytest.raises(Conflict, match="not kept"):
        process.wait()
    assert records(engine, container) == []


def test_the_record_of_a_killed_exec_is_removed_by_the_next(place):
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True)

    def asks_and_dies(engine):
        engine.containers.get(container.id).exec_start(["true"])
        die()

    def is_killed_before(engine):
        from pynetns.engine.verbs import exec

        exec.enter = die
        engine.containers.get(container.id).exec_run(["true"])

    for look in (lambda: container.exec_run(["true"]), engine.gc):
        killed(place, asks_and_dies)
        killed(place, is_killed_before)
        for exec_id in records(engine, container):
            engine.shim.wait(exec_id)
        look()
        assert records(engine, container) == []


def test_the_record_of_a_living_exec_is_left_alone(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    unread = container.exec_start(["sh", "-c", "exit 3"])
    engine.shim.wait(unread.id)
    running = container.exec_start(["sh", "-c", "sleep 1000"])
    assert engine.gc() == []
    assert container.exec_run(["true"])[0] == 0
    assert set(records(engine, container)) == {unread.id, running.id}
    assert unread.wait() == 3
    running.signal(signal.SIGKILL)
    assert running.wait() == 137
    assert records(engine, container) == []


def test_an_exec_whose_record_is_swept_while_it_is_made_makes_another(engine, monkeypatch):
    from pynetns.engine import exec_record

    container = engine.containers.run("host", SLEEP, detach=True)
    real, swept = os.mkdir, []

    def mkdir(path, mode):
        real(path, mode)
        if not swept:
            swept.extend(exec_record.sweep_records(engine.exec_root, container.id))

    monkeypatch.setattr(exec_record.os, "mkdir", mkdir)
    assert container.exec_run(["sh", "-c", "exit 3"])[0] == 3
    assert len(swept) == 1


def test_a_bundle_that_still_gets_files_is_removed(engine, monkeypatch):
    """The directory of an exec, or its end, may come between the listing and the removal."""
    from pynetns.runtime import task

    container = engine.containers.run("host", SLEEP, detach=True)
    real, made = os.listdir, []

    def listdir(path):
        found = real(path)
        if str(path).endswith(container.id) and not made:
            made.append(os.mkdir(f"{path}/{'e' * 64}"))
        return found

    monkeypatch.setattr(task.os, "listdir", listdir)
    container.kill()
    monkeypatch.undo()
    assert made and os.listdir(f"{engine.exec_root}/tasks") == []
