"""State is true after a crash of anybody: the engine's process, the shim, the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from pynetns.engine.lock import container_lock
from pynetns.errors import StateDamaged, System
from pynetns.kernel import frame
from pynetns.store import SandboxRow

from .. import leaks
from ..conftest import kill_shim, shim_processes, wait_for_ends

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def living_processes() -> set[int]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(int(pid))
        except OSError:
            continue
    return found


def in_another_process(place, body: str, *, kill: bool = False) -> str:
    """Run `body` with an `engine` in a fresh interpreter, which may end itself by SIGKILL."""
    code = textwrap.dedent(
        f"""
        import os, signal, pynetns
        engine = pynetns.Engine({place.root!r}, {place.exec_root!r})
        """
    ) + textwrap.dedent(body)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = -signal.SIGKILL if kill else 0
    assert result.returncode == expected, result.stderr
    return result.stdout.strip()


def test_container_survives_its_starter(place, tmp_path):
    os.mkfifo(tmp_path / "go")
    body = f"""
    c = engine.containers.run(
        "host", ["sh", "-c", "read x < /go/go; echo alive; exit 6"], detach=True,
        volumes=["{tmp_path}:/go"],
    )
    print(c.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    container_id = in_another_process(place, body, kill=True)
    container = place.engine().containers.get(container_id)
    assert container.status == "running"
    (tmp_path / "go").write_text("\n")
    assert container.wait() == {"StatusCode": 6}
    assert container.logs() == b"alive\n"
    assert container.attrs["State"]["FinishedAt"] > container.attrs["State"]["StartedAt"]


def test_end_that_nobody_saw_is_told_by_the_next_engine(place):
    body = """
    c = engine.containers.run("host", ["sh", "-c", "echo seen; exit 7"], detach=True)
    engine.shim.wait(c.id)
    print(c.id)
    """
    container_id = in_another_process(place, body)
    container = place.engine().containers.get(container_id)
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 7)
    assert container.logs() == b"seen\n"


def test_auto_remove_happens_with_the_next_engine(place):
    body = """
    c = engine.containers.run("host", ["true"], detach=True, remove=True)
    engine.shim.wait(c.id)
    """
    in_another_process(place, body)
    engine = place.engine()
    assert engine.containers.list(all=True) == []
    assert os.listdir(f"{engine.root}/containers") == []


def test_two_engines_see_the_same(place):
    one, two = place.engine(), place.engine()
    container = one.containers.run("host", SLEEP, detach=True, name="shared")
    assert two.containers.get("shared").status == "running"
    two.containers.get("shared").kill()
    container.reload()
    assert container.status == "exited"


KILLED_AT = [
    "network.join_sandbox",
    "network.join",
    "claim_bundle",
    "join_containers",
    "creation.open_mounts",
    "create_spec",
    "record_started",
    "creation.render_plan",
]


@pytest.mark.parametrize("where", KILLED_AT)
def test_start_killed_half_way_leaves_nothing(place, where):
    """SIGKILL in the middle of a start: the next engine gives back what was made."""
    body = f"""
    from pynetns.engine.verbs import start
    from pynetns.runtime import creation
    c = engine.containers.create("host", {SLEEP!r}, name="victim", ports={{"80/tcp": None}})
    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
    homes = {{"network": engine.network, "creation": creation, "": start}}
    home, _, name = {where!r}.rpartition(".")
    setattr(homes[home], name, die)
    c.start()
    """
    in_another_process(place, body, kill=True)
    engine = place.engine()
    if where == "record_started":  # its program runs, but nobody was ever told that it does
        assert engine.shim.tasks() == {}
    container = engine.containers.get("victim")
    assert container.status == "created"
    assert engine.store.sandboxes() == [] and engine.store.ports() == []
    assert os.listdir(f"{engine.exec_root}/netns") == []
    assert os.listdir(f"{engine.exec_root}/tasks") == []
    container.start()
    assert container.status == "running"


@pytest.mark.parametrize("where", ["create_files_of", "register_name", "write_record"])
def test_create_killed_half_way_is_collected(place, where):
    body = f"""
    from pynetns.engine.verbs import create
    real = create.{where}
    def die(*args, **kwargs):
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    create.{where} = die
    engine.containers.create("host", {SLEEP!r}, name="victim")
    """
    in_another_process(place, body, kill=True)
    engine = place.engine()
    engine.gc()
    names = {c.name for c in engine.containers.list(all=True)}
    assert names <= {"victim"}
    for container in engine.containers.list(all=True):  # whole, then: it can be used
        container.start()
        container.remove(force=True)
    assert os.listdir(f"{engine.root}/containers") == []


