"""runtime/oci.py: namespaces by path, and none of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter, StartFailed
from pynetns.kernel.pidfd import ended
from pynetns.kernel.process import ProcessIdentity
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.runtime.oci_state import StateDirectory

from ..conftest import kill_shim
from .oci_bench import SLEEP, Bundle, left, output

pytestmark = pytest.mark.root


def set_namespace(bundle: Bundle, kind: str, path: str | None) -> Bundle:
    """A namespace by `path`, or the runtime's own (None)."""

    def change(spec):
        others = [n for n in spec["linux"]["namespaces"] if n["type"] != kind]
        spec["linux"]["namespaces"] = [*others, *([{"type": kind, "path": path}] if path else [])]

    bundle.change(change)
    return bundle


def test_a_network_namespace_by_path(runtime, bundle, tmp_path):
    bundle.script("readlink /proc/self/ns/net; cat /proc/sys/net/core/somaxconn")
    bundle.change(lambda spec: spec["linux"].update(sysctl={"net.core.somaxconn": "77"}))
    with NetworkNamespace.create() as namespace:
        namespace.pin(tmp_path / "net")
        inode = os.fstat(namespace.fd).st_ino
        try:
            set_namespace(bundle, "network", str(tmp_path / "net"))
            assert output(runtime, bundle) == (0, f"net:[{inode}]\n77\n")
        finally:
            namespace.delete(tmp_path / "net")


def test_a_namespace_by_path_must_be_of_its_kind(runtime, bundle):
    set_namespace(bundle, "ipc", "/proc/self/ns/net")
    with pytest.raises(StartFailed, match="ipc namespace /proc/self/ns/net: Invalid argument"):
        runtime.create("c", str(bundle.top))
    set_namespace(bundle, "ipc", "/missing")
    with pytest.raises(StartFailed, match="ipc namespace /missing: No such file"):
        runtime.create("c", str(bundle.top))
    assert left(runtime) == []


def test_nothing_is_set_in_a_namespace_that_is_ours(runtime, bundle):
    set_namespace(bundle, "uts", f"/proc/{os.getpid()}/ns/uts")
    before = os.uname().nodename
    with pytest.raises(InvalidParameter, match=r"uts namespace .* is the host's"):
        runtime.create("c", str(bundle.top))
    assert os.uname().nodename == before


def test_a_pid_namespace_by_path(runtime, bundle):
    """The program is another process than the one that was prepared; its state follows."""
    other = Bundle(bundle.top.parent / "other").runs(*SLEEP)
    runtime.create("owner", str(other.top), stdio=(-1, -1, -1))
    runtime.start("owner")
    owner = runtime.state("owner")["pid"]
    set_namespace(bundle.runs(*SLEEP), "pid", f"/proc/{owner}/ns/pid")
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    prepared = runtime.state("c")
    assert prepared["status"] == "created"
    runtime.start("c")
    running = runtime.state("c")
    assert running["status"] == "running" and running["pid"] != prepared["pid"]
    assert os.readlink(f"/proc/{running['pid']}/ns/pid") == os.readlink(f"/proc/{owner}/ns/pid")
    kill_shim(runtime)  # which knows, too
    assert runtime.state("c") == running
    pidfd = os.pidfd_open(running["pid"])
    runtime.kill("c", signal.SIGKILL)
    assert ended(pidfd, 10)
    os.close(pidfd)
    assert runtime.state("c")["status"] == "stopped"
    assert runtime.state("owner")["status"] == "running"


def test_a_starter_that_is_killed_before_it_notes_the_other_process(runtime, bundle, monkeypatch):
    runtime.create("owner", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    set_namespace(bundle, "pid", f"/proc/{runtime.state('owner')['pid']}/ns/pid")
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    monkeypatch.setattr(StateDirectory, "write", lambda place, state: None)
    runtime.start("c")
    assert runtime.state("c")["status"] == "running"
    assert Path(f"/proc/{runtime.state('c')['pid']}/cmdline").read_text() == "sleep\x001000\0"
    runtime.kill("c", signal.SIGKILL)
    runtime.wait("c")
    assert runtime.state("c")["status"] == "stopped"


def test_a_pid_namespace_without_a_proc_of_its_own_is_refused(runtime, bundle):
    """Its /proc would show all processes of the machine inside."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not (inside := children.read_text().split()):
                os.sched_yield()
            set_namespace(bundle, "pid", f"/proc/{inside[0]}/ns/pid")
            with pytest.raises(InvalidParameter, match="shows another pid namespace"):
                runtime.create("c", str(bundle.top))
        finally:
            process.stdin.close()
    assert left(runtime) == []


def test_survivors_without_a_pid_namespace_die_with_the_program(runtime, bundle):
    set_namespace(bundle, "pid", None)
    bundle.script("sleep 1000 & echo $! >/dev/shm/pid; cat /dev/shm/pid; exec sleep 1000")
    reader, writer = os.pipe()
    runtime.create("c", str(bundle.top), stdio=(-1, writer, -1))
    os.close(writer)
    runtime.start("c")
    with open(reader) as file:
        survivor = ProcessIdentity.of(int(file.readline()))
    pidfd = survivor.open()
    try:
        runtime.kill("c", signal.SIGKILL)
        runtime.wait("c")
        assert ended(pidfd, 10)
    finally:
        os.close(pidfd)
