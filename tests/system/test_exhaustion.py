"""When something runs out or is not allowed: one clear error, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pynetns import errors

from ..conftest import Place

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
        "import pynetns.engine.core\n"
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
    from pynetns.kernel import Kernel

    os.mkdir(place.root)
    Kernel.tmpfs_mount(place.root, "size=4m")
    try:
        yield place
    finally:
        place.clean_engine()
        Kernel.umount(place.root)


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
