"""engine/verbs/start.py on a fake machine: what a start does in which mode, and that it undoes all of
it wherever it fails."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pynetns import Container, errors
from pynetns.testing import FakeEngine, fake_engine, not_found

from .verbs import SLEEP, descriptors, events, failing, files, left, start

# Options of a container, and what else there must be for it to start.
MODES: dict[str, dict[str, Any]] = {
    "none": {"network_mode": "none"},
    "host": {"network_mode": "host"},
    "bridge": {},
    "published": {"ports": {"80/tcp": 8080, "53/udp": ("127.0.0.1", 5353)}},
    "network of another": {"network_mode": "container:owner"},
    "ipc of another": {"ipc_mode": "container:owner", "network_mode": "none"},
    "processes of another": {"pid_mode": "container:owner", "network_mode": "none"},
    "shareable": {"ipc_mode": "shareable", "network_mode": "none"},
    "limited": {"mem_limit": "64m", "pids_limit": 9, "network_mode": "none"},
    "user": {"user": "nobody", "network_mode": "none"},
    "without log": {"log_config": {"Type": "none"}, "network_mode": "none"},
}
modes = pytest.mark.parametrize("options", MODES.values(), ids=MODES)


def refuse(*args: Any) -> None:
    raise errors.Unavailable("full")


def owner_of(engine: FakeEngine, options: dict[str, Any]) -> None:
    """The container that `options` join, running."""
    if any(value == "container:owner" for value in options.values()):
        start(engine, name="owner", ipc_mode="shareable")


# ---- the happy way ----


def test_what_a_start_says_and_records(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    process = engine.shim.task(container.id)
    assert process.args == ("sleep", "300") and process.planned.cwd == "/"
    state = container.attrs["State"]
    assert (state["Status"], state["Running"], state["Pid"]) == ("running", True, process.pid)
    assert state["StartedAt"].startswith("20") and state["Error"] == "" and state["ExitCode"] == 0
    row = engine.store.container(container.id)
    assert row is not None and row.state.started_before
    assert engine.kernel.process_lives(process.identity)
    assert (row.state.start_ticks, row.state.boot_id) == (
        process.identity.start_ticks,
        engine.kernel.boot_id(),
    )
    assert events(engine) == ["create", "start"]
    assert engine.events()[-1].attributes == {"name": container.name, "image": "host"}
    bundle = Path(f"{engine.exec_root}/tasks/{container.id}/config.json")
    assert json.loads(bundle.read_text())["process"]["args"] == SLEEP


@modes
def test_each_mode_starts_ends_and_leaves_nothing(engine: FakeEngine, options) -> None:
    owner_of(engine, options)
    before, open_before = left(engine), descriptors(engine)
    container = start(engine, name="one", **options)
    assert container.status == "running" and len(left(engine)) > len(before)
    container.kill()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 137)
    assert left(engine) == before
    container.start()  # and again
    assert container.status == "running"
    container.remove(force=True)
    assert left(engine) == before and descriptors(engine) == open_before


def test_own_network_namespace(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    process = engine.shim.task(container.id)
    assert process.network is not None and process.network.links == {}
    assert container.attrs["NetworkSettings"]["SandboxKey"] in process.network.pins


def test_the_machine_s_network(engine: FakeEngine) -> None:
    assert engine.shim.task(start(engine, network_mode="host").id).network is None
    assert "netns_begin" not in [call.name for call in engine.kernel.calls]


def test_whoever_shares_a_network_keeps_no_address_of_its_owner(engine: FakeEngine) -> None:
    """The namespace lives on with whoever is in it; its link must go with the owner's end."""
    owner = start(engine, name="owner")
    container = start(engine, network_mode="container:owner")
    owner.kill()
    assert not [link for link in engine.kernel.links if link.startswith("veth")]
    assert engine.kernel.living() == [engine.shim.task(container.id)]


def test_the_machine_s_network_shared_by_another(engine: FakeEngine) -> None:
    start(engine, name="owner", network_mode="host")
    container = start(engine, network_mode="container:owner")
    assert engine.shim.task(container.id).network is None


def test_network_of_another(engine: FakeEngine) -> None:
    owner = start(engine, name="owner", network_mode="none", hostname="named")
    container = start(engine, network_mode="container:owner")
    mine, theirs = engine.shim.task(container.id), engine.shim.task(owner.id)
    assert mine.network is theirs.network is not None
    assert mine.planned.hostname == "named"
    owner.remove(force=True)  # the namespace lives on with whoever is in it
    assert container.attrs["State"]["Running"] and any("namespace" in x for x in left(engine))
    container.remove(force=True)
    assert left(engine) == []


