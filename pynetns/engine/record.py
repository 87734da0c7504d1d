"""A container on disk: `config.v2.json` and `hostconfig.json`, as Docker lays them out.

Owns: these two files and the frozen ContainerRecord made from them, and the removal of the directory
they are in. They are durable before a create
returns and are rewritten only by an explicit change. Running state is the store's, not here.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..errors import StateDamaged, System, Unavailable
from ..files import sync_directory
from ..model.config import Config, HostConfig, LogConfig, from_json, to_json
from ..model.log_config import resolve
from ..model.state import NEVER
from ..model.summary import Summary

_VERSION = 2  # of config.v2.json, as its name says


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What a container is, fixed at create. `path` and `args` are entrypoint and command, joined."""

    id: str
    created: str
    path: str
    args: tuple[str, ...]
    image_id: str
    lowers: tuple[str, ...]
    config: Config
    host_config: HostConfig

    @property
    def hostname(self) -> str:
        """The host name the container starts with: that of its configuration, else its short id."""
        return self.config.hostname or self.id[:12]


def summarize(record: ContainerRecord) -> Summary:
    """What lists show of it."""
    return Summary(
        image=record.config.image or record.host_config.rootfs,
        image_id=record.image_id,
        command=" ".join((record.path, *record.args)),
        network_mode=record.host_config.network_mode,
        auto_remove=record.host_config.auto_remove,
        labels=dict(record.config.labels),
    )


def container_directory(root: str, container_id: str) -> str:
    """`<root>/containers/<id>`."""
    return f"{root}/containers/{container_id}"


def log_path(root: str, record: ContainerRecord) -> str:
    """The file that the container's log is written to, "" when its driver keeps none. The rotated
    ones are beside it. Source: moby container.StartLogger."""
    directory = container_directory(root, record.id)
    name = log_name(record)
    return f"{directory}/{name}" if name else ""


def log_name(record: ContainerRecord) -> str:
    """The path of the log within the container's directory."""
    names = {"json-file": f"{record.id}-json.log", "local": "local-logs/container.log"}
    return names.get(record.host_config.log_config.type, "")


_FILES = (
    "config.v2.json", "hostconfig.json", "hosts", "hostname", "resolv.conf", "resolv.conf.hash",
    "config.v2.json.tmp", "hostconfig.json.tmp", "local-logs/container.log",
)  # fmt: skip
SUBDIRECTORIES = ("checkpoints", "mounts")
_DIRECTORIES = (*SUBDIRECTORIES, "local-logs")


def remove_container_directory(root: str, container_id: str) -> None:
    """Remove `<root>/containers/<id>` as far as possible; absent is fine.

    What a create makes goes by name: listing takes a descriptor, and an undo must work where those
    have run out. Only a directory with more in it is listed.
    """
    directory = container_directory(root, container_id)
    for name in (f"{container_id}-json.log", *_FILES):
        with suppress(OSError):
            os.unlink(f"{directory}/{name}")
    for name in _DIRECTORIES:
        with suppress(OSError):
            os.rmdir(f"{directory}/{name}")
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)


def write_record(root: str, record: ContainerRecord, name: str) -> None:
    """Write both files durably (fsync of files and directory)."""
    directory = container_directory(root, record.id)
    document = {
        "Version": _VERSION,
        "ID": record.id,
        "Name": f"/{name}",
        "Created": record.created,
        "Path": record.path,
        "Args": list(record.args),
        "Config": to_json(record.config),
        "Image": record.image_id,
        "Lowers": list(record.lowers),
        "Driver": "overlay2",
        "OS": "linux",
    }
    write_atomically(f"{directory}/config.v2.json", json.dumps(document))
    write_host_config(root, record)
    sync_directory(directory)


def write_host_config(root: str, record: ContainerRecord) -> None:
    """Write `hostconfig.json` atomically. moby Container.WriteHostConfig, seed 1.2.1.1.3."""
    path = f"{container_directory(root, record.id)}/hostconfig.json"
    write_atomically(path, json.dumps(to_json(record.host_config)))


def read_record(root: str, container_id: str) -> ContainerRecord:
    """Read both files; what an older version did not write is its default. FileNotFoundError when the
    container has none; StateDamaged names a bad or a newer one."""
    directory = container_directory(root, container_id)
    document = _read(f"{directory}/config.v2.json")
    host_config = _read(f"{directory}/hostconfig.json")
    path = f"{directory}/config.v2.json"
    try:
        _check_version(path, document.get("Version", _VERSION))
        config: Config = from_json(Config, document.get("Config", {}))
        command = (*config.entrypoint, *config.cmd)
        record = ContainerRecord(
            id=document.get("ID", container_id),
            created=document.get("Created", NEVER),
            path=document.get("Path", "".join(command[:1])),
            args=tuple(document.get("Args", command[1:])),
            image_id=document.get("Image", ""),
            lowers=tuple(document.get("Lowers", ())),
            config=config,
            host_config=HostConfig(),
        )
    except (TypeError, AttributeError) as error:
        raise StateDamaged(f"{path}: damaged ({error!r})") from error
    try:
        parsed: HostConfig = from_json(HostConfig, host_config)
    except (TypeError, AttributeError) as error:
        raise StateDamaged(f"{directory}/hostconfig.json: damaged ({error!r})") from error
    return _with_host_config(record, parsed)


def _check_version(path: str, version: object) -> None:
    if isinstance(version, int) and version > _VERSION:
        raise StateDamaged(
            f"{path}: written by a newer pynetns (version {version}, this one reads {_VERSION}): "
            "upgrade pynetns"
        )
    if version != _VERSION:
        raise StateDamaged(f"{path}: version {version!r} is not supported")


def _with_host_config(record: ContainerRecord, host_config: HostConfig) -> ContainerRecord:
    if not host_config.log_config.type:  # made before there were log options
        host_config = replace(host_config, log_config=resolve(LogConfig(), LogConfig()))
    return replace(record, host_config=host_config)


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        try:
            document = json.load(file)
        except ValueError as error:
            raise StateDamaged(f"{path}: not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise StateDamaged(f"{path}: not an object")
    return document


def write_atomically(path: str, text: str) -> None:
    """Write beside, fsync, rename over. Unavailable when the disk is full."""
    temporary = f"{path}.tmp"
    try:
        fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = text.encode()
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise _disk_error(path, error) from error


def _disk_error(path: str, error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"{path}: {error.strerror}: free some space below the engine's root")
    return System(f"{path}: {error.strerror}")
