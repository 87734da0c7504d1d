"""csrc/bpf.c: loading and attaching device programs, with the programs of device_bpf.py."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import LinuxKernel
from pynetns.runtime.cgroups.device_bpf import assemble
from pynetns.runtime.cgroups.hierarchy import detect
from pynetns.runtime.spec.devices import DEFAULT_RULES

from ..devices import forbidden_node
from ..layouts import only_on

pytestmark = [pytest.mark.root, only_on("hybrid", "v2")]
OVERRIDE = 1
ALLOW_ALL = ({"allow": True, "access": "rwm"},)


@pytest.fixture
def cgroup():
    """A v2 cgroup with one below it, and its descriptor."""
    path = Path(detect().v2, f"pn-test-{secrets.token_hex(4)}")
    path.mkdir()
    (path / "below").mkdir()
    try:
        yield path
    finally:
        (path / "below").rmdir()
        path.rmdir()


@pytest.fixture
def device():
    return forbidden_node()


def attach(path: Path, rules, flags: int = OVERRIDE) -> None:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        program = LinuxKernel.bpf_device_load(assemble(rules))
        try:
            assert not os.get_inheritable(program)
            LinuxKernel.bpf_device_attach(fd, program, flags)
        finally:
            os.close(program)
    finally:
        os.close(fd)


def works(path: Path, command: str) -> bool:
    """Whether a shell command succeeds inside the cgroup."""
    script = f"echo $$ > {path}/cgroup.procs && {command}"
    return subprocess.run(["sh", "-c", script], capture_output=True).returncode == 0


def test_default_rules_are_enforced(cgroup, device):
    assert works(cgroup, f"exec 3< {device.path}")
    attach(cgroup, DEFAULT_RULES)
    assert works(cgroup, "echo x > /dev/null && head -c 1 /dev/zero && head -c 1 /dev/urandom")
    assert works(cgroup, "head -c 1 /dev/full")
    assert not works(cgroup, f"exec 3< {device.path}")


def test_cgroup_below_may_have_its_own_program_instead(cgroup, device):
    attach(cgroup, DEFAULT_RULES)
    assert not works(cgroup / "below", f"exec 3< {device.path}")
    attach(cgroup / "below", ALLOW_ALL)
    assert works(cgroup / "below", f"exec 3< {device.path}")
    assert not works(cgroup, f"exec 3< {device.path}")


def test_access_kinds_are_told_apart(cgroup, device):
    number = {"type": device.kind, "major": device.major, "minor": device.minor}
    attach(cgroup, (*DEFAULT_RULES, {"allow": True, **number, "access": "r"}))
    assert works(cgroup, f"exec 3< {device.path}")
    assert not works(cgroup, f"exec 3> {device.path}")


def test_nodes_can_be_made_but_not_opened(cgroup, device, tmp_path):
    attach(cgroup, DEFAULT_RULES)
    node = tmp_path / "node"
    assert works(cgroup, f"mknod {node} {device.kind} {device.major} {device.minor}")
    assert not works(cgroup, f"exec 3< {node}")


def test_attaching_again_replaces(cgroup, device):
    attach(cgroup, ALLOW_ALL)
    assert works(cgroup, f"exec 3< {device.path}")
    attach(cgroup, DEFAULT_RULES)
    assert not works(cgroup, f"exec 3< {device.path}")


def test_without_override_nothing_goes_below(cgroup):
    attach(cgroup, DEFAULT_RULES, flags=0)
    with pytest.raises(KernelError) as caught:
        attach(cgroup / "below", ALLOW_ALL)
    assert (caught.value.step, caught.value.errno) == ("bpf", errno.EPERM)


def test_refused_program_tells_the_verifiers_reason():
    with pytest.raises(KernelError, match="R0") as caught:
        LinuxKernel.bpf_device_load(bytes([0x95, 0, 0, 0, 0, 0, 0, 0]))  # exit, with no result
    assert caught.value.errno == errno.EACCES


def test_program_goes_to_a_cgroup_only(tmp_path):
    with pytest.raises(KernelError) as caught:
        attach(tmp_path, DEFAULT_RULES)
    assert caught.value.errno == errno.EBADF
