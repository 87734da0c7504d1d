"""Between clone and exec only async-signal-safe functions: the objects' undefined symbols.

The list is the proof: a call that is not on it fails this test, whoever adds it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
UNITS = ("child", "child_tty", "child_mount", "child_cred")

# System calls behind thin wrappers, and memory functions. signal-safety(7).
ALLOWED = set(
    """_exit chdir chroot clock_gettime clone close dup2 execve fchdir fchown fchownat fcntl fstat
    fstatat fstatfs ioctl memcpy memset mkdirat mknodat mount open prctl read sendmsg setdomainname
    sethostname setns setsid sigemptyset sigprocmask strlen symlinkat syscall umask umount2 unshare
    write __errno_location""".split()
)


def undefined_symbols(tmp_path: Path) -> set[str]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "a C compiler is needed (it was, to build the package)"
    objects = []
    for unit in UNITS:
        target = tmp_path / f"{unit}.o"
        flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fno-stack-protector", "-c"]
        subprocess.run([compiler, *flags, CSRC / f"{unit}.c", "-o", target], check=True)
        objects.append(target)
    out = subprocess.run(["nm", "-u", *objects], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\bU (\w+)", out))


def test_child_calls_only_what_is_safe(tmp_path):
    symbols = {s.removesuffix("64") for s in undefined_symbols(tmp_path)}
    assert "execve" in symbols
    foreign = {s for s in symbols if not s.startswith("pn_")} - ALLOWED
    assert not foreign


@pytest.mark.parametrize("unit", UNITS)
def test_child_calls_only_its_own_units(unit, tmp_path):
    own = set()
    for other in UNITS:
        own |= set(re.findall(r"^\w.*?\b(pn_\w+)\(", (CSRC / f"{other}.c").read_text(), re.M))
    called = {s for s in undefined_symbols(tmp_path) if s.startswith("pn_")}
    assert called <= own
