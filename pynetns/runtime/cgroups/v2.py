"""Cgroups of the unified hierarchy: made, limited, killed, removed; its device policy.

Owns: directories below one cgroup2 mount point. In a hybrid set-up it has no controllers and still
gives membership, kill and the device policy. kernel document cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import time
from collections.abc import Iterable

from ...errors import KernelError, System, Unavailable
from ...forks import Descriptors
from ...kernel import Kernel
from . import device_bpf
from .files import END_SECONDS, read_file, read_key, refused, remove_empty, write_file
from .limits import Setting

_ALLOW_OVERRIDE = 1  # BPF_F_ALLOW_OVERRIDE: a cgroup below may have its own policy instead
_POLICY = "trusted.pynetns.devices"
_OOM_BEFORE = "trusted.pynetns.oom"


def open_cgroup(directory: str) -> int:
    """The descriptor that clone3 and bpf take. OSError."""
    return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class DevicePolicy:
    """Device programs of this process. The default one sits on the common parent, once."""

    def __init__(self, kernel: Kernel, default_rules: Iterable[device_bpf.Rule]) -> None:
        self._kernel = kernel
        self._default_rules = tuple(default_rules)
        self._program = b""
        self._mark = b""

    def is_default(self, rules: Iterable[device_bpf.Rule]) -> bool:
        """Whether `rules` are the default ones."""
        return rules is self._default_rules or tuple(rules) == self._default_rules

    def ensure_default(self, parent: str) -> None:
        """The default policy on `parent`, unless a mark there says that it has it already.

        The mark goes away with the cgroup; attaching twice replaces the program by its like.
        """
        if not self._mark:
            self._program = device_bpf.assemble(self._default_rules)
            self._mark = hashlib.sha256(self._program).hexdigest().encode()
        with contextlib.suppress(OSError):
            if os.getxattr(parent, _POLICY) == self._mark:
                return
        fd = open_cgroup(parent)
        try:
            self._attach(fd, self._program)
            os.setxattr(parent, _POLICY, self._mark)
        finally:
            os.close(fd)

    def attach(self, cgroup: int, rules: Iterable[device_bpf.Rule]) -> None:
        """A policy of its own for the cgroup behind the descriptor."""
        self._attach(cgroup, device_bpf.assemble(rules))

    def _attach(self, cgroup: int, program: bytes) -> None:
        try:
            fd = self._kernel.bpf_device_load(program)
            try:
                self._kernel.bpf_device_attach(cgroup, fd, _ALLOW_OVERRIDE)
            finally:
                os.close(fd)
        except KernelError as error:
            raise Unavailable(
                f"cgroup device rules: {error}: needs a kernel with CONFIG_CGROUP_BPF, and no "
                "device program without override on a parent cgroup"
            ) from error


def apply_setting(root: str, directory: str, setting: Setting) -> None:
    """Write one limit; its controller is enabled on the way down where it is not.

    Raises InvalidParameter or Unavailable, which name the option.
    """
    path = f"{directory}/{setting.file}"
    try:
        try:
            write_file(path, setting.value)
        except FileNotFoundError:
            _enable(root, directory, setting)
            write_file(path, setting.value)
    except OSError as error:
        if not (setting.optional and isinstance(error, FileNotFoundError)):
            raise refused(setting, error) from error


def _enable(root: str, directory: str, setting: Setting) -> None:
    """Hand the controller down from the root to the parent of `directory`."""
    parts = os.path.relpath(directory, root).split("/")[:-1]
    path = root
    for part in ["", *parts]:
        path = f"{path}/{part}" if part else path
        control = f"{path}/cgroup.subtree_control"
        if setting.controller in (read_file(control) or "").split():
            continue
        try:
            write_file(control, f"+{setting.controller}")
        except OSError as error:
            raise Unavailable(
                f"{setting.option}: the {setting.controller} controller cannot be enabled in "
                f"{control}: {error.strerror}{_remedy(path, error)}"
            ) from error


def _remedy(directory: str, error: OSError) -> str:
    """What to do about a controller that is not handed down. cgroup-v2, "No Internal Process"."""
    if error.errno == errno.EBUSY:
        return (
            f": processes are in {directory} itself, move them into a cgroup below it "
            "(systemd: Delegate=yes with DelegateSubgroup=)"
        )
    return "" if error.errno != errno.ENOENT else f": {directory} has not got it from its parent"


def account(root: str, parent: str) -> None:
    """Let containers below `parent` count their memory and their out-of-memory kills, limit or not.

    Best effort, and only as far as the root of the hierarchy hands the controller down already.
    """
    directory = root
    for part in filter(None, parent.split("/")):
        directory = f"{directory}/{part}"
        with contextlib.suppress(OSError):
            write_file(f"{directory}/cgroup.subtree_control", "+memory")


def kill(directory: str) -> None:
    """SIGKILL to every process of the cgroup and below. Absent is fine. Linux 5.14."""
    with contextlib.suppress(FileNotFoundError):
        write_file(f"{directory}/cgroup.kill", "1")


def wait_empty(directory: str) -> None:
    """Wait until no process is left in the cgroup and below. Raises System after 30 s."""
    deadline = time.monotonic() + END_SECONDS
    with Descriptors() as fds:
        try:
            fds.append(os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return
        try:
            poll = select.poll()
            poll.register(fds[0], select.POLLPRI)
            while b"populated 1" in os.pread(fds[0], 256, 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise System(f"cgroup {directory}: killed processes do not end")
                poll.poll(left * 1000)
        except OSError:  # ENODEV: somebody else has removed it
            return


def remove(directory: str) -> None:
    """Remove a cgroup; what still runs in it is killed. Absent is fine. Raises System."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        kill(directory)
        wait_empty(directory)
        remove_empty(directory)


def note_oom(root: str, directory: str) -> None:
    """For a cgroup that does not count its own: note how often the kernel killed in the nearest one
    above that counts, as an extended attribute."""
    if os.path.exists(f"{directory}/memory.events"):
        return
    before = _oom_kills_above(root, directory)
    if before is not None:
        with contextlib.suppress(OSError):
            os.setxattr(directory, _OOM_BEFORE, str(before).encode())


def oom_kills(root: str, directory: str) -> int:
    """How many processes the kernel killed for want of memory: in the cgroup where it counts them,
    else since `note_oom` in the nearest one above (by then another container's may be among them).
    """
    own = read_key(f"{directory}/memory.events", "oom_kill")
    if own is not None:
        return own
    try:
        before = int(os.getxattr(directory, _OOM_BEFORE))
    except OSError:
        return 0
    return max(0, (_oom_kills_above(root, directory) or 0) - before)


def _oom_kills_above(root: str, directory: str) -> int | None:
    """None where no cgroup above counts; the real root of the hierarchy never does."""
    while directory != root:
        directory = os.path.dirname(directory)
        count = read_key(f"{directory}/memory.events", "oom_kill")
        if count is not None:
            return count
    return None
