"""What a spec is made from: everything that was looked up before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...model.config import Config, HostConfig
from ..security.capabilities import DEFAULT as DEFAULT_CAPABILITIES
from .devices import NO_DEVICES, ResolvedDevices
from .masked_paths import MASKED_PATHS
from .user import ROOT, User


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """All that a spec depends on, looked up beforehand.

    `path` and `args` are the program and its arguments (`entrypoint_and_args`). `hostname` and
    `domainname` are the effective ones (those of the other container or of the host where the
    network is shared). A `*_pid` is the pid of the container whose namespace is joined.
    `netns_path` is the pinned namespace; "" makes a new one ("host": none). Paths of network files:
    "" leaves the file out. `shm_path` is the directory behind /dev/shm for an IPC mode other than
    private and none. `seccomp` is `linux.seccomp`, None for unconfined. `masked_paths` are those of
    this machine, for a container that asks for no others.
    """

    container_id: str
    path: str
    args: tuple[str, ...]
    config: Config
    host_config: HostConfig
    rootfs_path: str
    cgroups_path: str
    hostname: str = ""
    domainname: str = ""
    netns_path: str = ""
    network_pid: int = 0
    ipc_pid: int = 0
    pid_pid: int = 0
    user: User = ROOT
    devices: ResolvedDevices = NO_DEVICES
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    seccomp: dict[str, Any] | None = None
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    shm_path: str = ""
    private_cgroupns: bool = False
    masked_paths: tuple[str, ...] = MASKED_PATHS
