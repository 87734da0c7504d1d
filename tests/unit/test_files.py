"""files.py: modes that do not depend on the umask, and directories that are safe to keep state in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pynetns import files
from pynetns.errors import Unavailable


def under(umask: int, code: str) -> None:
    """Run code in a process of its own with that umask: it belongs to the whole process."""
    subprocess.run(
        [sys.executable, "-c", f"import os\nfrom pynetns import files\n{code}"],
        umask=umask,
        check=True,
    )


def mode(path) -> int:
    return os.stat(path).st_mode & 0o7777


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o027])
def test_modes_are_those_that_are_meant(tmp_path, umask):
    top = f"{tmp_path}/a"
    under(
        umask,
        f"files.make_directories('{top}/b/c', 0o711)\n"
        f"files.make_directories('{top}/b/c', 0o700)\n"
        f"files.make_directory('{top}/d', 0o750)\n"
        f"fd = os.open('{top}/f', os.O_CREAT | os.O_WRONLY, 0o644)\n"
        "files.set_mode(fd, 0o644)\n",
    )
    found = {name: mode(f"{top}/{name}") for name in ("", "b", "b/c", "d", "f")}
    assert found == {"": 0o755, "b": 0o755, "b/c": 0o711, "d": 0o750, "f": 0o644}


def test_what_is_no_directory_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_directories(f"{tmp_path}/file", 0o700)
    with pytest.raises(NotADirectoryError):
        files.make_directories(f"{tmp_path}/file/x", 0o700)
    with pytest.raises(FileExistsError):
        files.make_directory(f"{tmp_path}", 0o700)


@pytest.mark.security
@pytest.mark.parametrize(
    ("bad", "word"),
    [(0o777, "others can write"), (0o757, "chmod go-w"), (0o702, "mode 0702")],
)
def test_a_directory_that_others_can_write_to_is_refused(tmp_path, bad, word):
    (tmp_path / "open" / "root").mkdir(parents=True)
    files.check_state_directory("--root", f"{tmp_path}/open/root")
    (tmp_path / "open").chmod(bad)
    with pytest.raises(Unavailable, match=word) as caught:
        files.check_state_directory("--root", f"{tmp_path}/open/root")
    assert f"{tmp_path}/open " in str(caught.value) and "--root" in str(caught.value)
    (tmp_path / "open").chmod(0o1777)  # as /tmp: nobody can rename what is another's
    files.check_state_directory("--root", f"{tmp_path}/open/root")


@pytest.mark.root
@pytest.mark.security
def test_a_directory_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "home" / "root").mkdir(parents=True)
    os.chown(tmp_path / "home", 1000, 0)
    with pytest.raises(Unavailable, match="belongs to uid 1000"):
        files.check_state_directory("--root", f"{tmp_path}/home/root")
    os.chown(tmp_path / "home", 0, 1000)
    (tmp_path / "home").chmod(0o775)
    with pytest.raises(Unavailable, match="others can write"):
        files.check_state_directory("--root", f"{tmp_path}/home/root")
    os.chown(tmp_path / "home", 0, 0)
    files.check_state_directory("--root", f"{tmp_path}/home/root")
