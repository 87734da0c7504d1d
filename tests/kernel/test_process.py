"""pynetns/kernel/process.py: a recorded pid means one process, whoever has its number now."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pynetns.kernel.process import (
    ProcessIdentity,
    boot_id,
    process_directory,
    process_namespace,
    process_root,
    recorded,
    start_ticks,
)
from pynetns.lowlevel.join import CLONE_NEWUTS, join
from pynetns.model.state import State


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A living process with a name that a naive reader of stat stumbles over."""
    process = subprocess.Popen(["bash", "-c", "exec -a '1 ) R 2 3' sleep 1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def identity(child) -> ProcessIdentity:
    return ProcessIdentity.of(child.pid)


def strangers(identity: ProcessIdentity) -> list[ProcessIdentity]:
    """What a record looks like whose pid another process got, in this boot or a later one."""
    return [
        replace(identity, start_ticks=identity.start_ticks - 1),
        replace(identity, start_ticks=identity.start_ticks + 1),
        replace(identity, start_ticks=0),  # of a process that was gone when it was recorded
        replace(identity, boot_id="another"),
        replace(identity, pid=0),
        replace(identity, pid=-1),
        replace(identity, pid=2**22 + 1),
    ]


def test_the_process_itself(child, identity):
    assert identity.lives() and identity.start_ticks == start_ticks(child.pid) > 0
    pidfd = identity.open()
    try:
        assert not os.get_inheritable(pidfd)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    finally:
        os.close(pidfd)
    assert child.wait() == -signal.SIGTERM


def test_namespaces_and_root(identity):
    for kind in ("net", "ipc", "pid", "mnt"):
        fd = process_namespace(identity, kind)
        try:
            assert os.readlink(f"/proc/self/fd/{fd}") == os.readlink(
                f"/proc/{identity.pid}/ns/{kind}"
            )
            assert not os.get_inheritable(fd)
        finally:
            os.close(fd)
    root = process_root(identity)
    try:
        assert os.path.samestat(os.fstat(root), os.stat("/"))
    finally:
        os.close(root)


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_stranger_with_the_same_number(identity):
    before = descriptors()
    for stranger in strangers(identity):
        assert not stranger.lives()
        for attempt in (
            stranger.open,
            lambda who=stranger: process_root(who),
            lambda who=stranger: process_namespace(who, "net"),
        ):
            with pytest.raises(ProcessLookupError, match=f"process {stranger.pid} has ended"):
                attempt()
    assert descriptors() == before


def test_a_zombie_has_ended(child, identity):
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.lives()  # though its number is not free yet
    for attempt in (identity.open, lambda: process_root(identity)):
        with pytest.raises(ProcessLookupError):
            attempt()


def test_a_process_that_ends_in_between(child, identity):
    """Its directory stays its own: nothing of whoever gets the number next is found in it."""
    before = descriptors()
    with pytest.raises(ProcessLookupError), process_directory(identity) as directory:
        child.kill()
        child.wait()
        os.close(os.open("ns/net", os.O_RDONLY, dir_fd=directory))
    assert descriptors() == before
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.of(child.pid)


def test_other_failures_are_not_taken_for_an_end(identity):
    with pytest.raises(FileNotFoundError):
        process_namespace(identity, "nosuch")


def test_recorded():
    state = State(pid=5, start_ticks=6, boot_id=boot_id())
    assert recorded(state) == ProcessIdentity(5, 6, boot_id())


@pytest.mark.root
def test_join_takes_an_identity(identity):
    with join(identity, ["true"], namespaces=CLONE_NEWUTS) as process:
        assert process.wait() == 0
    for stranger in strangers(identity):
        with pytest.raises(ProcessLookupError):
            join(stranger, ["true"], namespaces=CLONE_NEWUTS)
