"""What the engine makes has its own modes, whatever the umask of whoever starts it."""

from __future__ import annotations

import os
import re
import stat
import subprocess

import pytest

from .test_cli import command

pytestmark = pytest.mark.root


def px(place, umask: int, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(place, *args), umask=umask, capture_output=True, text=True, timeout=60
    )


def modes(top: str, *leave_out: str) -> dict[str, str]:
    """Every file below `top` with its mode; ids and what the container itself made left out."""
    found = {}
    for directory, names, files in os.walk(top):
        names[:] = [name for name in names if name not in leave_out]
        for name in (*names, *files):
            path = f"{directory}/{name}"
            parts = [
                re.sub("^[0-9a-f]{12,}", "ID", p) for p in os.path.relpath(path, top).split("/")
            ]
            if os.path.lexists(path):
                found["/".join(parts)] = stat.filemode(os.lstat(path).st_mode)
    return found


LOOK = (
    "cat /etc/hosts /etc/resolv.conf /etc/hostname && ls -d /made/deep/source /sys/fs/cgroup/* /tmp"
)


@pytest.mark.parametrize("umask", [0, 0o077, 0o027, 0o777])
def test_first_use_of_a_root(place, umask):
    source = f"{place.top}/made/deep/source"
    options = ["--rm", "-u", "1000", "--network", "none", "-v", f"{source}:/made/deep/source"]
    result = px(place, umask, "run", *options, "host", "sh", "-c", LOOK)
    assert (result.returncode, result.stderr) == (0, "")
    for path in ("made", "made/deep", "made/deep/source"):
        assert stat.filemode(os.stat(place.top / path).st_mode) == "drwxr-xr-x"
    assert stat.filemode(os.stat(place.root).st_mode) == "drwx--x--x"
    open_to_all = {
        path: mode for path, mode in modes(place.root, "overlay2").items() if mode[8] == "w"
    }
    assert not open_to_all


def test_every_umask_makes_the_same(place):
    """A container that runs, an image, logs: the tree of 022 is that of every other umask."""
    (place.top / "tree" / "bin").mkdir(parents=True)
    seen = []
    root, exec_root = place.root, place.exec_root
    for umask in (0o022, 0, 0o077):
        place.root, place.exec_root = f"{root}/{umask:o}", f"{exec_root}/{umask:o}"
        try:
            name = ["--name", "one", "--network", "none", "--ipc", "shareable"]
            for line in (
                ["run", "-d", *name, "host", "sleep", "1000"],
                ["import", f"{place.top}/tree", "tree:1"],
                ["exec", "-d", "one", "sleep", "1000"],
            ):
                result = px(place, umask, *line)
                assert (result.returncode, result.stderr) == (0, "")
            seen.append((modes(place.root, "merged", "work"), modes(place.exec_root, "image")))
        finally:
            place.clean_engine()
    place.root, place.exec_root = root, exec_root
    for other in seen[1:]:
        for tree, expected in zip(other, seen[0], strict=True):
            assert sorted(tree.items() ^ expected.items()) == []
    assert seen[0][0]["containers/ID/hosts"] == "-rw-r--r--"
    assert seen[0][0]["containers/ID/ID-json.log"] == "-rw-r-----"


@pytest.mark.security
@pytest.mark.parametrize("name", ["root", "exec"])
def test_a_state_directory_that_others_can_write_to_is_refused(place, name):
    assert px(place, 0o022, "ps").returncode == 0
    subprocess.run(["umount", place.exec_root], check=True)
    os.chmod(place.top / name, 0o777)
    result = px(place, 0o022, "ps")
    assert result.returncode == 1
    option = "--root" if name == "root" else "--exec-root"
    assert result.stderr.startswith(f"pynetns: {option} : others can write to {place.top}/{name}")
    assert "chmod go-w" in result.stderr and result.stderr.count("\n") == 1
    os.chmod(place.top / name, 0o700)
    os.chmod(f"{place.root}/containers", 0o777)
    assert f"{place.root}/containers" in px(place, 0o022, "ps").stderr
    os.chmod(f"{place.root}/containers", 0o711)
    assert px(place, 0o022, "ps").returncode == 0
