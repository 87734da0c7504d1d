"""Mount propagation of a volume: it works where it can, and is refused where it could not."""

from __future__ import annotations

import os
import subprocess

import pytest

from pynetns import errors

pytestmark = pytest.mark.root


@pytest.fixture
def source(place):
    """A mount of the test's own, private at first."""
    path = f"{place.top}/source"
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "--make-private", "tmpfs", path], check=True)
    os.mkdir(f"{path}/sub")
    yield path
    subprocess.run(["umount", "-R", "-l", path], check=True)


def make(path: str, kind: str) -> None:
    subprocess.run(["mount", f"--make-{kind}", path], check=True)


@pytest.mark.parametrize("word", ["shared", "rshared", "slave", "rslave"])
def test_a_private_source_is_refused_before_anything_is_made(engine, source, word):
    for options in (
        {"volumes": [f"{source}/sub:/m:{word}"]},
        {"mounts": [f"type=bind,src={source}/sub,dst=/m,bind-propagation={word}"]},
    ):
        with pytest.raises(errors.InvalidParameter, match=f"is mounted on {source} but it is not"):
            engine.containers.create("host", ["true"], network="none", **options)
    assert engine.containers.list(all=True) == []


def test_what_was_shared_at_create_is_looked_at_again_at_start(engine, source):
    make(source, "shared")
    volumes = [f"{source}:/m:rslave"]
    container = engine.containers.create("host", ["true"], network="none", volumes=volumes)
    make(source, "private")
    with pytest.raises(errors.InvalidParameter, match="not a shared or slave mount"):
        container.start()
    container.remove()


def test_a_slave_sees_what_is_mounted_later(engine, source):
    make(source, "shared")
    container = engine.containers.run(
        "host", ["sleep", "1000"], detach=True, network="none", volumes=[f"{source}:/m:rslave"]
    )
    subprocess.run(["mount", "-t", "tmpfs", "later", f"{source}/sub"], check=True)
    with open(f"{source}/sub/file", "w") as file:
        file.write("arrived")
    assert container.exec_run(["cat", "/m/sub/file"]) == (0, b"arrived")


def test_shared_goes_both_ways(engine, source):
    make(source, "shared")
    container = engine.containers.run(
        "host", ["sleep", "1000"], detach=True, network="none", privileged=True,
        volumes=[f"{source}:/m:rshared"],
    )  # fmt: skip
    assert container.exec_run(["mount", "-t", "tmpfs", "inner", "/m/sub"])[0] == 0
    assert os.path.ismount(f"{source}/sub")
