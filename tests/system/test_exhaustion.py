"""When something runs out or is not allowed: one clear error, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pynetns import errors

from ..conftest import Place, end_shim

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def cli(place: Place, *args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command line after a shell's `before`, e.g. a ulimit."""
    roots = f"--root {place.root} --exec-root {place.exec_root}"
    line = f"{before} exec {sys.executable} -m pynetns {roots} {' '.join(args)}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode in (1, 125)
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("pynetns: ")
    for word in words:
        assert word in result.stderr


def test_not_root(place):
    code = (
        "import os, sys\n"
        "os.setgroups([]); os.setgid(65534)\n"
        "from pynetns.cli.main import main\n"
        "import pynetns.client.engine\n"
        "os.setuid(65534)\n"
        f"sys.exit(main(['--root', {place.root!r}, 'ps']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert_one_line(result, "root", "sudo")


def test_too_few_descriptors(place):
    """The limit is hit somewhere in the middle, whatever it is: the error is clear, all is undone."""
    place.engine().containers.run("host", ["true"], remove=True)
    for limit in (16, 20, 24, 28):
        result = cli(
            place, "run", "--name", f"n{limit}", "host", "true", before=f"ulimit -n {limit};"
        )
        if result.returncode != 0:
            assert_one_line(result, "Too many open files")
    engine = place.engine()
    assert engine.shim.tasks() == {}
    assert engine.store.sandboxes() == []
    assert os.listdir(f"{engine.exec_root}/tasks") == []
    assert os.listdir(f"{engine.exec_root}/netns") == []


@pytest.fixture
def small_disk(place):
    """The engine's root on a file system of 4 MiB."""
    from pynetns.kernel import LinuxKernel

    os.mkdir(place.root)
    LinuxKernel.tmpfs_mount(place.root, "size=4m")
    try:
        yield place
    finally:
        place.clean_engine()
        LinuxKernel.umount(place.root)


def test_disk_full(small_disk):
    engine = small_disk.engine()
    container = engine.containers.create("host", ["echo", "fits"])
    filler = os.open(f"{engine.root}/filler", os.O_CREAT | os.O_WRONLY)
    for size in (65536, 4096):  # to the last block
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(filler, bytes(size))
    os.close(filler)
    before = sorted(os.listdir(f"{engine.root}/containers"))
    with pytest.raises((errors.Unavailable, errors.System), match=r"(?i)space"):
        engine.containers.create("host", SLEEP)
    assert sorted(os.listdir(f"{engine.root}/containers")) == before
    os.unlink(f"{engine.root}/filler")
    container.start()
    assert container.wait() == {"StatusCode": 0}
    assert container.logs() == b"fits\n"


def test_no_more_addresses(place):
    engine = place.engine(bip="10.231.77.1/30")
    first = engine.containers.run("host", SLEEP, detach=True)
    second = engine.containers.create("host", SLEEP)
    with pytest.raises(errors.PynetnsError, match="no available IPv4 addresses"):
        second.start()
    first.remove(force=True)
    second.start()
    assert second.status == "running"


def test_no_more_processes(engine):
    """A full container refuses its own programs; it can still be looked at and stopped."""
    container = engine.containers.run("host", SLEEP, detach=True, pids_limit=1)
    code, out = container.exec_run(["sh", "-c", "/bin/true; echo not reached"])
    assert code != 0 and b"fork" in out and b"not reached" not in out
    container.reload()
    assert container.status == "running"
    container.stop(timeout=0)
    assert container.status == "exited"


# ---- a disk that is full or read-only ----


def fill(directory: str) -> None:
    """To the last block."""
    filler = os.open(f"{directory}/filler", os.O_CREAT | os.O_WRONLY)
    for size in (65536, 4096, 1):
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(filler, bytes(size))
    os.close(filler)


def test_everything_but_starting_works_on_a_full_disk(small_disk):
    """Each command is a process of its own, as every one has to open the store anew."""
    engine = small_disk.engine()
    sleeper = engine.containers.run("host", SLEEP, detach=True, name="sleeper")
    stopped = engine.containers.run("host", SLEEP, detach=True, name="stopped")
    short = engine.containers.run(
        "host", ["sh", "-c", "echo said; exit 7"], detach=True, name="short"
    )
    engine.shim.wait(short.id)  # ended, and nobody has noticed
    engine.close()
    fill(engine.root)

    def run(*args: str) -> str:
        result = cli(small_disk, *args)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "Exited (7)" in run("ps", "-a", "--filter", "name=short")
    assert run("wait", "short") == "7\n"
    assert run("inspect", "--format", "{{.State.ExitCode}}", "short") == "7\n"
    assert run("logs", "short") == "said\n"
    assert run("exec", "sleeper", "echo", "inside") == "inside\n"
    run("stop", "-t", "0", "stopped")
    assert run("wait", "stopped") == "137\n"
    assert "Exited (137)" in run("ps", "-a", "--filter", "name=stopped")
    run("kill", "sleeper")
    run("gc")
    refused = cli(small_disk, "run", "--name", "more", "host", "true")
    assert_one_line(refused, "full", "space")
    os.unlink(f"{engine.root}/filler")
    again = small_disk.engine()
    states = {c.name: c.attrs["State"]["ExitCode"] for c in again.containers.list(all=True)}
    assert states == {"sleeper": 137, "stopped": 137, "short": 7}
    assert {sleeper.id, stopped.id} <= {c.id for c in again.containers.list(all=True)}
    assert again.store.sandboxes() == []


def test_a_container_that_fills_the_disk_can_be_removed(small_disk, tmp_path):
    go = tmp_path / "go"
    os.mkfifo(go)
    script = "read x </go; cat /dev/zero >/filler 2>/dev/null; echo full >/go; sleep 1000"
    engine = small_disk.engine()
    engine.containers.run(
        "host", ["sh", "-c", script], detach=True, name="hog", volumes=[f"{go}:/go"]
    )
    engine.close()
    go.write_text("\n")
    assert go.read_text() == "full\n"
    result = cli(small_disk, "rm", "-f", "hog")
    assert result.returncode == 0, result.stderr
    again = small_disk.engine()
    assert again.containers.list(all=True) == []
    assert again.containers.run("host", ["echo", "room"], remove=True) == b"room\n"


@pytest.mark.parametrize("options", [[], ["--rm"]])
def test_exit_code_of_a_foreground_container_that_fills_the_disk(small_disk, tmp_path, options):
    go = tmp_path / "go"
    os.mkfifo(go)
    engine = small_disk.engine()
    script = "'read x </go; cat /dev/zero >/filler 2>/dev/null; exit 9'"
    arguments = [*options, "-v", f"{go}:/go", "host", "sh", "-c", script]
    with ThreadPoolExecutor() as pool:
        run = pool.submit(cli, small_disk, "run", *arguments)
        while not (engine.store.running() or run.done()):  # nothing tells that it is on record
            os.sched_yield()
        if not run.done():
            go.write_text("\n")
        assert run.result().returncode == 9


def test_read_only_root_can_be_read(small_disk):
    """As after an error of its file system."""
    engine = small_disk.engine()
    engine.containers.create("host", SLEEP, name="web")
    short = engine.containers.run(
        "host", ["sh", "-c", "echo said; exit 7"], detach=True, name="short"
    )
    engine.shim.wait(short.id)
    engine.close()
    end_shim(engine)
    subprocess.run(["mount", "-o", "remount,ro", small_disk.root], check=True)
    try:
        listed = cli(small_disk, "ps", "-a")
        assert "Exited (7)" in listed.stdout and "web" in listed.stdout
        assert cli(small_disk, "logs", "short").stdout == "said\n"
        assert_one_line(cli(small_disk, "run", "host", "true"), "ead-only")
        assert_one_line(cli(small_disk, "rm", "web"), "ead-only")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk.root], check=True)
    container = small_disk.engine().containers.get(short.id)
    assert container.attrs["State"]["ExitCode"] == 7


