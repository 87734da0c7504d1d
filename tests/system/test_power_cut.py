"""What a verb has promised is on the disk when it returns: seen from after a power cut.

The root is a file system on a loop device. What has been handed to that device, and nothing that is
still in memory above it, is in the file behind it: a copy of that file is the disk as a power cut at
that moment leaves it.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from pynetns.errors import NotFound

from ..conftest import Place

pytestmark = pytest.mark.root


class Disk:
    """A file system of its own below the root of a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.file = str(place.top / "disk")
        with open(self.file, "wb") as file:
            file.truncate(48 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.file], check=True)
        os.mkdir(place.root, 0o711)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.file, self.place.root], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.place.root], check=True)

    def cut_power(self):  # type: ignore[no-untyped-def]
        """The disk as it is now; an engine that finds it so."""
        shutil.copyfile(self.file, f"{self.file}.cut")
        for engine in self.place.engines:
            engine.close()
        self.unmount()
        os.rename(f"{self.file}.cut", self.file)
        self.mount()
        return self.place.engine()


@pytest.fixture
def disk(place: Place) -> Iterator[Disk]:
    disk = Disk(place)
    try:
        yield disk
    finally:
        place.clean_engine()
        for engine in place.engines:
            engine.close()
        disk.unmount()


def settled(disk: Disk):  # type: ignore[no-untyped-def]
    """An engine on a root that has long been on the disk."""
    engine = disk.place.engine()
    os.sync()
    return engine


def test_a_created_container_is_there(disk: Disk) -> None:
    engine = settled(disk)
    made = engine.containers.create("host", ["echo", "hi"], name="made", labels={"a": "b"})
    after = disk.cut_power()
    (found,) = after.containers.list(all=True)
    assert (found.id, found.name, found.labels) == (made.id, "made", {"a": "b"})
    assert found.attrs["Args"] == ["hi"]
    found.start()
    assert found.wait()["StatusCode"] == 0
    assert found.logs() == b"hi\n"


def test_a_removed_container_is_gone(disk: Disk) -> None:
    engine = settled(disk)
    container = engine.containers.create("host", ["true"], name="gone")
    container.start()
    container.wait()
    os.sync()
    container.remove()
    after = disk.cut_power()
    assert after.containers.list(all=True) == []
    with pytest.raises(NotFound):
        after.containers.get("gone")
    for directory in ("containers", "overlay2"):
        assert os.listdir(f"{after.root}/{directory}") == []


def test_an_imported_image_is_there(disk: Disk) -> None:
    engine = settled(disk)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar, open("/bin/busybox", "rb") as program:
        member = tarfile.TarInfo("bin/sh")
        member.mode, member.size = 0o755, os.fstat(program.fileno()).st_size
        tar.addfile(member, program)
    archive.seek(0)
    engine.images.import_rootfs(archive, "shell")
    after = disk.cut_power()
    said = after.containers.run("shell", ["sh", "-c", "echo there"], remove=True)
    assert said == b"there\n"


def test_a_removed_image_is_gone(disk: Disk) -> None:
    engine = settled(disk)
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    archive.seek(0)
    engine.images.import_rootfs(archive, "empty")
    os.sync()
    engine.images.remove("empty")
    after = disk.cut_power()
    assert [image.tags for image in after.images.list()] == [["host:latest"]]
    after.gc()
    assert os.listdir(f"{after.root}/overlay2") == []
