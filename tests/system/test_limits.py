"""cgroup limits, enforced by the kernel of this machine or refused."""

from __future__ import annotations

import pytest

from pynetns import errors
from pynetns.client.containers import ContainerError

pytestmark = pytest.mark.root
EAT = "import sys; x = bytearray(int(sys.argv[1]) << 20); print(len(x) >> 20)"
PYTHON = "/usr/bin/python3"


def test_memory_limit_kills_and_is_told(engine):
    container = engine.containers.create("host", [PYTHON, "-c", EAT, "200"], mem_limit="40m")
    container.start()
    assert container.wait()["StatusCode"] == 137
    assert container.attrs["State"]["OOMKilled"] is True


def test_program_below_its_memory_limit_runs(run):
    assert run([PYTHON, "-c", EAT, "10"], mem_limit="64m") == "10\n"


def test_small_limit_is_the_programs_alone(run):
    """What the engine needs to set a container up does not count against 6 MB."""
    assert run(["echo", "fits"], mem_limit="6m") == "fits\n"


def test_pids_limit(engine):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done"
    with pytest.raises(ContainerError, match=r"(?i)resource|fork"):
        engine.containers.run("host", ["sh", "-c", script], pids_limit=5, remove=True)


def test_cpu_limit(run):
    script = (
        "import time; t = time.monotonic(); c = time.process_time()\n"
        "while time.monotonic() - t < 1: pass\n"
        "print((time.process_time() - c) / (time.monotonic() - t))"
    )
    assert float(run([PYTHON, "-c", script], nano_cpus=200_000_000)) < 0.5


def test_cpuset(run):
    assert (
        run(["grep", "Cpus_allowed_list", "/proc/self/status"], cpuset_cpus="1").split()[1] == "1"
    )


def test_limit_of_an_exec_is_the_containers(engine):
    container = engine.containers.run("host", ["sleep", "1000"], detach=True, mem_limit="40m")
    assert container.exec_run([PYTHON, "-c", EAT, "200"])[0] == 137
    assert container.exec_run(["true"])[0] == 0


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("mem_limit", "1m", "--memory"),
        ("cpuset_cpus", "77", "--cpuset-cpus"),
        ("nano_cpus", 10**15, "--cpus"),
        ("pids_limit", -5, "--pids-limit"),
    ],
)
def test_bad_limit_is_refused_at_create(engine, option, value, named):
    with pytest.raises(errors.InvalidParameter, match=named):
        engine.containers.create("host", ["true"], **{option: value})
    assert engine.containers.list(all=True) == []
