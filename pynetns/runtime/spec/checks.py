"""What can be refused when a container is created, so that its start does not fail on it.

Owns: the ranges and words that the options of a container accept. Each refusal is InvalidParameter
and says the option and what it takes. Source: moby verifyContainerSettings and
verifyPlatformContainerSettings, runconfig's validate*; runc's configs/validate for sysctls.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable

from ...errors import InvalidParameter
from ...model.config import Config, HostConfig, Mount
from ...model.suggest import did_you_mean
from ..security.capabilities import tweak_capabilities
from ..security.seccomp_custom import parse_profile, read_profile, source_of
from ..security.security_opt import BUILTIN, UNCONFINED, parse_security_opt
from .mounts import PROPAGATIONS, IpcMode, merge_tmpfs_options

MINIMUM_MEMORY = 6 << 20  # bytes; moby linuxMinMemory
_ULIMIT_WORDS = """
    core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
"""
ULIMITS = frozenset(_ULIMIT_WORDS.split())
_IPC_WORDS = "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced"
IPC_SYSCTLS = frozenset(f"kernel.{name}" for name in _IPC_WORDS.split())
_SYSCTLS_ACCEPTED = f"net.*, fs.mqueue.*, {', '.join(sorted(IPC_SYSCTLS))}"
_SYSCTL_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")  # 64: __NEW_UTS_LEN
_PATH_MAX, _NAME_MAX = 4096, 255  # bytes, the first with its NUL
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def validate_host_config(config: Config, host_config: HostConfig) -> None:
    """Raises InvalidParameter for the first thing that cannot work. `config` as the user gave it,
    before a hostname is filled in. moby verifyContainerSettings."""
    for check in _CHECKS:
        check(config, host_config)


def _check_process(config: Config, host_config: HostConfig) -> None:
    if config.working_dir:
        check_path("--workdir", config.working_dir)
    for entry in config.env:
        if not entry or entry.startswith("=") or "\0" in entry:
            raise InvalidParameter(f"--env {entry!r}: must be NAME=VALUE or NAME")
    if not -1000 <= host_config.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"--oom-score-adj {host_config.oom_score_adj}: must be between -1000 and 1000"
        )


def _check_names(config: Config, host_config: HostConfig) -> None:
    for option, name in (("--hostname", config.hostname), ("--domainname", config.domainname)):
        if not name:
            continue
        if not _HOST_NAME.fullmatch(name):
            raise InvalidParameter(
                f"{option} {name!r}: must be 1 to 64 letters, digits, dots, hyphens and underscores"
            )
        if host_config.uts_mode == "host":
            raise InvalidParameter(
                f"{option}: conflicts with --uts host, whose names it would change"
            )
    if config.hostname and host_config.network_mode.startswith("container:"):
        raise InvalidParameter(
            "--hostname: conflicts with --network container:…, whose name it shares"
        )


def _check_modes(config: Config, host_config: HostConfig) -> None:
    ipc = (IpcMode.PRIVATE, IpcMode.SHAREABLE, IpcMode.HOST, IpcMode.NONE)
    _check_mode("--ipc", host_config.ipc_mode, ipc, container=True)
    _check_mode("--pid", host_config.pid_mode, ("host",), container=True)
    _check_mode("--uts", host_config.uts_mode, ("host",), container=False)


def _check_mode(option: str, mode: str, words: tuple[str, ...], *, container: bool) -> None:
    kind, _, name = mode.partition(":")
    if mode in ("", *words) or (container and kind == "container" and name):
        return
    accepted = (*words, "container:NAME") if container else words
    raise InvalidParameter(f"{option} {mode!r}: must be {' or '.join(accepted)}")


def _check_privileges(config: Config, host_config: HostConfig) -> None:
    tweak_capabilities(host_config.cap_add, host_config.cap_drop, host_config.privileged)
    profile = parse_security_opt(host_config.security_opt).seccomp
    if profile not in ("", UNCONFINED, BUILTIN):
        parse_profile(read_profile(profile), source_of(profile))


def _check_sysctls(config: Config, host_config: HostConfig) -> None:
    for name, value in host_config.sysctls:
        option = f"--sysctl {name}"
        if not _SYSCTL_NAME.fullmatch(name):
            raise InvalidParameter(f"{option}: not a sysctl's name; accepted: {_SYSCTLS_ACCEPTED}")
        if "\n" in value or "\0" in value:
            raise InvalidParameter(f"{option}: the value must be one line")
        if name.startswith("net."):
            if host_config.network_mode == "host":
                raise InvalidParameter(
                    f"{option}: not with --network host, it would change the host"
                )
        elif name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
            if host_config.ipc_mode == IpcMode.HOST:
                raise InvalidParameter(f"{option}: not with --ipc host, it would change the host")
        else:
            raise InvalidParameter(f"{option}: is not namespaced; accepted: {_SYSCTLS_ACCEPTED}")


def _check_ulimits(config: Config, host_config: HostConfig) -> None:
    for limit in host_config.ulimits:
        option = f"--ulimit {limit.name}"
        if limit.name not in ULIMITS:
            raise InvalidParameter(
                f"{option}: unknown{did_you_mean(limit.name, ULIMITS)}; "
                f"accepted: {', '.join(sorted(ULIMITS))}"
            )
        if min(limit.soft, limit.hard) < -1:
            raise InvalidParameter(f"{option}: values must be 0 or more, or -1 for unlimited")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InvalidParameter(
                f"{option}: the soft limit {limit.soft} exceeds the hard limit {limit.hard}"
            )


def _check_mounts(config: Config, host_config: HostConfig) -> None:
    seen: set[str] = set()
    for mount in host_config.mounts:
        option = "--tmpfs" if mount.type == "tmpfs" else "--volume"
        target = _check_target(option, mount.target)
        if target in seen:
            raise InvalidParameter(f"{option} {mount.target}: duplicate mount point")
        seen.add(target)
        check_outside_proc(option, target)
        _check_mount(option, mount)
    if host_config.shm_size <= 0:
        raise InvalidParameter(f"--shm-size {host_config.shm_size}: must be more than 0 bytes")
    for option, paths in (
        ("masked paths", host_config.masked_paths),
        ("read-only paths", host_config.readonly_paths),
    ):
        for path in paths or ():
            check_path(option, path)


# What programs that show a container's own share of the machine mount their files over (lxcfs).
_PROC_FILES = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")


def check_outside_proc(option: str, target: str) -> None:
    """/proc is the kernel's word about the container: nothing else is shown there. runc
    checkProcMount."""
    inside = target == "/proc" or target.startswith("/proc/")
    if inside and target.removeprefix("/proc/") not in _PROC_FILES:
        raise InvalidParameter(f"{option} {target}: cannot be mounted because it is inside /proc")


def check_path(option: str, path: str) -> None:
    """A path in the container: absolute, without "..", and such as the kernel takes.
    InvalidParameter. limits.h NAME_MAX, PATH_MAX."""
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise InvalidParameter(
            f"{option} {path[:80]!r}: must be an absolute path in the container, without '..'"
        )
    if len(os.fsencode(path)) >= _PATH_MAX or max(map(len, map(os.fsencode, parts))) > _NAME_MAX:
        raise InvalidParameter(
            f"{option} {path[:80]!r}…: is too long, a path has less than {_PATH_MAX} bytes and "
            f"a name in it at most {_NAME_MAX}"
        )


def _check_target(option: str, target: str) -> str:
    check_path(option, target)
    clean = posixpath.normpath("/" + target.strip("/"))
    if clean == "/":
        raise InvalidParameter(f"{option} {target!r}: the path in the container cannot be '/'")
    return clean


def _check_mount(option: str, mount: Mount) -> None:
    if mount.type == "tmpfs":
        merge_tmpfs_options(mount.tmpfs_options)
    elif mount.type != "bind":
        raise InvalidParameter(f"--mount type={mount.type}: must be bind or tmpfs")
    elif not mount.source.startswith("/"):
        raise InvalidParameter(f"{option} {mount.source!r}: the path on the host must be absolute")
    elif mount.propagation and mount.propagation not in PROPAGATIONS:
        raise InvalidParameter(
            f"{option} {mount.target}: propagation {mount.propagation!r} must be one of "
            f"{', '.join(PROPAGATIONS)}"
        )


def _check_devices(config: Config, host_config: HostConfig) -> None:
    for device in host_config.devices:
        option = f"--device {device.path_on_host}"
        letters = device.cgroup_permissions
        if not letters or len(set(letters)) != len(letters) or set(letters) - set("rwm"):
            raise InvalidParameter(f"{option}: permissions {letters!r} must be of the letters rwm")
        for path in (device.path_on_host, device.path_in_container or "/"):
            check_path(option, path)


def _check_memory(config: Config, host_config: HostConfig) -> None:
    memory, swap = host_config.memory, host_config.memory_swap
    reservation = host_config.memory_reservation
    for option, value in (("--memory", memory), ("--memory-reservation", reservation)):
        if value < 0 or 0 < value < MINIMUM_MEMORY:
            raise InvalidParameter(f"{option} {value}: must be at least 6m (0 for no limit)")
    if swap < -1:
        raise InvalidParameter(f"--memory-swap {swap}: must be bytes, or -1 for unlimited")
    if swap > 0 and not memory:
        raise InvalidParameter("--memory-swap: needs --memory, it is memory and swap together")
    if 0 < swap < memory:
        raise InvalidParameter(f"--memory-swap {swap}: must be at least --memory, {memory}")
    if memory and reservation > memory:
        raise InvalidParameter(
            f"--memory-reservation {reservation}: must not exceed --memory, {memory}"
        )
    if host_config.pids_limit < -1:
        raise InvalidParameter(
            f"--pids-limit {host_config.pids_limit}: must be a number, or -1 for unlimited"
        )


def _check_cpu(config: Config, host_config: HostConfig) -> None:
    period, quota = host_config.cpu_period, host_config.cpu_quota
    if host_config.nano_cpus:
        count = os.cpu_count() or 1
        if not 10_000_000 <= host_config.nano_cpus <= count * 1_000_000_000:
            raise InvalidParameter(
                f"--cpus: must be between 0.01 and {count}, what this machine has"
            )
        if period or quota:
            raise InvalidParameter("--cpus: conflicts with --cpu-period and --cpu-quota")
    if period and not 1_000 <= period <= 1_000_000:
        raise InvalidParameter(f"--cpu-period {period}: must be 1000 to 1000000 microseconds")
    if quota and quota != -1 and quota < 1_000:
        raise InvalidParameter(f"--cpu-quota {quota}: must be at least 1000 microseconds, or -1")
    if not 0 <= host_config.cpu_shares <= 262_144:
        raise InvalidParameter(f"--cpu-shares {host_config.cpu_shares}: must be 0 to 262144")
    _check_set("--cpuset-cpus", host_config.cpuset_cpus, "/sys/devices/system/cpu/online")
    _check_set("--cpuset-mems", host_config.cpuset_mems, "/sys/devices/system/node/online")


def _check_set(option: str, text: str, online_path: str) -> None:
    if not text:
        return
    if not _CPU_LIST.fullmatch(text):
        raise InvalidParameter(f"{option} {text!r}: must be a list such as 0-3,5")
    try:
        with open(online_path, encoding="ascii") as file:
            online = file.read().strip()
    except FileNotFoundError:
        online = "0"  # a kernel without NUMA has one node
    if not _numbers(text) <= _numbers(online):
        raise InvalidParameter(f"{option} {text}: this machine has {online}")


def _numbers(text: str) -> set[int]:
    """The members of "0-3,5"; a range ends at 65535, far more than a kernel has."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), min(int(last or first), 65_535) + 1))
    return found


_CHECKS: Iterable[Callable[[Config, HostConfig], None]] = (
    _check_process,
    _check_names,
    _check_modes,
    _check_privileges,
    _check_sysctls,
    _check_ulimits,
    _check_mounts,
    _check_devices,
    _check_memory,
    _check_cpu,
)
