"""runtime/oci.py: create, start, state, kill, delete: states, errors, undo, and who is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pynetns.errors import (
    Conflict,
    InvalidParameter,
    NotFound,
    PynetnsError,
    StartFailed,
    Unavailable,
)
from pynetns.kernel.process import ProcessIdentity
from pynetns.runtime import creation as creation_module
from pynetns.runtime import oci as oci_module
from pynetns.runtime.oci import Runtime
from pynetns.runtime.oci_state import StateDirectory
from pynetns.runtime.task import Task

from .. import leaks
from ..conftest import kill_shim, shim_processes
from .oci_bench import SLEEP, again, left

pytestmark = pytest.mark.root


# ---- a life ----


def test_the_states_of_a_life(runtime, bundle):
    bundle.runs(*SLEEP).change(lambda spec: spec.update(annotations={"org.x.y": "z"}))
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    state = runtime.state("c")
    assert state == {
        "ociVersion": "1.0.2-dev",
        "id": "c",
        "status": "created",
        "pid": state["pid"],
        "bundle": str(bundle.top),
        "rootfs": str(bundle.top / "rootfs"),
        "created": state["created"],
        "annotations": {"org.x.y": "z"},
    }
    assert os.readlink(f"/proc/{state['pid']}/exe").startswith("/memfd:")  # no program yet
    runtime.start("c")
    assert runtime.state("c") == {**state, "status": "running"}
    assert Path(f"/proc/{state['pid']}/cmdline").read_text() == "sleep\x001000\0"
    runtime.kill("c", signal.SIGKILL)
    assert runtime.wait("c").code == 137
    assert runtime.state("c") == {**state, "status": "stopped", "pid": 0}
    runtime.delete("c")
    with pytest.raises(NotFound, match="container c: does not exist"):
        runtime.state("c")
    assert left(runtime) == []


def test_each_verb_may_be_another_processs(runtime, bundle):
    runtime.create("c", str(bundle.script("exit 3").top), stdio=(-1, -1, -1))
    runtime.shim.close()
    with again(runtime) as second:
        assert second.state("c")["status"] == "created"
        second.start("c")
    with again(runtime) as third:
        assert third.wait("c").code == 3
        third.delete("c")
    assert left(runtime) == []


def test_what_a_state_does_not_allow_is_refused(runtime, bundle):
    """runtime.md, "Operations": each of these MUST be an error, and have no effect."""
    create = (str(bundle.runs(*SLEEP).top),)
    for verb in (runtime.start, runtime.state, runtime.kill, runtime.delete, runtime.wait):
        with pytest.raises(NotFound):
            verb("c")
    runtime.create("c", *create, stdio=(-1, -1, -1))
    with pytest.raises(Conflict, match="id c already in use"):
        runtime.create("c", *create)
    with pytest.raises(Conflict, match="cannot be deleted, it is created"):
        runtime.delete("c")
    runtime.start("c")
    with pytest.raises(Conflict, match="cannot start, it is running"):
        runtime.start("c")
    with pytest.raises(Conflict, match="cannot be deleted, it is running"):
        runtime.delete("c")
    with pytest.raises(InvalidParameter, match="signal 0"):
        runtime.kill("c", 0)
    assert runtime.state("c")["status"] == "running"
    runtime.kill("c", signal.SIGKILL)
    runtime.wait("c")
    for verb in (runtime.start, runtime.kill):
        with pytest.raises(Conflict, match="it is stopped"):
            verb("c")
    with pytest.raises(Conflict, match="already in use"):
        runtime.create("c", *create)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "x" * 72, "a\n"])
def test_ids_are_checked(runtime, bundle, name):
    for verb in (lambda n: runtime.create(n, str(bundle.top)), runtime.state, runtime.delete):
        with pytest.raises(InvalidParameter, match="container id"):
            verb(name)


def test_a_created_container_can_be_killed(runtime, bundle):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    runtime.kill("c", signal.SIGKILL)
    ended = runtime.wait("c")  # there is no record of a program that never ran
    assert ended is None or ended.code == 137
    assert runtime.state("c")["status"] == "stopped"
    with pytest.raises(Conflict, match="cannot start, it is stopped"):
        runtime.start("c")
    runtime.delete("c")
    assert left(runtime) == []


@pytest.mark.parametrize("started", [False, True])
def test_delete_by_force_ends_it_first(runtime, bundle, started):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    process = ProcessIdentity.of(runtime.state("c")["pid"])
    if started:
        runtime.start("c")
    runtime.delete("c", force=True)
    assert not process.lives()
    assert left(runtime) == []


def test_a_program_that_is_not_there(runtime, bundle):
    runtime.create("c", str(bundle.runs("/missing").top), stdio=(-1, -1, -1))
    with pytest.raises(StartFailed) as caught:
        runtime.start("c")
    assert (caught.value.exit_code, str(caught.value)) == (
        127,
        'exec: "/missing": no such file or directory',
    )
    assert runtime.state("c")["status"] == "stopped"
    runtime.delete("c")
    assert left(runtime) == []


def test_a_cgroup_that_somebody_is_in_is_left_alone(runtime, bundle):
    """In whichever hierarchy it is: at its end the container would take it down."""
    mount = runtime.cgroups.mounts[0]
    path = f"{runtime.cgroups.parent}/somebody"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        os.makedirs(mount + path)
        Path(f"{mount}{path}/cgroup.procs").write_text(str(process.pid))
        try:
            bundle.change(lambda spec: spec["linux"].update(cgroupsPath=path))
            with pytest.raises(Conflict, match=f"{path}: is in use"):
                runtime.create("c", str(bundle.top))
            assert process.poll() is None
        finally:
            process.stdin.close()
            process.wait()
            os.rmdir(mount + path)


def test_a_root_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Unavailable, match="others can write"):
        Runtime(str(tmp_path / "open"))


# ---- what fails is undone, who dies leaves no lie ----


STEPS = {
    "prepare_bundle_dir": oci_module,
    "open_handles": oci_module,
    "open_namespaces": creation_module,
    "new_task": oci_module,
    "render_plan": oci_module,
    "create": Task,
    "prepared": oci_module,
    "write": StateDirectory,
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_fails_is_undone(runtime, bundle, monkeypatch, step):
    bundle.runs(*SLEEP)
    runtime.create("first", str(bundle.top), stdio=(-1, -1, -1))
    before = left(runtime), sorted(leaks.children())
    real = getattr(STEPS[step], step)

    def failing(*args, **kwargs):
        real(*args, **kwargs)
        raise RuntimeError("made to fail")

    monkeypatch.setattr(STEPS[step], step, failing)
    with pytest.raises(RuntimeError):
        runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    monkeypatch.undo()
    assert (left(runtime), sorted(leaks.children())) == before
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    runtime.start("c")


WRONG = {
    "nosuch.file": lambda spec: spec["root"].update(path="nosuch.file"),
    "mounts: source /nosuch": lambda spec: spec["mounts"].append(
        {"destination": "/m", "source": "/nosuch", "options": ["bind"]}
    ),
    "process.cwd: /bin/busybox": lambda spec: spec["process"].update(cwd="/bin/busybox"),
    "/dev/shm": lambda spec: spec["mounts"][3]["options"].append("nosuch=option"),
    "process.rlimits nofile: Operation not permitted": lambda spec: spec["process"].update(
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 << 50}]
    ),
    "linux.resources.cpu.cpus: ": lambda spec: spec["linux"].update(
        resources={"cpu": {"cpus": "4000"}}
    ),
    "hooks.prestart": lambda spec: spec.update(hooks={"prestart": [{"path": "/bin/true"}]}),
    "linux.seccomp: defaultAction": lambda spec: spec["linux"].update(seccomp={"syscalls": []}),
}


@pytest.mark.parametrize("named", WRONG)
def test_a_container_that_cannot_be_made_is_none(runtime, bundle, named):
    """create says why, not start."""
    bundle.change(WRONG[named])
    with pytest.raises(PynetnsError) as caught:
        runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    assert named in str(caught.value)
    with pytest.raises(NotFound):
        runtime.state("c")
    assert left(runtime) == []


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_create_that_was_killed_can_be_deleted(runtime, bundle, writes):
    """Before its state was written, before its process was noted, and after."""
    bundle.runs(*SLEEP)
    child = os.fork()
    if child == 0:
        real, done = StateDirectory.write, []

        def write(place, state):
            if len(done) == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            real(place, state)
            done.append(1)

        StateDirectory.write = write
        again(runtime).create("c", str(bundle.top), stdio=(-1, -1, -1))
        os._exit(0)
    os.waitpid(child, 0)
    if writes == 2:
        assert runtime.state("c")["status"] == "created"
    else:
        assert runtime.state("c")["status"] == "stopped"
        with pytest.raises(Conflict, match="stopped"):
            runtime.start("c")
        with pytest.raises(Conflict, match="already in use"):
            runtime.create("c", str(bundle.top))
    runtime.delete("c", force=writes == 2)
    assert left(runtime) == []


def test_while_it_is_made_it_is_creating(runtime, bundle, monkeypatch):
    seen = []
    real = oci_module.prepared

    def prepared(task, shim, told):
        seen.append(again(runtime).state("c"))
        return real(task, shim, told)

    monkeypatch.setattr(oci_module, "prepared", prepared)
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    assert [(state["status"], state["pid"]) for state in seen] == [("creating", 0)]


@pytest.mark.parametrize("started", [False, True])
def test_without_shim_and_keeper_the_state_is_true(runtime, bundle, started):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    if started:
        runtime.start("c")
    kill_shim(runtime)
    assert runtime.state("c")["status"] == ("running" if started else "created")
    runtime.kill("c", signal.SIGKILL)
    runtime.delete("c", force=True)
    assert left(runtime) == []


def test_a_shim_that_is_replaced_does_not_matter(runtime, bundle):
    runtime.create("c", str(bundle.script("exit 5").top), stdio=(-1, -1, -1))
    pidfd = os.pidfd_open(shim_processes(runtime)[0])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    runtime.start("c")
    assert runtime.wait("c").code == 5
