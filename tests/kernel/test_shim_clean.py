"""csrc/shim_clean.c: nothing of whoever starts the shim reaches it, or what it starts later."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import shim_processes
from .shim_bench import Bench

pytestmark = pytest.mark.root

# What a starter may have about it. It starts the shim and goes away.
STARTER = """
import ctypes, fcntl, os, resource, signal, sys
from pynetns.runtime.shim.client import ShimClient
root = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
may_raise = sys.argv[2] == "True"
for name, soft in (("CPU", 7), ("FSIZE", 4096), ("CORE", 0), ("NOFILE", 64), ("STACK", 1 << 20)):
    number = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(number)[1]
    resource.setrlimit(number, (soft, soft if may_raise else hard))
os.nice(7)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.umask(0o777)
os.setgroups([4242, 4243])
libc.prctl(28, 16 | 4, 0, 0, 0)  # PR_SET_SECUREBITS
libc.prctl(29, 77777777, 0, 0, 0)  # PR_SET_TIMERSLACK
os.chdir("/usr")
lock = os.open(root + "/lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
os.dup2(lock, 9, inheritable=True)
open("/proc/self/oom_score_adj", "w").write("500")
signal.setitimer(signal.ITIMER_REAL, 1000)
ShimClient(root).connect().close()
"""


def may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE: without it a hard limit stays what it was, and so does the OOM score."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1)


def most_files() -> str:
    if may_raise_limits():
        return "1048576"
    return str(min(1048576, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.fixture
def started_by_a_mess(bench: Bench) -> Bench:
    command = [sys.executable, "-c", STARTER, str(bench.root), str(may_raise_limits())]
    subprocess.run(command, check=True)
    return bench


def test_limits_signals_and_the_rest_are_nobodys(started_by_a_mess):
    bench = started_by_a_mess
    for pid in shim_processes(bench):
        limits = {
            line[:26].strip(): line[26:].split()[:2]
            for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
        }
        assert limits["Max cpu time"] == limits["Max file size"] == ["unlimited"] * 2
        assert limits["Max core file size"] == ["unlimited"] * 2
        assert limits["Max open files"] == [most_files()] * 2
        assert limits["Max stack size"] == ["8388608", "unlimited"]
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Umask"] == "0022" and status["Groups"].strip() == ""
        assert int(status["SigIgn"], 16) == 0
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert os.sched_getaffinity(pid) == os.sched_getaffinity(1)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 0
        assert os.getsid(pid) != os.getsid(0)
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        assert Path(f"/proc/{pid}/timerslack_ns").read_text().strip() == "50000"
        if may_raise_limits():
            assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "-999"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"


def test_descriptors_of_the_starter_are_closed(started_by_a_mess):
    bench = started_by_a_mess
    with open(bench.root / "lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    links = {os.readlink(f"/proc/{shim_processes(bench)[0]}/fd/{fd}") for fd in range(3)}
    assert links <= {"/null", "/dev/null"}


def test_what_it_starts_later_has_none_of_it(started_by_a_mess):
    bench = started_by_a_mess
    bench.task("a", "ulimit -t; ulimit -f; ulimit -n; umask; nice; nproc; id -G; pwd; seq 1 20000")
    assert bench.wait("a") == 0
    lines = [entry["log"].strip() for entry in bench.log("a")]
    cpus = str(len(os.sched_getaffinity(1)))
    assert lines[:5] == ["unlimited", "unlimited", most_files(), "0000", "0"]
    assert lines[5:7] == [cpus, "0"] and lines[-1] == "20000"


def test_a_limit_that_would_cut_logs_is_refused(bench):
    """By a shim without CAP_SYS_RESOURCE; others lift it."""
    script = """
import resource, sys
from pynetns.runtime.shim.client import ShimClient
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
ShimClient(sys.argv[1]).connect()
"""
    without = ["setpriv", "--inh-caps", "-sys_resource", "--bounding-set", "-sys_resource"]
    command = [*without, sys.executable, "-c", script, str(bench.root)]
    failed = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert "Unavailable" in failed.stderr and "ulimit -f" in failed.stderr


@pytest.mark.parametrize("value", ["1", "2"])
def test_memory_files_that_may_not_be_executed(bench, value):
    """vm.memfd_noexec: 1 wants to be told, 2 forbids."""
    sysctl = Path("/proc/sys/vm/memfd_noexec")
    if not sysctl.exists():
        pytest.skip("a kernel before 6.3")
    script = """
import os, sys
from pathlib import Path
Path("/proc/sys/vm/memfd_noexec").write_text(sys.argv[2])
from pynetns.runtime.shim.client import ShimClient
ShimClient(sys.argv[1]).connect().close()
"""
    # the setting belongs to the pid namespace
    subprocess.run(
        [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            sys.executable,
            "-c",
            script,
            str(bench.root),
            value,
        ],
        check=True,
        timeout=60,
    )
