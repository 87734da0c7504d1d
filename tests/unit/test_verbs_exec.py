"""engine/verbs/exec.py on a fake machine: one more process in a container."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest

from pynetns import errors
from pynetns.client.containers import Container
from pynetns.client.output import collect
from pynetns.engine.verbs.exec import Exec
from pynetns.testing import FakeEngine, not_found

from .verbs import SLEEP, descriptors, events, failing, left, start


def records(engine: FakeEngine, container: Container) -> list[str]:
    """The directories of its execs."""
    return next(os.walk(f"{engine.exec_root}/tasks/{container.id}"))[1]


def test_output_and_exit_code(engine: FakeEngine) -> None:
    engine.shim.programs["sh"] = lambda process: process.write("words\n") or 5
    container = start(engine, network_mode="none")
    open_before, before = descriptors(engine), left(engine)
    assert container.exec_run(["sh", "-c", "x"]) == (5, b"words\n")
    assert descriptors(engine) == open_before and left(engine) == before
    assert events(engine, container) == ["create", "start", "exec_start"]
    assert len(engine.events()[-1].attributes["execID"]) == 64


def test_where_it_runs(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none", environment={"A": "1", "B": "2"})
    first = engine.shim.task(container.id)
    process = container.exec_start(SLEEP, environment={"B": "3"}, workdir="/tmp")
    inside = engine.shim.task(process.id)
    assert inside.leader is first and inside.cgroup == first.cgroup and inside.pid == process.pid
    assert inside.network is first.network and inside.root == first.root
    assert (inside.env["A"], inside.env["B"], inside.planned.cwd) == ("1", "3", "/tmp")
    assert inside.planned.user == (0, 0)
    assert os.path.isdir(f"{engine.exec_root}/tasks/{container.id}/{process.id}")


@pytest.mark.parametrize(
    ("user", "ids", "home"),
    [("", (12, 34), "/app"), ("root", (0, 0), "/root"), ("7:8", (7, 8), "/")],
)
def test_as_whom(engine: FakeEngine, tmp_path, user, ids, home) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("app:x:12:34::/app:\nroot:x:0:0::/root:\n")
    container = engine.containers.run(
        rootfs=str(tmp_path), command=SLEEP, detach=True, user="app", network_mode="none"
    )
    inside = engine.shim.task(container.exec_start(SLEEP, user=user).id)
    assert (inside.planned.user, inside.env["HOME"]) == (ids, home)


def test_a_home_of_one_s_own_stays(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none", environment={"HOME": "/mine"})
    inside = engine.shim.task(container.exec_start(SLEEP, user="nobody").id)
    assert inside.env["HOME"] == "/mine"


@pytest.mark.parametrize(("privileged", "more"), [(False, False), (True, True)])
def test_capabilities(engine: FakeEngine, privileged: bool, more: bool) -> None:
    container = start(engine, network_mode="none", cap_drop=["ALL"])
    inside = engine.shim.task(container.exec_start(SLEEP, privileged=privileged).id)
    assert ("seccomp" in inside.planned.steps) is not more


def test_signals_terminal_and_waiting(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    process = container.exec_start(SLEEP, tty=True)
    process.resize(24, 80)
    inside = engine.shim.task(process.id)
    assert inside.size == (24, 80) and inside.env["TERM"] == "xterm"
    with pytest.raises(TimeoutError):
        process.wait(0.01)
    assert process.signal(signal.SIGTERM) and inside.signals == [signal.SIGTERM]
    assert process.wait() == 128 + signal.SIGTERM == process.wait()
    assert not process.signal(signal.SIGTERM)
    assert not os.path.exists(f"{engine.exec_root}/tasks/{container.id}/{process.id}")


def test_its_pipes_end_with_it(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    with collect(True, True) as output:
        process = container.exec_start(SLEEP, attach=output.attach)
        engine.shim.task(process.id).write("out\n")
        engine.shim.task(process.id).write("err\n", "stderr")
        process.signal(signal.SIGKILL)
        with process.ending() as ended:
            assert ended >= 0
            output.read_all(ended)
    assert (output.stdout, output.stderr, process.wait()) == (b"out\n", b"err\n", 137)


def test_it_goes_down_with_the_container(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    process = container.exec_start(SLEEP)
    container.kill()
    assert process.wait() == 137 and left(engine) == []


def test_detached(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    assert container.exec_run(SLEEP, detach=True) == (None, b"")
    assert len(engine.kernel.living()) == 2


# ---- what is refused ----


def test_one_that_does_not_run(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="down")
    with pytest.raises(errors.Conflict, match="Container down is not running"):
        container.exec_run(["true"])
    container.remove()
    with pytest.raises(errors.NotFound):
        container.exec_run(["true"])


def test_one_that_has_ended_unnoticed(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    engine.shim.task(container.id).exit(3)
    with pytest.raises(errors.Conflict, match="is not running"):
        container.exec_run(["true"])
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 3


def test_one_that_ends_meanwhile(engine: FakeEngine) -> None:
    """Whatever fails then says that it does not run."""
    container = start(engine, network_mode="none")
    task = engine.shim.task(container.id)
    real = engine.cgroups.open

    def ends(container_id: str):
        task.exit(0)
        return real(container_id)

    engine.cgroups.open = ends
    with pytest.raises(errors.Conflict, match="is not running"):
        container.exec_run(["true"])


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (not_found(), 127),
        (errors.KernelError(errno.EACCES, "exec"), 126),
        (errors.KernelError(errno.ENOENT, "chdir", "/x"), 126),
    ],
)
def test_what_cannot_be_executed(engine: FakeEngine, failure, code) -> None:
    engine.shim.programs["program"] = failure
    container = start(engine, network_mode="none")
    before, open_before = left(engine), descriptors(engine)
    with pytest.raises(errors.StartFailed) as caught:
        container.exec_run(["program"])
    assert caught.value.exit_code == code
    assert left(engine) == before and descriptors(engine) == open_before
    assert records(engine, container) == []
    assert "exec_start" not in events(engine)


def test_unknown_user(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    with pytest.raises(errors.StartFailed, match="nosuch") as caught:
        container.exec_run(["true"], user="nosuch")
    assert caught.value.exit_code == 126


def test_no_command(engine: FakeEngine) -> None:
    with pytest.raises(errors.InvalidParameter, match="No exec command specified"):
        start(engine, network_mode="none").exec_run([])


def test_a_crowded_container_is_entered_from_outside(engine: FakeEngine, monkeypatch) -> None:
    """The pids limit forbids to be born inside; moving in is not forbidden."""
    container = start(engine, network_mode="none", pids_limit=1)
    open(f"{engine.cgroups.paths(container.id)[0]}/cgroup.procs", "w").close()
    tries: list[int] = []

    def crowded(process) -> int:
        tries.append(process.cgroup[1])
        if len(tries) == 1:
            raise errors.KernelError(errno.EAGAIN, "clone")
        return 4

    engine.shim.programs["program"] = crowded
    assert container.exec_run(["program"])[0] == 4
    assert tries[0] != 0 and tries[1] == 0


def test_whichever_call_fails_nothing_is_left(engine: FakeEngine) -> None:
    container = start(engine, network_mode="none")
    before, open_before, tried = left(engine), descriptors(engine), 0
    started: list[Exec] = []

    def deed() -> None:
        started.append(container.exec_start(SLEEP, user="nobody"))

    for name, failed in failing(engine, deed):
        tried += 1
        if not failed:
            started[-1].signal(signal.SIGKILL)
            assert started[-1].wait() == 137
        assert records(engine, container) == [], name
        assert left(engine) == before and descriptors(engine) == open_before, name
        assert container.status == "running"
    assert tried >= 6


def test_a_lost_bundle_is_made_again(engine: FakeEngine) -> None:
    """A cleaner of temporary files took it."""
    container = start(engine, network_mode="none")
    shutil.rmtree(f"{engine.exec_root}/tasks/{container.id}")
    assert container.exec_run(["echo", "x"]) == (0, b"x\n")
    container.kill()
    assert container.attrs["State"]["ExitCode"] == 137 and left(engine) == []
