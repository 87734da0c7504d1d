"""csrc/bpf.c: loading and attaching device programs, with the programs of device_bpf.py."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import Kernel
from pynetns.runtime.cgroups.device_bpf import assemble
from pynetns.runtime.cgroups.hierarchy import detect
from pynetns.runtime.devices import DEFAULT_RULES

pytestmark = pytest.mark.root
OVERRIDE = 1
ALLOW_ALL = ({"allow": True, "access": "rwm"},)


@pytest.fixture
def cgroup():
    """A v2 cgroup with one below it, and its descriptor."""
    top = detect().v2
    if not top:
        pytest.skip("no v2 hierarchy is mounted here")
    path = Path(top, f"pn-test-{secrets.token_hex(4)}")
    path.mkdir()
    (path / "below").mkdir()
    try:
        yield path
    finally:
        (path / "below").rmdir()
        path.rmdir()


def attach(path: Path, rules, flags: int = OVERRIDE) -> None:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        program = Kernel.bpf_device_load(assemble(rules))
        try:
            assert not os.get_inheritable(program)
            Kernel.bpf_device_attach(fd, program, flags)
        finally:
            os.close(program)
    finally:
        os.close(fd)


def works(path: Path, command: str) -> bool:
    """Whether a shell command succeeds inside the cgroup."""
    script = f"echo $$ > {path}/cgroup.procs && {command}"
    return subprocess.run(["sh", "-c", script], capture_output=True).returncode == 0


def test_default_rules_are_enforced(cgroup):
    attach(cgroup, DEFAULT_RULES)
    assert works(cgroup, "echo x > /dev/null && head -c 1 /dev/zero && head -c 1 /dev/urandom")
    assert works(cgroup, "head -c 1 /dev/full")
    assert not works(cgroup, "head -c 0 /dev/kmsg")
    assert not works(cgroup, "head -c 1 /dev/mem")


def test_cgroup_below_may_have_its_own_program_instead(cgroup):
    attach(cgroup, DEFAULT_RULES)
    assert not works(cgroup / "below", "exec 3< /dev/kmsg")
    attach(cgroup / "below", ALLOW_ALL)
    assert works(cgroup / "below", "exec 3< /dev/kmsg")
    assert not works(cgroup, "exec 3< /dev/kmsg")


def test_access_kinds_are_told_apart(cgroup):
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    attach(cgroup, (*DEFAULT_RULES, rule))
    assert works(cgroup, "exec 3< /dev/kmsg")
    assert not works(cgroup, "exec 3> /dev/kmsg")


def test_nodes_can_be_made_but_not_opened(cgroup, tmp_path):
    attach(cgroup, DEFAULT_RULES)
    node = tmp_path / "kmsg"
    assert works(cgroup, f"mknod {node} c 1 11")
    assert not works(cgroup, f"exec 3< {node}")


def test_attaching_again_replaces(cgroup):
    attach(cgroup, ALLOW_ALL)
    attach(cgroup, DEFAULT_RULES)
    assert not works(cgroup, "exec 3< /dev/kmsg")


def test_without_override_nothing_goes_below(cgroup):
    attach(cgroup, DEFAULT_RULES, flags=0)
    with pytest.raises(KernelError) as caught:
        attach(cgroup / "below", ALLOW_ALL)
    assert (caught.value.step, caught.value.errno) == ("bpf", errno.EPERM)


def test_refused_program_tells_the_verifiers_reason():
    with pytest.raises(KernelError, match="R0") as caught:
        Kernel.bpf_device_load(bytes([0x95, 0, 0, 0, 0, 0, 0, 0]))  # exit, with no result
    assert caught.value.errno == errno.EACCES


def test_program_goes_to_a_cgroup_only(tmp_path):
    with pytest.raises(KernelError) as caught:
        attach(tmp_path, DEFAULT_RULES)
    assert caught.value.errno == errno.EBADF