@pytest.mark.parametrize("which", [0, 1], ids=["shim", "keeper"])
def test_killed_shim_or_keeper(engine, which):
    """The other takes over: the container runs on, its log goes on, its exit code is known."""
    script = "echo before; read line < /tmp/go; echo after; exit 7"
    container = engine.containers.create("host", ["sh", "-c", f"mkfifo /tmp/go; {script}"])
    container.start()
    pidfd = os.pidfd_open(shim_processes(engine)[which])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait_for_ends([pidfd])
    container.reload()
    assert container.status == "running"
    container.exec_run(["sh", "-c", "until test -p /tmp/go; do :; done; echo > /tmp/go"])
    assert container.wait()["StatusCode"] == 7
    assert container.logs() == b"before\nafter\n"
    container.remove()


def test_container_without_its_shim_lives_and_can_be_ended(engine):
    """Nobody takes what lives for dead: it is looked at, waited for and ended by its own pidfd."""
    container = engine.containers.run("host", SLEEP, detach=True)
    pid = container.attrs["State"]["Pid"]
    kill_shim(engine)
    container.reload()
    assert container.status == "running" and pid in living_processes()
    with pytest.raises(TimeoutError):
        container.wait(timeout=0.01)
    container.kill()
    assert pid not in living_processes()
    # the kernel tells how it ended: the zombie, or its pidfd since Linux 6.15
    assert (container.status, container.attrs["State"]["ExitCode"] in (137, 255)) == (
        "exited",
        True,
    )
    container.start()
    assert container.status == "running"


@pytest.mark.parametrize("verb", ["stop", "rm", "wait"])
def test_every_verb_works_without_a_shim(engine, verb):
    container = engine.containers.run("host", ["sh", "-c", "sleep 1; exit 6"], detach=True)
    pid = container.attrs["State"]["Pid"]
    kill_shim(engine)
    if verb == "stop":
        container.stop(timeout=0)
        assert container.status == "exited"
    elif verb == "rm":
        container.remove(force=True)
        assert engine.containers.list(all=True) == []
    else:
        assert container.wait()["StatusCode"] in (6, 255)
    assert pid not in living_processes()


def test_reboot_voids_running_state(engine):
    """After a reboot the pid is another's, the exec root is empty."""
    container = engine.containers.run("host", SLEEP, detach=True)
    row = engine.store.container(container.id)
    container.kill()
    engine.store.set_state(
        container.id, replace(row.state, boot_id="another boot", pid=os.getpid())
    )
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 255)
    os.kill(os.getpid(), 0)


def test_gc_finds_nothing_after_ordinary_use(engine):
    engine.containers.run("host", ["true"], remove=True)
    idle = {link for link in leaks.links() if not link.startswith("link veth")}
    leaks.wait_for_links(idle)  # the kernel takes a dead namespace's link down in the background
    container = engine.containers.run("host", SLEEP, detach=True)
    assert engine.gc() == []
    container.remove(force=True)
    leaks.wait_for_links(idle)
    assert engine.gc() == []


def test_gc_removes_strangers(engine):
    engine.containers.run("host", ["true"], remove=True)
    fd, nl = engine.kernel.netns_create()
    engine.kernel.ns_pin(fd, f"{engine.exec_root}/netns/0123456789ab")
    os.close(fd)
    os.close(nl)
    os.mkdir(f"{engine.root}/containers/{'e' * 64}")
    removed = "\n".join(engine.gc())
    assert "0123456789ab" in removed and "e" * 64 in removed
    assert os.listdir(f"{engine.exec_root}/netns") == []
    assert engine.gc() == []


