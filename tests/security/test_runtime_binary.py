"""CVE-2019-5736: the runtime's own program, overwritten through /proc/<pid>/exe.

CVE-2016-9962: whoever joins a container is there with descriptors and privileges before its program
is executed; a process of the container that may trace can take either.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import pynetns

from .conftest import exec_outcome, stop_and_read, wait_for_line

JOINS = 60  # by exec, while the container watches: a window of 0.1 ms is met by then


def shim_pid(engine) -> int:
    """The process of this engine's shim."""
    mark = f"{engine.exec_root}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"pynetns-shim" in command and mark in command:
            return int(pid)
    raise AssertionError("no shim runs")


def runtime_files(engine) -> dict[str, str]:
    """Digests of what runs as the shim and of the package's programs."""
    package = Path(pynetns.__file__).parent
    files = [f"/proc/{shim_pid(engine)}/exe", *package.glob("*shim*"), *package.glob("*.so")]
    return {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("how", ["entrypoint", "#!", "link", "exec", "exec #!"])
def test_own_program_as_program(attack, attempt, running, engine, workshop, victim, how):
    root = workshop.tree(preload=True)
    (root / "script").write_text("#!/proc/self/exe\n")
    (root / "script").chmod(0o755)
    (root / "link").symlink_to("/proc/self/exe")
    program = {"#!": "/script", "exec #!": "/script", "link": "/link"}.get(how, "/proc/self/exe")
    this = attack("CVE-2019-5736", f"{how}: the program is /proc/self/exe")
    control = victim.path / "victim-runtime"
    shutil.copy(workshop.bare, control)
    text = workshop.run_bare(root, victim.path, "/", "/bin", program, bare=control)
    this.control("OVERWROTE" in text, f"in a runtime that is a plain file: {text}")
    control.unlink()

    container = running(root, ["/attack", "sleep"])
    before = runtime_files(engine)
    execs = how.startswith("exec")
    outcome = exec_outcome(container, [program]) if execs else attempt(root, [program])
    changed = [path for path, digest in runtime_files(engine).items() if before[path] != digest]
    this.verdict(
        changed or "took over" in outcome or "FOR WRITING" in outcome or victim.changes(),
        f"{changed} {outcome}",
    )


def join_all(container, count: int = JOINS) -> None:
    for _ in range(count):
        exec_outcome(container, ["/attack", "say", "joined"])


@pytest.mark.parametrize("cap_add", [[], ["SYS_PTRACE"]], ids=["default", "SYS_PTRACE"])
@pytest.mark.parametrize("joins_by", ["exec", "start"])
def test_joining_process(attack, attempt, running, workshop, victim, cap_add, joins_by):
    """A container watches all who enter its pid namespace, from their first moment on."""
    root = workshop.tree()
    who = f"whoever joins by {joins_by}{' (SYS_PTRACE)' if cap_add else ''}"
    way = attack("CVE-2016-9962", f"a descriptor, directory or root to the host, of {who}")
    file = attack("CVE-2019-5736", f"/proc/<pid>/exe opened for writing, of {who}")
    power = attack("CVE-2016-9962", f"more privilege than the container's, by tracing {who}")
    watcher = running(root, ["/attack", "watch", "fxt", victim.relative], cap_add=cap_add)
    wait_for_line(watcher, "watching")
    if joins_by == "exec":
        join_all(watcher)
    else:
        for _ in range(JOINS // 3):
            attempt(
                root, ["/attack", "say", "x"], pid_mode=f"container:{watcher.id}", cap_add=cap_add
            )
    found = stop_and_read(watcher)
    assert "scans" in found
    if cap_add:
        control_watcher(way, running, root, victim)
    attack.judge(
        (way, "CAUGHT" in found or victim.changes(), found),
        (file, "FOR WRITING" in found, found),
        (power, "SEIZED" in found, found),
    )


def control_watcher(this, running, root, victim) -> None:
    """The watcher does catch a process that joins with a directory of the host open."""
    watcher = running(root, ["/attack", "watch", "f", victim.relative], cap_add=["SYS_PTRACE"])
    wait_for_line(watcher, "watching")
    pid = watcher.attrs["State"]["Pid"]
    fd = os.open(victim.path, os.O_PATH | os.O_DIRECTORY)
    joined = subprocess.Popen(["nsenter", "-t", str(pid), "-p", "sleep", "60"], pass_fds=[fd])
    os.close(fd)
    try:
        line = wait_for_line(watcher, "CAUGHT")
    finally:
        for child in Path(f"/proc/{joined.pid}/task/{joined.pid}/children").read_text().split():
            os.kill(int(child), 9)
        joined.wait()
    stop_and_read(watcher)
    this.control(line, "against a process that joins with a descriptor open")
