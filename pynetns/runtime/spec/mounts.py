"""The mounts of a spec: Docker's defaults, the user's over them, the network files, /dev/shm.

Owns: which mounts there are, their options and their order. Pure: sources were checked before.
Source: seed sections 1.2.2.5 and 1.2.2.5.1; moby WithMounts, IpcMounts, MergeTmpfsOptions.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import InvalidParameter
from ...model.config import HostConfig, Mount

if TYPE_CHECKING:
    from .request import SpecRequest

OciMount = dict[str, Any]


class IpcMode:
    """The words of --ipc besides "container:<id>"."""

    PRIVATE, SHAREABLE, HOST, NONE = "private", "shareable", "host", "none"


SHM = "/dev/shm"
DEFAULT_PROPAGATION = "rprivate"
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev", DEFAULT_PROPAGATION)

# destination -> file system, source, options
_DEFAULTS = {
    "/proc": ("proc", "proc", "nosuid noexec nodev"),
    "/dev": ("tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    "/dev/pts": ("devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    "/sys": ("sysfs", "sysfs", "nosuid noexec nodev ro"),
    "/sys/fs/cgroup": ("cgroup", "cgroup", "ro nosuid noexec nodev"),
    "/dev/mqueue": ("mqueue", "mqueue", "nosuid noexec nodev"),
    SHM: ("tmpfs", "shm", "nosuid noexec nodev mode=1777"),
}


def _mount(destination: str, kind: str, source: str, options: Iterable[str]) -> OciMount:
    return {
        "destination": destination,
        "type": kind,
        "source": source,
        "options": tuple(options),
    }


DEFAULT_MOUNTS: tuple[OciMount, ...] = tuple(
    _mount(destination, kind, source, options.split())
    for destination, (kind, source, options) in _DEFAULTS.items()
)


@lru_cache(maxsize=64)
def _default_mounts(shm_size: int, privileged: bool) -> tuple[OciMount, ...]:
    """The defaults, /dev/shm with its size in bytes; privileged: /sys and cgroups writable."""
    mounts = []
    for mount in DEFAULT_MOUNTS:
        options = mount["options"]
        if mount["destination"] == SHM:
            options = (*options, f"size={shm_size}")
        elif privileged and mount["type"] in ("sysfs", "cgroup"):
            options = (option for option in options if option != "ro")
        mounts.append({**mount, "options": tuple(options)})
    return tuple(mounts)


def setup_mounts(request: SpecRequest) -> list[OciMount]:
    """All mounts but the default ones, fewest path parts first, so that a mount below another comes
    after it. moby Daemon.setupMounts, Container.IpcMounts, Container.TmpfsMounts."""
    host_config = request.host_config
    tmpfs = {m.target: m for m in host_config.mounts if m.type == "tmpfs"}
    binds = {m.target: m for m in host_config.mounts if m.type == "bind" and m.target not in tmpfs}
    mounts = [_bind(m) for m in binds.values() if m.target not in _NETWORK_FILES]
    mounts += network_mounts(request, binds)
    if request.shm_path and SHM not in binds and SHM not in tmpfs and _shares_shm(host_config):
        mounts.append(_mount(SHM, "bind", request.shm_path, ("rbind", DEFAULT_PROPAGATION)))
    mounts += [_tmpfs(m) for m in tmpfs.values()]
    return sort_mounts(mounts) if host_config.mounts else mounts


def sort_mounts(mounts: Iterable[OciMount]) -> list[OciMount]:
    """By number of path parts; equals keep their order. moby sortMounts."""
    return sorted(mounts, key=lambda mount: _parts(mount["destination"]))


def _parts(destination: str) -> int:
    return posixpath.normpath(destination).count("/")


_NETWORK_FILES = {
    "/etc/resolv.conf": "resolv_conf_path",
    "/etc/hostname": "hostname_path",
    "/etc/hosts": "hosts_path",
}


def network_mounts(request: SpecRequest, binds: dict[str, Mount]) -> list[OciMount]:
    """resolv.conf, hostname, hosts: the container's own, or what the user bound there instead.
    moby Container.NetworkMounts, TrySetNetworkMount."""
    mounts = []
    options = _FILE_OPTIONS[request.host_config.readonly_rootfs]
    for destination, attribute in _NETWORK_FILES.items():
        if destination in binds:
            bind = binds[destination]
            mounts.append(_mount(destination, "bind", bind.source, _FILE_OPTIONS[bind.read_only]))
        elif source := getattr(request, attribute):
            mounts.append(
                {"destination": destination, "type": "bind", "source": source, "options": options}
            )
    return mounts


_FILE_OPTIONS = {
    False: ("rbind", DEFAULT_PROPAGATION),
    True: ("rbind", "ro", DEFAULT_PROPAGATION),
}


def _shares_shm(host_config: HostConfig) -> bool:
    return host_config.ipc_mode not in (IpcMode.PRIVATE, IpcMode.NONE, "")


def _bind(mount: Mount) -> OciMount:
    options = ["rbind" if mount.recursive else "bind"]
    if mount.read_only:
        options.append("ro")
    options.append(mount.propagation or DEFAULT_PROPAGATION)
    return _mount(posixpath.normpath(mount.target), "bind", mount.source, options)


def _tmpfs(mount: Mount) -> OciMount:
    options = merge_tmpfs_options(mount.tmpfs_options)
    if mount.read_only and "ro" not in options:
        options = (*options, "ro")
    return _mount(posixpath.normpath(mount.target), "tmpfs", "tmpfs", options)


def set_mounts(spec: dict[str, Any], request: SpecRequest, mounts: list[OciMount]) -> None:
    """The default mounts, but for those that `mounts` replaces, then `mounts`. moby setMounts.

    A read-only root needs nothing here: of the defaults only what is read-only or must be writable
    (/proc, /dev and below) is left.
    """
    host_config = request.host_config
    defaults: Iterable[OciMount] = _default_mounts(host_config.shm_size, host_config.privileged)
    mine = {mount["destination"] for mount in mounts}
    if host_config.ipc_mode == IpcMode.NONE:
        mine.add(SHM)
    if not mine.isdisjoint(_DEFAULTS):
        own_dev = "/dev" in mine
        defaults = [
            mount
            for mount in defaults
            if mount["destination"] not in mine
            and not (own_dev and mount["destination"].startswith("/dev/"))
        ]
    spec["mounts"] = [*defaults, *mounts]
    if host_config.mounts:
        _set_root_propagation(spec, host_config.mounts)


def _set_root_propagation(spec: dict[str, Any], mounts: Iterable[Mount]) -> None:
    """A shared (slave) mount needs a root that is shared (slave) too."""
    kinds = {mount.propagation.removeprefix("r") for mount in mounts if mount.type == "bind"}
    if "shared" in kinds:
        spec["linux"]["rootfsPropagation"] = "shared"
    elif "slave" in kinds:
        spec["linux"]["rootfsPropagation"] = "rslave"


# Flags exclude each other within a group.
_TMPFS_FLAGS = {
    flag: group
    for group, flags in {
        "ro": "ro rw",
        "suid": "suid nosuid",
        "dev": "dev nodev",
        "exec": "exec noexec",
        "sync": "sync async",
        "atime": "atime noatime relatime strictatime",
        "diratime": "diratime nodiratime",
        "propagation": " ".join(PROPAGATIONS),
    }.items()
    for flag in flags.split()
}
_TMPFS_DATA = {
    "size": re.compile(r"\d+(%|[kmgtKMGT])?"),
    "nr_blocks": re.compile(r"\d+[kmgtKMGT]?"),
    "nr_inodes": re.compile(r"\d+[kmgtKMGT]?"),
    "mode": re.compile(r"[0-7]{1,5}"),
    "uid": re.compile(r"\d{1,10}"),
    "gid": re.compile(r"\d{1,10}"),
    "mpol": re.compile(r"[a-z]+([:=][\w:,=-]+)?"),
}


@lru_cache(maxsize=128)
def merge_tmpfs_options(text: str) -> tuple[str, ...]:
    """The options of a tmpfs, e.g. "size=64m,mode=1777,exec", over Docker's defaults; of those that
    exclude each other the last stays. Raises InvalidParameter. moby MergeTmpfsOptions."""
    chosen: dict[str, str] = {}
    for option in (*TMPFS_DEFAULTS, *(part for part in text.split(",") if part)):
        key, equals, value = option.partition("=")
        if equals:
            form = _TMPFS_DATA.get(key)
            if form is None or not form.fullmatch(value):
                raise _invalid_tmpfs(option)
            group = key
        elif option in _TMPFS_FLAGS:
            group = _TMPFS_FLAGS[option]
        else:
            raise _invalid_tmpfs(option)
        chosen.pop(group, None)  # to the end: the order is that of the last mention
        chosen[group] = option
    return tuple(chosen.values())


def _invalid_tmpfs(option: str) -> InvalidParameter:
    data = ", ".join(f"{key}=" for key in _TMPFS_DATA)
    return InvalidParameter(
        f"--tmpfs: invalid option {option!r}; accepted: {data}, {', '.join(_TMPFS_FLAGS)}"
    )
