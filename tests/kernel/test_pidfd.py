"""kernel/pidfd.py: processes as themselves, and how those ended that somebody else reaps."""

from __future__ import annotations

import os
import signal

import pytest

from pynetns.kernel import pidfd
from pynetns.kernel.process import ProcessIdentity, boot_id, start_ticks


def child(code: int) -> tuple[int, int, int]:
    """A child that ends with `code` once told to: pid, start time, the end of a pipe to close."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(code)
    os.close(reader)
    return pid, start_ticks(pid), writer


def identity(pid: int, ticks: int) -> ProcessIdentity:
    return ProcessIdentity(pid, ticks, boot_id())


def test_signal_after_the_end() -> None:
    pid, ticks, writer = child(0)
    fd = identity(pid, ticks).open()
    assert not pidfd.ended(fd, 0)
    os.close(writer)
    assert pidfd.ended(fd, None)
    os.waitpid(pid, 0)
    assert not pidfd.send_signal(fd, 0)
    os.close(fd)


@pytest.mark.parametrize("reaped", [False, True])
@pytest.mark.parametrize("code", [6, -signal.SIGKILL])
def test_exit_code(code: int, reaped: bool) -> None:
    pid, ticks, writer = child(code)
    fd = identity(pid, ticks).open()
    if code < 0:
        assert pidfd.send_signal(fd, -code)
    os.close(writer)
    assert pidfd.ended(fd, None)
    if reaped:
        os.waitpid(pid, 0)
    told = pidfd.exit_code(fd, pid, ticks)
    expected = code if code >= 0 else 128 - code
    assert told == expected or (reaped and told is None)  # kept since Linux 6.15
    if not reaped:
        os.waitpid(pid, 0)
    os.close(fd)


def test_no_descriptor_is_not_no_process(monkeypatch) -> None:
    """What cannot be looked at is not taken for dead."""

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(24, "Too many open files")

    known = ProcessIdentity.of(os.getpid())
    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(OSError, match="Too many"):
        known.lives()