def test_what_somebody_is_at_work_on_is_left_alone_until_he_is_gone(place):
    """A start and a create, as far as they have come, seen by an engine that opens and by gc."""
    engine = place.engine()
    starting, creating = engine.containers.create("host", SLEEP).id, "c" * 64
    half = [f"{engine.root}/{where}/{creating}" for where in ("containers", "overlay2")]
    half += [f"{engine.exec_root}/tasks/{id}" for id in (starting, creating)]
    with (
        container_lock(engine.exec_root, starting),
        container_lock(engine.exec_root, creating),
    ):
        engine.store.add_sandbox(SandboxRow(starting, "s", ""))
        for path in half:
            os.mkdir(path)
        assert place.engine().gc() == []
        assert [os.path.exists(path) for path in half] == [True] * 4
        assert [row.container_id for row in engine.store.sandboxes()] == [starting]
        assert sorted(os.listdir(f"{engine.exec_root}/locks")) == sorted([starting, creating])
    gone = engine.gc()
    left = f"container {creating[:12]}: what was left of it"
    assert gone == [left, *(f"directory {path}" for path in half[:2])]
    assert [os.path.exists(path) for path in half] == [False] * 4
    assert engine.store.sandboxes() == []
    assert os.listdir(f"{engine.exec_root}/locks") == [starting]


def test_gc_of_an_engine_that_is_open_notices_what_ended_and_what_others_left_half_done(place):
    engine = place.engine()
    body = f"""
    c = engine.containers.create("host", {SLEEP!r}, name="victim", ports={{"80/tcp": None}})
    engine.network.join = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
    c.start()
    """
    in_another_process(place, body, kill=True)
    ended = engine.containers.run("host", ["sh", "-c", "exit 4"], detach=True)
    going = engine.containers.run("host", ["true"], detach=True, remove=True)
    for container in (ended, going):
        engine.shim.wait(container.id)
    before = {row.name for row in engine.store.containers()}
    engine.gc()
    rows = {row.name: row for row in engine.store.containers()}
    assert before - set(rows) == {going.name}
    assert (rows[ended.name].state.status, rows[ended.name].state.exit_code) == ("exited", 4)
    assert rows["victim"].state.status == "created"
    assert engine.store.sandboxes() == [] and engine.store.endpoints() == []
    assert os.listdir(f"{engine.exec_root}/tasks") == []
    assert engine.gc() == []


@pytest.mark.parametrize("name", ["config.v2.json", "hostconfig.json"])
def test_damaged_state_file_is_named_and_left_alone(place, name):
    engine = place.engine()
    container = engine.containers.create("host", SLEEP)
    path = Path(engine.root, "containers", container.id, name)
    good = path.read_text()
    for damage in ("", "{", "[]", '{"Version": 99}'):
        path.write_text(damage)
        with pytest.raises(StateDamaged, match=name):
            place.engine().containers.get(container.id).start()
        assert path.read_text() == damage
    path.write_text(good)
    place.engine().containers.get(container.id).start()


def test_damaged_container_does_not_keep_others_from_use(place):
    engine = place.engine()
    bad = engine.containers.run("host", ["true"], detach=True, network_mode="none")
    engine.shim.wait(bad.id)  # ended, and nobody has noticed: opening an engine would settle it
    path = Path(engine.root, "containers", bad.id, "config.v2.json")
    good = path.read_text()
    path.write_text("{")
    other = place.engine()
    assert other.containers.run("host", ["echo", "fine"], remove=True) == b"fine\n"
    path.write_text(good)


def test_container_that_cannot_be_repaired_does_not_keep_the_engine_closed(place, monkeypatch):
    from pynetns.engine import recover

    engine = place.engine()
    for name in ("stubborn", "other"):
        container = engine.containers.run(
            "host", ["true"], detach=True, name=name, network_mode="none"
        )
        engine.shim.wait(container.id)
    settle = recover.settle_exit

    def resist(engine, row):
        if row.name == "stubborn":
            raise OSError("it resists")
        return settle(engine, row)

    monkeypatch.setattr(recover, "settle_exit", resist)
    states = {row.name: row.state.status for row in place.engine().store.containers()}
    assert states == {"stubborn": "running", "other": "exited"}


def test_forked_child_has_its_own_connections(engine):
    container = engine.containers.run("host", SLEEP, detach=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if engine.containers.get(container.id).exec_run(["true"])[0] == 0 else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert container.exec_run(["true"])[0] == 0


def test_hello_of_another_version_is_refused(engine, monkeypatch):
    engine.containers.run("host", SLEEP, detach=True)
    monkeypatch.setattr(frame, "PROTOCOL", 99)
    with pytest.raises(System, match="another version"):
        engine.shim.connect(start=False)
