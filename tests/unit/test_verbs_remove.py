"""engine/verbs/remove.py, prune and gc on a fake machine: what goes, and what stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pynetns import errors
from pynetns.testing import FakeEngine, fake_engine

from .verbs import SLEEP, descriptors, events, files, left, start

# ---- rm ----


def test_remove(engine: FakeEngine) -> None:
    open_before = descriptors(engine)
    container = engine.containers.create("host", SLEEP, name="web")
    container.remove()
    assert files(engine) == [] and events(engine) == ["create", "destroy"]
    assert engine.events()[-1].attributes["name"] == "web"
    assert engine.store.containers() == [] and descriptors(engine) == open_before
    with pytest.raises(errors.NotFound, match="No such container"):
        engine.containers.get(container.id)
    with pytest.raises(errors.NotFound):
        container.remove()
    assert files(engine) == []
    engine.containers.create("host", SLEEP, name="web")  # the name is free


def test_a_running_one_only_by_force(engine: FakeEngine) -> None:
    container = start(engine, ports={"80/tcp": 8080})
    with pytest.raises(errors.Conflict, match="cannot remove a running container"):
        container.remove()
    assert engine.shim.task(container.id).signals == []
    container.remove(force=True)
    assert left(engine) == [] and files(engine) == []
    assert events(engine) == ["create", "start", "die", "destroy"]


def test_one_that_has_ended_unnoticed(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    engine.shim.task(container.id).exit(3)
    container.remove()
    assert left(engine) == [] and files(engine) == []
    assert events(engine) == ["create", "start", "die", "destroy"]


def test_one_whose_files_are_lost(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    for name in ("config.v2.json", "hostconfig.json"):
        os.unlink(f"{engine.root}/containers/{container.id}/{name}")
    container.remove(force=True)
    assert left(engine) == [] and files(engine) == []


def test_what_a_container_wrote_goes_with_it(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    layer = Path(f"{engine.root}/overlay2/{container.id}/diff")
    (layer / "deep/er").mkdir(parents=True)
    (layer / "deep/er/file").write_text("x")
    container.remove(force=True)
    assert files(engine) == []


def test_auto_remove(engine: FakeEngine) -> None:
    assert engine.containers.run("host", ["echo", "x"], remove=True) == b"x\n"
    container = start(engine, remove=True, network_mode="none")
    container.stop(0)
    assert files(engine) == [] and left(engine) == []


@pytest.mark.parametrize("said", [{"remove": True}, {"auto_remove": True}])
def test_run_detached_says_it_by_either_name(engine: FakeEngine, said: dict[str, bool]) -> None:
    container = engine.containers.run("host", SLEEP, detach=True, **said)
    assert container.attrs["HostConfig"]["AutoRemove"] is True
    container.kill()
    assert engine.containers.list(all=True) == []


# ---- prune ----


def test_prune(engine: FakeEngine) -> None:
    running = start(engine, network_mode="none")
    ended = start(engine, ["true"], network_mode="none")
    created = engine.containers.create("host", SLEEP)
    deleted = engine.containers.prune()["ContainersDeleted"]
    assert sorted(deleted) == sorted([ended.id, created.id])
    assert [c.id for c in engine.containers.list(all=True)] == [running.id]


# ---- gc ----


def test_gc_has_nothing_to_do_beside_what_is_owned(engine: FakeEngine) -> None:
    start(engine, ports={"80/tcp": 8080})
    engine.containers.create("host", SLEEP)
    before, own = left(engine), files(engine)
    assert engine.gc() == [] and left(engine) == before and files(engine) == own


def test_gc_removes_what_nobody_owns(engine: FakeEngine) -> None:
    start(engine)
    bridge = engine.kernel.links[engine.network.bridge_name].ifindex
    engine.kernel.add_link("vethstray", kind="veth", master=bridge)
    namespace, nl = engine.kernel.netns_create()
    engine.kernel.ns_pin(namespace, f"{engine.exec_root}/netns/stray")
    for fd in (namespace, nl):
        os.close(fd)
    stray = "a" * 64
    for where in ("containers", "overlay2"):
        os.makedirs(f"{engine.root}/{where}/{stray}")
    Path(f"{engine.exec_root}/locks/{stray}").touch()
    os.makedirs(f"{engine.cgroups.directory}{engine.cgroups.parent}/{stray}")
    removed = engine.gc()
    assert sorted(line.split()[0] for line in removed) == [
        "cgroup", "directory", "directory", "network", "network",
    ]  # fmt: skip
    assert "network link vethstray" in removed and "network namespace stray" in removed
    assert not [line for line in (*left(engine), *files(engine)) if stray in line]
    assert engine.gc() == []


def test_gc_of_a_container_without_files(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="web")
    other = start(engine, ["true"], network_mode="none", name="other")
    other.wait()
    for each in (container, other):
        for top, _, names in os.walk(f"{engine.root}/containers/{each.id}", topdown=False):
            for name in names:
                os.unlink(f"{top}/{name}")
            os.rmdir(top)
    removed = engine.gc()
    assert any("other" in line for line in removed)
    assert engine.store.containers() == [] and files(engine) == []


def test_gc_all_takes_the_engine_s_own_things(engine: FakeEngine) -> None:
    container = start(engine)
    with pytest.raises(errors.Conflict, match=r"1 container\(s\) left"):
        engine.gc(all=True)
    container.remove(force=True)
    assert engine.network.bridge_name in engine.kernel.links
    removed = engine.gc(all=True)
    assert {line.split()[0] for line in removed} == {"network", "cgroup", "mount"}
    assert engine.kernel.left() == []


# ---- what a crash left is settled by the next engine ----


def crash(engine: FakeEngine, monkeypatch, **options) -> str:
    """A container whose starter was killed after the program had been executed; its id."""
    container = engine.containers.create("host", SLEEP, **options)
    monkeypatch.setattr("pynetns.undo.Undo.__exit__", lambda *args: None)

    def killed(*args: object) -> None:
        raise SystemExit

    monkeypatch.setattr("pynetns.engine.verbs.start.record_started", killed)
    monkeypatch.setattr("pynetns.engine.verbs.start.record_failure", lambda *args: None)
    with pytest.raises(SystemExit):
        container.start()
    monkeypatch.undo()
    return container.id


@pytest.mark.parametrize("options", [{}, {"network_mode": "none"}, {"ports": {"80/tcp": 8080}}])
def test_a_start_that_died_half_way_is_undone(
    engine: FakeEngine, directory: str, monkeypatch, options
) -> None:
    container_id = crash(engine, monkeypatch, **options)
    assert left(engine)
    with fake_engine(directory, engine.machine) as other:
        assert left(other) == []
        container = other.containers.get(container_id)
        assert container.status == "created"
        container.start()
        container.remove(force=True)
        assert left(other) == []


def test_a_removal_that_died_half_way_is_finished(
    engine: FakeEngine, directory: str, monkeypatch
) -> None:
    container = start(engine)
    monkeypatch.setattr(
        "pynetns.engine.removal.remove_files", lambda *args: (_ for _ in ()).throw(SystemExit)
    )
    with pytest.raises(SystemExit):
        container.remove(force=True)
    monkeypatch.undo()
    with fake_engine(directory, engine.machine) as other:
        assert other.containers.list(all=True) == []
        assert left(other) == [] and files(other) == []
