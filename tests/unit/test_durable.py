"""What is promised to be durable is on the disk when the call returns: the synchronizing system calls,
in their order, as the C library sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("syncs.c")
PROLOGUE = """
import os, sys
from pathlib import Path
from pynetns.engine.record import ContainerRecord, write_host_config, write_record
from pynetns.kernel import LinuxKernel
from pynetns.model.config import Config, HostConfig
from pynetns.model.state import State
from pynetns.storage.images import ImageStore
from pynetns.store import Store
root = sys.argv[1]
for name in ("containers", "overlay2", "tmp"):
    os.mkdir(f"{root}/{name}")
store = Store(f"{root}/pynetns.db")
record = ContainerRecord("c1", "", "sh", (), "", (), Config(), HostConfig())
os.mkdir(f"{root}/containers/c1")
os.mkdir(f"{root}/files")
Path(f"{root}/files/a").write_text("a")
Path(f"{root}/files/b").write_text("b")
images = ImageStore(store, LinuxKernel(), root, f"{root}/exec")
store.add_container("c0", "old", "", State())
store.add_image("i0", "old", "", ("l",), {}, 1)
store.add_image("i1", "other", "", ("l",), {}, 1)
Path(os.environ["SYNCS"]).unlink(missing_ok=True)
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("syncs") / "syncs.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


@pytest.fixture
def synced(library: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run code in a process of its own; what it synced and renamed, in order, below its root."""
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()

    def run(code: str) -> list[str]:
        preload = f"{os.environ.get('LD_PRELOAD', '')} {library}"
        environment = {**os.environ, "SYNCS": str(log), "LD_PRELOAD": preload}
        subprocess.run(
            [sys.executable, "-c", PROLOGUE + code + "\nos._exit(0)", str(root)],
            env=environment,
            check=True,
        )
        lines = log.read_text().splitlines() if log.exists() else []
        assert all(str(root) in line for line in lines), lines
        return [line.replace(f"{root}", "") for line in lines]

    return run


def test_a_record_is_on_disk_before_it_has_its_name_and_its_name_before_create_returns(synced):
    directory = "/containers/c1"
    assert synced("write_record(root, record, 'web')") == [
        f"sync {directory}/config.v2.json.tmp",
        f"rename {directory}/config.v2.json",
        f"sync {directory}/hostconfig.json.tmp",
        f"rename {directory}/hostconfig.json",
        f"sync {directory}",
    ]


def test_a_changed_host_config_is_on_disk_before_it_replaces_the_old_one(synced):
    path = "/containers/c1/hostconfig.json"
    assert synced("write_host_config(root, record)")[:2] == [f"sync {path}.tmp", f"rename {path}"]


def test_the_files_of_an_image_are_on_disk_before_its_row_is(synced):
    done = synced("images.import_rootfs(f'{root}/files', 'app')")
    files, renamed, placed, row = (line.partition(" ") for line in done)
    assert files[0] == "sync" and files[2].startswith("/tmp/import-")
    assert renamed[0] == "rename" and renamed[2].startswith("/overlay2/")
    assert (placed[0], placed[2]) == ("sync", "/overlay2")
    assert (row[0], row[2]) == ("sync", "/pynetns.db-wal")


@pytest.mark.parametrize(
    "change",
    [
        "add_container('c1', 'web', '', State())",
        "add_image('i2', 'app', '', ('l',), {}, 1)",
        "tag_image('i0', 'app')",
        "remove_image('i0')",
        "set_meta('exec_root', '/x')",
        "atomically(lambda: store.set_state('c0', State(error='x')), durable=True)",
    ],
)
def test_what_the_store_promises_to_keep_is_on_disk(synced, change):
    assert synced(f"store.{change}") == ["sync /pynetns.db-wal"]


@pytest.mark.parametrize(
    "change",
    [
        "set_state('c0', State(error='x'))",
        "add_event('container', 'start', 'c0')",
        "atomically(lambda: store.set_state('c0', State(error='y')))",
        "containers()",
    ],
)
def test_what_a_reboot_voids_is_not_waited_for(synced, change):
    """Once after a durable change: it leaves the fast mode on."""
    assert synced(f"store.{change}; store.{change}") == []
