"""An image's passwd and group are the image's: whatever they are, a start ends with a user that was
asked for or with one clear error, and never waits."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from pynetns import errors

pytestmark = [pytest.mark.root, pytest.mark.security]


@pytest.fixture
def tree(place) -> Path:
    """A root file system with a shell of its own."""
    tree = place.top / "tree"
    for name in ("bin", "etc", "tmp"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox")
    shutil.copy(busybox, tree / "bin/busybox")
    for name in ("sh", "id", "sleep"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n1001:x:0:0::/:\nbob:x:7:8::/:\n")
    (tree / "etc/group").write_text("root:x:0:\n1002:x:0:\nbobs:x:9:bob\n")
    return tree


def ids(engine, tree, **options) -> str:
    out = engine.containers.run(
        "", ["sh", "-c", "id -u; id -g; id -G"], rootfs=str(tree), network="none", remove=True, **options
    )  # fmt: skip
    return out.decode().replace("\n", " ").strip()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"user": "1001"}, "1001 0 0"),
        ({"user": "0:1002"}, "0 1002 1002"),
        ({"user": "1001:1002"}, "1001 1002 1002"),
        ({"user": "bob", "group_add": ["1002"]}, "7 8 8 9 1002"),
        ({"user": 1001}, "1001 0 0"),
        ({"user": "7"}, "7 8 8 9"),
        ({"user": "2147483647:2147483647"}, "2147483647 2147483647 2147483647"),
    ],
)
def test_digits_are_ids(engine, tree, options, expected):
    assert ids(engine, tree, **options) == expected


def test_digits_are_ids_for_exec_too(engine, tree):
    container = engine.containers.run(
        "", ["sleep", "1000"], rootfs=str(tree), network="none", detach=True
    )
    assert container.exec_run(["id", "-u"], user="1001") == (0, b"1001\n")
    assert container.exec_run(["id", "-g"], user="0:1002") == (0, b"1002\n")
    for bad in ("-1", "2147483648", "0:-1", "nobodies"):
        with pytest.raises(
            errors.StartFailed, match=r"range 0-2147483647|unable to find"
        ) as caught:
            container.exec_run(["id"], user=bad)
        assert caught.value.exit_code == 126


def _sparse(path: Path) -> None:
    path.write_text("bob:x:7:8::/:\n")
    os.truncate(path, 1 << 30)


def _replace(make):
    def prepare(path: Path) -> None:
        path.unlink()
        make(path)

    return prepare


_FILES = {
    "gigabyte": _sparse,
    "lines": lambda path: path.write_text("u:x:5:5::/:\n" * 1_000_000),
    "one line": lambda path: path.write_text("bob:x:" + "7" * 900_000),
    "nul": lambda path: path.write_bytes(b"bob\0:x:7:8::/:\n" * 3),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 100),
    "negative": lambda path: path.write_text("bob:x:-1:-1::/:\n"),
    "empty": lambda path: path.write_text(""),
    "pipe": _replace(os.mkfifo),
    "directory": _replace(os.mkdir),
    "device": _replace(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))),
    "link outside": _replace(lambda path: path.symlink_to("/../../../../../../etc/passwd")),
    "loop": _replace(lambda path: path.symlink_to("passwd")),
    "process": _replace(lambda path: path.symlink_to("/proc/self/environ")),
}


@pytest.mark.parametrize("what", _FILES)
@pytest.mark.parametrize("file", ["passwd", "group"])
def test_hostile_files_are_bounded_and_never_give_what_was_not_asked_for(engine, tree, what, file):
    _FILES[what](tree / "etc" / file)
    options = {"user": "bob"} if file == "passwd" else {"user": "bob:bobs"}
    known = {"passwd": "7 8 8 9", "group": "7 9 9"}[file]
    try:
        assert ids(engine, tree, **options) == known
    except (errors.StartFailed, errors.InvalidParameter) as error:
        assert file in str(error) and len(str(error)) < 300
    try:
        assert ids(engine, tree, user="5:6") == "5 6 6"  # numbers need neither file
    except (errors.StartFailed, errors.InvalidParameter) as error:
        assert f"/etc/{file} of the image: not a regular file below 1 MiB" in str(error)
