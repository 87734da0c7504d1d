"""What a container is configured to be: Docker's Config and HostConfig, frozen.

Owns: the field names, their JSON names and their defaults. Parsing user input into these is
model/parse_*.py; no I/O here. Source: Docker Engine API 1.41, `ContainerCreate`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class PortBinding:
    """One host side of a published port. `host_ip` "" is every address; `host_port` "" is any free
    port, else "N" or a range "N-M"."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class DeviceMapping:
    path_on_host: str
    path_in_container: str
    cgroup_permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind or tmpfs mount of the user's. `source` is absolute for a bind, "" for a tmpfs.

    `create_source`: make a missing source directory at start, as Docker does for -v (not --mount).
    """

    type: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    tmpfs_options: str = ""
    create_source: bool = False


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where output goes: a driver's name and its options. "" is the engine's default driver."""

    type: str = ""
    config: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """The portable half of a container's configuration."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    image: str = ""
    working_dir: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    mac_address: str = ""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The half that depends on this machine. Sizes in bytes, times in the unit Docker uses."""

    network_mode: str = "default"
    mounts: tuple[Mount, ...] = ()
    port_bindings: tuple[tuple[str, tuple[PortBinding, ...]], ...] = ()  # key "80/tcp"
    publish_all_ports: bool = False
    auto_remove: bool = False
    privileged: bool = False
    readonly_rootfs: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    shm_size: int = 64 << 20
    oom_score_adj: int = 0
    memory: int = 0
    memory_swap: int = 0  # memory + swap; 0 unset, -1 unlimited
    memory_reservation: int = 0
    nano_cpus: int = 0  # 1e9 is one CPU
    cpu_shares: int = 0
    cpu_period: int = 0  # microseconds
    cpu_quota: int = 0  # microseconds
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0  # 0 or -1: unlimited
    cgroup_parent: str = ""
    pid_mode: str = ""  # "" private, "host", "container:<id>"
    ipc_mode: str = "private"  # "private", "shareable", "host", "container:<id>", "none"
    uts_mode: str = ""  # "", "host"
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    rootfs: str = ""  # --rootfs DIR: copy-on-write over this directory instead of an image
    ip_address: str = ""  # --ip on the network of network_mode
    log_config: LogConfig = LogConfig()


# Where snake_case -> CamelCase does not give Docker's spelling.
_JSON_NAMES = {
    "uts_mode": "UTSMode",
    "host_ip": "HostIp",
    "dns": "Dns",
    "dns_search": "DnsSearch",
    "dns_options": "DnsOptions",
    "ip_address": "IPAddress",
}
_MAPS = {"labels", "sysctls", "config"}
_ITEMS: dict[str, type] = {"mounts": Mount, "ulimits": Ulimit, "devices": DeviceMapping}
_OBJECTS: dict[str, type] = {"log_config": LogConfig}


def _json_name(attr: str) -> str:
    return _JSON_NAMES.get(attr) or "".join(part.capitalize() for part in attr.split("_"))


def to_json(obj: Any) -> dict[str, Any]:
    """A frozen model object as the dict Docker's JSON has for it."""
    out: dict[str, Any] = {}
    for field in fields(obj):
        value = getattr(obj, field.name)
        if field.name in _MAPS:
            value = dict(value)
        elif field.name == "exposed_ports":
            value = {port: {} for port in value}
        elif field.name == "port_bindings":
            value = {port: [to_json(b) for b in bindings] for port, bindings in value}
        elif field.name in _ITEMS:
            value = [to_json(item) for item in value]
        elif field.name in _OBJECTS:
            value = to_json(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[_json_name(field.name)] = value
    return out


def from_json(cls: type, data: Any) -> Any:
    """The inverse of `to_json`; what is missing is its default, as an older version did not know it.
    Raises TypeError or AttributeError on a damaged document, and on a key that is not known: what
    somebody asked for is not left out."""
    if not isinstance(data, dict):
        raise TypeError(f"{cls.__name__} is no object")
    unknown = set(data) - {_json_name(field.name) for field in fields(cls)}
    if unknown:
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {}
    for field in fields(cls):
        name = _json_name(field.name)
        if name not in data:
            continue
        value = data[name]
        if field.name in _MAPS:
            value = tuple(value.items())
        elif field.name == "exposed_ports":
            value = tuple(value)
        elif field.name == "port_bindings":
            value = tuple(
                (p, tuple(from_json(PortBinding, b) for b in bs)) for p, bs in value.items()
            )
        elif field.name in _ITEMS:
            value = tuple(from_json(_ITEMS[field.name], item) for item in value)
        elif field.name in _OBJECTS:
            value = from_json(_OBJECTS[field.name], value)
        elif isinstance(value, list):
            value = tuple(value)
        elif isinstance(field.default, tuple):
            raise TypeError(f"{name} is no list")
        values[field.name] = value
    return cls(**values)