def test_cgroup_and_proc_are_shown_inside(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    assert {"/proc", "/sys/fs/cgroup"} <= set(engine.shim.task(container.id).planned.mounts)


def test_one_that_ends_while_it_is_joined(engine: FakeEngine) -> None:
    start(engine, name="owner", network_mode="none")
    container = engine.containers.create(
        "host", SLEEP, pid_mode="container:owner", network_mode="none"
    )
    engine.kernel.fail["process_namespace"] = errno.ESRCH
    with pytest.raises(errors.Conflict, match="is not running"):
        container.start()


def test_processes_of_another_end_with_it(engine: FakeEngine) -> None:
    owner = start(engine, name="owner", network_mode="none")
    container = start(engine, pid_mode="container:owner", network_mode="none")
    assert "proc_clone" in [call.name for call in engine.kernel.calls]  # what shows itself inside
    owner.kill()
    assert container.wait() == {"StatusCode": 137}


def test_limits_reach_the_cgroup(engine: FakeEngine) -> None:
    container = start(engine, mem_limit="64m", network_mode="none", cgroup_parent="/mine")
    directory = f"{engine.machine.cgroups}/mine/{container.id}"
    assert Path(f"{directory}/memory.max").read_text() == str(64 << 20)
    assert engine.shim.task(container.id).cgroup == (
        os.stat(directory).st_dev,
        os.stat(directory).st_ino,
    )


def test_user_and_groups_are_those_of_the_image(engine: FakeEngine, tmp_path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("app:x:12:34::/home/app:/bin/sh\n")
    container = engine.containers.run(
        rootfs=str(tmp_path), command=SLEEP, detach=True, user="app", network_mode="none"
    )
    process = engine.shim.task(container.id)
    assert process.planned.user == (12, 34) and process.env["HOME"] == "/home/app"


def test_a_program_that_ends_at_once(engine: FakeEngine) -> None:
    engine.shim.programs["seven"] = 7
    container = start(engine, ["seven"], network_mode="none")
    assert container.wait() == {"StatusCode": 7}
    assert events(engine, container) == ["create", "start", "die"]
    attributes = engine.events()[-1].attributes
    assert (attributes["name"], attributes["exitCode"]) == (container.name, "7")


def test_a_missing_source_of_a_volume_is_made(engine: FakeEngine, directory: str) -> None:
    start(engine, volumes=[f"{directory}/new:/data"], network_mode="none")
    assert os.path.isdir(f"{directory}/new")


# ---- what is refused ----


def test_a_running_one(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    calls = len(engine.kernel.calls)
    container.start()  # as in Docker: nothing to do
    assert "shim.begin_spawn" not in [call.name for call in engine.kernel.calls[calls:]]
    assert events(engine) == ["create", "start"]


def test_one_whose_removal_died_half_way_is_gone(engine: FakeEngine) -> None:
    container = mark(engine, "removing")
    with pytest.raises(errors.NotFound, match="No such container"):
        container.start()
    assert left(engine) == [] and engine.store.containers() == []


def test_one_that_could_not_be_removed(engine: FakeEngine) -> None:
    container = mark(engine, "dead")
    with pytest.raises(errors.Conflict, match="marked for removal"):
        container.start()
    assert left(engine) == []


def mark(engine: FakeEngine, status: str) -> Container:
    """A container that another process has left so."""
    container = engine.containers.create("host", SLEEP)
    row = engine.store.container(container.id)
    assert row is not None
    engine.store.set_state(container.id, replace(row.state, status=status))
    return container


def test_one_that_is_gone(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP)
    engine.containers.get(container.id).remove()
    with pytest.raises(errors.NotFound, match="No such container"):
        container.start()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"network_mode": "container:nosuch"}, errors.NotFound, "nosuch"),
        ({"network_mode": "container:down"}, errors.Conflict, "non running container"),
        ({"ipc_mode": "container:down"}, errors.Conflict, "non running container"),
        ({"pid_mode": "container:down"}, errors.Conflict, "non running container"),
        ({"ipc_mode": "container:closed"}, errors.Conflict, "non-shareable"),
        ({"user": "nosuch"}, errors.StartFailed, "nosuch"),
        ({"volumes": ["/etc/passwd/x:/x"]}, errors.StartFailed, "Not a directory"),
    ],
)
def test_what_cannot_start(engine: FakeEngine, options, error, text) -> None:
    options.setdefault("network_mode", "none")
    engine.containers.create("host", SLEEP, name="down")
    start(engine, name="closed", network_mode="none", ipc_mode="private")
    before = left(engine)
    container = engine.containers.create("host", SLEEP, **options)
    with pytest.raises(error, match=text):
        container.start()
    assert left(engine) == before
    state = container.attrs["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 128) and text.split()[-1] in state[
        "Error"
    ]
    assert events(engine, container) == ["create"]