def test_full_exec_root(place):
    """Nothing can be started, everything can be read and ended."""
    engine = place.engine()
    container = engine.containers.run("host", SLEEP, detach=True, name="web")
    waiting = engine.containers.create("host", SLEEP)
    engine.close()
    subprocess.run(["mount", "-o", "remount,size=64k", place.exec_root], check=True)
    fill(place.exec_root)
    try:
        assert "web" in cli(place, "ps").stdout
        assert_one_line(cli(place, "start", waiting.id), "space")
        assert cli(place, "stop", "-t", "0", "web").returncode == 0
        assert cli(place, "rm", "web").returncode == 0
    finally:
        subprocess.run(["mount", "-o", "remount,size=50%", place.exec_root], check=True)
        os.unlink(f"{place.exec_root}/filler")
    assert [c.id for c in place.engine().containers.list(all=True)] == [waiting.id] != container.id


# ---- descriptors, files ----


def test_no_descriptor_left_anywhere(place):
    """Whatever number is left, `run` works or says what ran out, and leaves nothing half made."""
    import resource

    engine = place.engine()
    engine.containers.run("host", ["true"], remove=True)
    held: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    failed = 0
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.dup(0))
        for _ in range(40):
            try:
                engine.containers.run("host", ["true"], remove=True, network_mode="none")
                break
            except errors.Unavailable as error:
                failed += 1
                assert "Too many open files" in str(error) and "ulimit -n" in str(error)
            except errors.StartFailed as error:
                failed += 1
                assert "Too many open files" in str(error)
            os.close(held.pop())
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed > 3
    rows = {row.id for row in engine.store.containers()}
    assert set(os.listdir(f"{engine.root}/containers")) <= rows
    assert set(os.listdir(f"{engine.root}/overlay2")) <= rows
    for container in engine.containers.list(all=True):
        container.remove()
    assert engine.store.containers() == []


def test_files_deleted_below_running_containers(engine):
    """gc keeps what runs on record, so that it can be ended; then nothing is left of it."""
    import shutil

    container = engine.containers.run("host", SLEEP, detach=True, name="web")
    pid = container.row.state.pid
    shutil.rmtree(f"{engine.root}/containers")
    os.mkdir(f"{engine.root}/containers")
    engine.gc()
    os.kill(pid, 0)
    assert engine.store.container(container.id) is not None
    engine.containers.get("web").stop(timeout=0)
    assert not os.path.exists(f"/proc/{pid}")
    # its link is the kernel's to remove, some time after its namespace
    removed = [line for line in engine.gc() if not line.startswith("network link")]
    assert removed == ["container web: it has no files"]
    assert engine.store.containers() == [] and engine.shim.tasks() == {}
