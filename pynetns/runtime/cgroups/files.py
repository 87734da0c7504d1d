"""Reading and writing cgroup files, and what their errors mean to a user.

Owns: single files and the end of all processes in a cgroup. Knows nothing of which limits
there are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import time
from collections.abc import Iterator

from ...errors import InvalidParameter, System, Unavailable
from .limits import Setting

_ID = re.compile(r"[0-9a-f]{64}")
_YOUNG_SECONDS = 60.0  # an empty cgroup may belong to a start under way
END_SECONDS = 30.0  # for killed processes to end; longer only in uninterruptible sleep


def write_file(path: str, value: str) -> None:
    """One write(2), which is how the kernel takes a value. OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_file(path: str) -> str | None:
    """The text of a cgroup file, None where there is none (any more)."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise System(f"{path}: {error.strerror}") from error


def read_key(path: str, key: str) -> int | None:
    """The number behind `key` in a file of "key number" lines."""
    for line in (read_file(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return None


def refused(setting: Setting, error: OSError) -> Exception:
    """The exception for a limit that the kernel did not take."""
    if error.errno == errno.ENOENT:
        return Unavailable(f"{setting.option}: this machine's kernel has no {setting.file}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
        return Unavailable(f"{setting.option}: {setting.file} cannot be written: {error.strerror}")
    return InvalidParameter(
        f"{setting.option}: the kernel refuses {setting.value} in {setting.file}: {error.strerror}"
    )


# ---- processes ----


def pids_below(directory: str) -> list[int]:
    """The processes of a cgroup and of those below it; none when it is gone."""
    found = []
    for path, _, _ in os.walk(directory):
        found += [int(pid) for pid in (read_file(f"{path}/cgroup.procs") or "").split()]
    return found


def kill_one_by_one(directory: str) -> None:
    """SIGKILL to every process below until there is none; for v1, which cannot kill as a whole.

    A process is signalled by a descriptor opened before its membership is looked at again: its pid
    may have become somebody else's meanwhile.
    """
    deadline = time.monotonic() + END_SECONDS
    while pids := pids_below(directory):
        if time.monotonic() > deadline:
            raise System(f"cgroup {directory}: killed processes do not end: {pids[:5]}")
        with _pidfds(pids) as pidfds:
            members = set(pids_below(directory))
            poll = select.poll()
            for pid, pidfd in pidfds.items():
                if pid in members:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    poll.register(pidfd, select.POLLIN)
            waiting = len(members & set(pidfds))
            while waiting and (ended := poll.poll((deadline - time.monotonic()) * 1000)):
                for fd, _ in ended:
                    poll.unregister(fd)
                waiting -= len(ended)


@contextlib.contextmanager
def _pidfds(pids: list[int]) -> Iterator[dict[int, int]]:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                opened[pid] = os.pidfd_open(pid)
        yield opened
    finally:
        for pidfd in opened.values():
            os.close(pidfd)


def remove_empty(directory: str) -> None:
    """rmdir of a cgroup and those that its processes made in it, deepest first; absent is fine."""
    try:
        os.rmdir(directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise System(f"cgroup {directory}: {error.strerror}") from error
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise System(f"cgroup {path}: {error.strerror}") from error


def containers_in(parent: str) -> list[str]:
    """The ids of the containers that have a cgroup in `parent`."""
    try:
        return [name for name in os.listdir(parent) if _ID.fullmatch(name)]
    except FileNotFoundError:
        return []


def old_containers(parent: str, alive: set[str]) -> Iterator[str]:
    """The cgroups of containers in `parent` that are not in `alive` and not just made."""
    try:
        entries = [entry for entry in os.scandir(parent) if _ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise System(f"cgroup {parent}: {error.strerror}") from error
    oldest = time.time() - _YOUNG_SECONDS
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            if entry.name not in alive and entry.stat().st_ctime < oldest:
                yield entry.path