def test_its_own_network_cannot_be_joined(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="own", network_mode="container:own")
    with pytest.raises(errors.Conflict, match="cannot join own network"):
        container.start()


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (not_found(), 127, 'exec: "program": executable file not found'),
        (errors.KernelError(errno.EACCES, "exec", "program"), 126, "Permission denied"),
        (errors.KernelError(errno.ENOENT, "mount", "/x"), 128, "mount /x"),
    ],
)
def test_a_program_that_cannot_be_executed(engine: FakeEngine, failure, code, text) -> None:
    engine.shim.programs["program"] = failure
    container = engine.containers.create("host", ["program"], network_mode="none")
    with pytest.raises(errors.StartFailed, match=text) as caught:
        container.start()
    assert caught.value.exit_code == code
    assert container.attrs["State"]["ExitCode"] == code and left(engine) == []


def test_one_to_be_removed_is_removed_when_it_fails(engine: FakeEngine) -> None:
    engine.shim.programs["program"] = not_found()
    with pytest.raises(errors.StartFailed):
        engine.containers.run("host", ["program"], detach=True, remove=True, network_mode="none")
    assert left(engine) == [] and files(engine) == []
    assert events(engine) == ["create", "destroy"]


def test_a_state_error_is_bounded(engine: FakeEngine) -> None:
    container = engine.containers.create("host", ["x" * 9000], network_mode="none")
    engine.shim.default = errors.KernelError(errno.ENOENT, "exec", "x" * 9000)
    with pytest.raises(errors.StartFailed):
        container.start()
    assert 4000 <= len(container.attrs["State"]["Error"]) < 4100


# ---- undo ----


@modes
def test_whichever_call_fails_nothing_is_left(engine: FakeEngine, options) -> None:
    owner_of(engine, options)
    container = engine.containers.create("host", SLEEP, **options)
    before, open_before, tried = left(engine), descriptors(engine), 0
    for name, failed in failing(engine, container.start):
        tried += 1
        container.reload()
        if failed:
            assert left(engine) == before, name
            state = container.attrs["State"]
            assert (state["Status"], state["Pid"]) == ("created", 0), name
            assert state["Error"] and state["ExitCode"] == 128, name
        else:  # a look that may fail
            assert container.status == "running", name
            container.remove(force=True)
            container = engine.containers.create("host", SLEEP, **options)
        assert descriptors(engine) == open_before, name
    assert tried >= 9 and container.status == "running"
    assert "start" in events(engine, container)


def test_a_record_that_cannot_be_written_undoes_the_start(engine: FakeEngine, monkeypatch) -> None:
    container = engine.containers.create("host", SLEEP, network_mode="none")
    open_before = descriptors(engine)
    monkeypatch.setattr(engine.store, "set_run", refuse)
    with pytest.raises(errors.Unavailable, match="full"):
        container.start()
    monkeypatch.undo()
    assert ("shim.signal", (container.id, 9)) in engine.kernel.calls
    assert left(engine) == [] and descriptors(engine) == open_before
    assert container.attrs["State"]["Status"] == "created"
    container.start()
    assert container.status == "running"


def test_an_interrupt_undoes_the_start(engine: FakeEngine) -> None:
    def interrupted(process) -> int:
        raise KeyboardInterrupt

    engine.shim.programs["sleep"] = interrupted
    container = engine.containers.create("host", SLEEP, network_mode="none")
    with pytest.raises(KeyboardInterrupt):
        container.start()
    assert left(engine) == []


# ---- other engines, another boot ----


def test_another_engine_finds_it_running(engine: FakeEngine, directory: str) -> None:
    container = start(engine, network_mode="none")
    with fake_engine(directory, engine.machine) as other:
        assert other.containers.get(container.id).status == "running"
        other.containers.get(container.id).kill()
    container.reload()
    assert container.status == "exited" and left(engine) == []


def test_a_reboot_ends_it(engine: FakeEngine, directory: str) -> None:
    container = start(engine, network_mode="none")
    engine.kernel.reboot()
    with fake_engine(directory, engine.machine) as other:
        state = other.containers.get(container.id).attrs["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 255)
        assert left(other) == []
        other.containers.get(container.id).start()
        assert other.containers.get(container.id).status == "running"
