"""Look-up (S2), state checks (S3), undo (S4), state after a start (S17), seen from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pynetns import errors
from pynetns.engine.verbs import start as start_module
from pynetns.runtime import creation as creation_module
from pynetns.runtime.task import Task

from .. import leaks

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def test_lookup_by_id_name_and_prefix(engine):
    container = engine.containers.create("host", SLEEP, name="web")
    for name in (container.id, "web", "/web", container.id[:12], container.id[:4]):
        assert engine.containers.get(name).id == container.id


@pytest.mark.parametrize("name", ["nothing", "ffffffffffff0", "f" * 64, "f" * 65, "../x"])
def test_lookup_of_unknown_names(engine, name):
    with pytest.raises(errors.NotFound, match="No such container"):
        engine.containers.get(name)


def test_lookup_of_nothing_and_of_an_ambiguous_prefix(engine):
    with pytest.raises(errors.InvalidParameter, match="empty"):
        engine.containers.get("")
    ids = [engine.containers.create("host", SLEEP).id for _ in range(17)]
    first = next(c for c in "0123456789abcdef" if sum(i.startswith(c) for i in ids) > 1)
    with pytest.raises(errors.InvalidParameter) as caught:
        engine.containers.get(first)
    assert sum(i[:12] in str(caught.value) for i in ids) >= 2


def test_a_name_wins_over_an_id_prefix(engine):
    one = engine.containers.create("host", SLEEP)
    two = engine.containers.create("host", SLEEP, name=one.id[:12])
    assert engine.containers.get(one.id[:12]).id == two.id


def test_name_in_use(engine):
    one = engine.containers.create("host", SLEEP, name="web")
    before = set(os.listdir(f"{engine.root}/containers"))
    with pytest.raises(errors.Conflict, match=one.id[:12]):
        engine.containers.create("host", SLEEP, name="web")
    assert set(os.listdir(f"{engine.root}/containers")) == before


def test_state_after_start_and_after_the_end(engine):
    container = engine.containers.create("host", SLEEP)
    assert container.status == "created"
    container.start()
    state = container.attrs["State"]
    assert (state["Status"], state["Running"], container.status) == ("running", True, "running")
    assert os.path.exists(f"/proc/{state['Pid']}")
    assert state["StartedAt"] > container.attrs["Created"]
    container.kill()
    state = container.attrs["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)
    assert state["FinishedAt"] > state["StartedAt"]


def test_events_and_metrics(engine):
    container = engine.containers.create("host", ["true"], name="short")
    container.start()
    container.wait()
    container.remove()
    actions = [e.action for e in engine.events() if e.actor_id == container.id]
    assert actions == ["create", "start", "die", "destroy"]
    metrics = engine.metrics()
    for name in ("container_start", "allocate_network", "connect_to_network", "task_start"):
        assert metrics[name]["count"] >= 1
        assert metrics[name]["seconds"] > 0


def test_running_container_is_not_modified(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    pid = container.attrs["State"]["Pid"]
    with pytest.raises(errors.NotModified):
        start_module.container_start(engine, container.id)
    container.start()  # docker-py's start is silent about it
    container.reload()
    assert container.attrs["State"]["Pid"] == pid


def test_container_marked_for_removal_does_not_start(engine):
    from dataclasses import replace

    container = engine.containers.create("host", SLEEP)
    row = engine.store.container(container.id)
    engine.store.set_state(container.id, replace(row.state, status="dead"))
    with pytest.raises(errors.Conflict, match="marked for removal"):
        container.start()
    engine.store.set_state(container.id, replace(row.state, status="removing"))
    with pytest.raises(errors.NotFound):  # nobody is at it any more: its removal is completed
        container.start()
    assert engine.store.containers() == []


def test_restart_of_an_ended_container_keeps_its_files(engine):
    container = engine.containers.create("host", ["sh", "-c", "cat /kept; echo once >> /kept"])
    for _ in range(3):
        container.start()
        assert container.wait()["StatusCode"] in (0, 1)
    assert container.logs().decode().count("once") == 3


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"command": ["no-such-program"]}, 127, "no-such-program"),
        ({"command": ["/etc/passwd"]}, 126, "/etc/passwd"),
        ({"command": ["/etc"]}, 126, "/etc"),
        ({"command": ["true"], "working_dir": "/etc/passwd"}, 128, "/etc/passwd"),
        ({"command": ["true"], "user": "nobody-of-this-name"}, 128, "nobody-of-this-name"),
        ({"command": ["true"], "group_add": ["nobodies"]}, 128, "nobodies"),
    ],
)
def test_failed_start_is_recorded_and_undone(engine, run, options, code, text):
    run(["true"])  # the engine's own bridge, rules, cgroup and shim exist from here on
    before = leaks.snapshot()
    container = engine.containers.create("host", **options)
    with pytest.raises(errors.StartFailed, match=text) as caught:
        container.start()
    assert caught.value.exit_code == code
    state = container.attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", code)
    assert text in state["Error"]
    assert leaks.new_things(before) == []
    assert not engine.store.sandboxes() and not engine.store.endpoints()


STEPS = {
    "conditional_mount_on_start": start_module,
    "initialize_networking": start_module,
    "create_spec": start_module,
    "create_task": start_module,
    "record_started": start_module,
    "claim_bundle": start_module,
    "open_handles": creation_module,
    "open_namespaces": creation_module,
    "write_bundle": creation_module,
    "join_sandbox": None,  # a method of the engine's network
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_fails_is_undone(engine, monkeypatch, step):
    """Each step is made to fail after it has done its work: what it made must go as well."""
    container = engine.containers.create("host", SLEEP, ports={"80/tcp": None})
    container.start()
    container.kill()  # the engine's own objects exist from here on
    before = leaks.snapshot()
    where = STEPS[step] or engine.network
    real = getattr(where, step)

    def failing(*args, **kwargs):
        real(*args, **kwargs)
        raise RuntimeError("made to fail")

    monkeypatch.setattr(where, step, failing)
    with pytest.raises(RuntimeError):
        container.start()
    monkeypatch.undo()
    if step == "record_started":  # the program runs by then: the undo ends it
        assert container.id not in engine.shim.tasks()
    assert [t for t in leaks.new_things(before) if not t.startswith("fd ")] == []
    assert not engine.store.sandboxes() and not engine.store.ports()
    state = container.attrs["State"]
    assert (state["ExitCode"], state["Status"]) == (128, "exited")
    container.start()
    assert container.status == "running"


def test_failing_task_start_gives_everything_back(engine, run, monkeypatch):
    run(["true"])
    container = engine.containers.create("host", SLEEP)
    before = set(leaks.cgroups())

    def failing(self):
        raise errors.StartFailed("made to fail", 128)

    monkeypatch.setattr(Task, "start", failing)
    with pytest.raises(errors.StartFailed):
        container.start()
    assert set(leaks.cgroups()) - before == set()
    assert os.listdir(f"{engine.exec_root}/tasks") == []
    assert os.listdir(f"{engine.exec_root}/netns") == []


def test_failed_start_honours_auto_remove(engine):
    container = engine.containers.create("host", ["no-such-program"], auto_remove=True)
    with pytest.raises(errors.StartFailed):
        container.start()
    assert engine.containers.list(all=True) == []
    assert os.listdir(f"{engine.root}/containers") == []
    assert os.listdir(f"{engine.root}/overlay2") == [] or all(
        engine.image_store.owns_layer(n) for n in os.listdir(f"{engine.root}/overlay2")
    )


def test_a_failed_start_is_told_also_where_the_removal_fails(engine, monkeypatch):
    container = engine.containers.create("host", ["no-such-program"], auto_remove=True)

    def refuse(engine, container_id, **options):
        raise errors.NotFound(f"No such container: {container_id}")

    with monkeypatch.context() as patch:
        patch.setattr("pynetns.engine.verbs.start.container_remove", refuse)
        with pytest.raises(errors.StartFailed, match="no-such-program") as caught:
            container.start()
    assert caught.value.exit_code == 127
    container.remove()


def test_a_failed_exec_leaves_no_record_directory(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    tasks = Path(engine.exec_root, "tasks", container.id)
    before = sorted(path.name for path in tasks.iterdir())
    for command, options in ((["no-such-program"], {}), (["true"], {"workdir": "/no/such"})):
        with pytest.raises(errors.StartFailed):
            container.exec_run(command, **options)
    assert sorted(path.name for path in tasks.iterdir()) == before


def test_files_of_a_container(engine):
    container = engine.containers.create("host", SLEEP)
    directory = Path(engine.root, "containers", container.id)
    names = {p.name for p in directory.iterdir()}
    assert names >= {
        "config.v2.json", "hostconfig.json", "hostname", "hosts", "resolv.conf",
        "resolv.conf.hash", f"{container.id}-json.log", "checkpoints", "mounts",
    }  # fmt: skip
    assert json.loads((directory / "config.v2.json").read_text())["ID"] == container.id
    container.remove()
    assert not directory.exists()


def test_running_container_is_removed_only_by_force(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    with pytest.raises(errors.Conflict, match="running container"):
        container.remove()
    container.remove(force=True)
    with pytest.raises(errors.NotFound):
        container.reload()


def test_stop_asks_first(engine):
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    container = engine.containers.run("host", ["sh", "-c", script], detach=True)
    next(chunk for chunk in container.logs(stream=True, follow=True) if b"ready" in chunk)
    container.stop()
    assert container.attrs["State"]["ExitCode"] == 3
    assert b"asked" in container.logs()


def test_stop_insists(engine):
    container = engine.containers.run(
        "host", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], detach=True
    )
    next(chunk for chunk in container.logs(stream=True, follow=True) if b"ready" in chunk)
    container.stop(timeout=0.2)
    assert container.attrs["State"]["ExitCode"] == 137


def test_kill_of_a_container_that_does_not_run(engine):
    container = engine.containers.create("host", SLEEP)
    with pytest.raises(errors.Conflict, match="not running"):
        container.kill()


def test_wait_after_auto_remove_tells_the_exit_code(place):
    """Whoever settles the end removes the container; a waiter that comes later still hears it."""
    engine = place.engine()
    for _ in range(10):
        container = engine.containers.run(
            "host", ["sh", "-c", "exit 6"], detach=True, remove=True, network_mode="none"
        )
        engine.shim.wait(container.id)  # it has ended by now, and nobody has settled it
        assert container.wait() == {"StatusCode": 6}
