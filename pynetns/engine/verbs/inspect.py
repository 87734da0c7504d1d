"""A container as Docker's JSON: `inspect` and the rows of `ps`. Pure but for reading the record.

Source: Docker Engine API 1.41, ContainerInspect and ContainerList.
"""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING, Any

from ...model.config import HostConfig, to_json
from ...model.state import State
from ...model.summary import Summary
from ..record import container_directory, log_path

if TYPE_CHECKING:
    from ...store import ContainerRow
    from ..services import Services


def inspect_json(engine: Services, row: ContainerRow) -> dict[str, Any]:
    """Docker's ContainerInspect object."""
    record = engine.record(row.id)
    directory = container_directory(engine.root, row.id)
    # Docker shows no other path: the format of driver local is its own affair
    driver = record.host_config.log_config.type
    config = to_json(record.config)
    config["Hostname"] = record.hostname
    config["Cmd"], config["Entrypoint"] = config["Cmd"] or None, config["Entrypoint"] or None
    return {
        "Id": row.id,
        "Created": record.created,
        "Path": record.path,
        "Args": list(record.args),
        "State": row.state.docker_json(),
        "Image": record.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": log_path(engine.root, record) if driver == "json-file" else "",
        "Name": f"/{row.name}",
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config_json(record.host_config),
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {
                "LowerDir": ":".join(record.lowers),
                "UpperDir": f"{engine.root}/overlay2/{row.id}/diff",
                "WorkDir": f"{engine.root}/overlay2/{row.id}/work",
            },
        },
        "Mounts": [
            {
                "Type": mount.type,
                "Source": mount.source,
                "Destination": mount.target,
                "Mode": "",
                "RW": not mount.read_only,
                "Propagation": mount.propagation if mount.type == "bind" else "",
            }
            for mount in record.host_config.mounts
        ],
        "Config": config,
        "NetworkSettings": row.network.docker_json(),
    }


_OWN_KEYS = ("Mounts", "Rootfs", "IPAddress")  # of hostconfig.json, not Docker's


def host_config_json(host_config: HostConfig) -> dict[str, Any]:
    """Docker's HostConfig object: mounts as Binds and Tmpfs, and the parts that never vary here."""
    document = to_json(host_config)
    for key in _OWN_KEYS:
        del document[key]
    binds = [m for m in host_config.mounts if m.type == "bind"]
    document["Binds"] = [
        f"{m.source}:{m.target}:{'ro' if m.read_only else 'rw'},{m.propagation}" for m in binds
    ] or None
    tmpfs = {m.target: m.tmpfs_options for m in host_config.mounts if m.type == "tmpfs"}
    document["Tmpfs"] = tmpfs or None
    document["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    return document


def list_json(row: ContainerRow) -> dict[str, Any]:
    """One element of Docker's ContainerList: all of it is in the row."""
    summary = row.summary or Summary()
    return {
        "Id": row.id,
        "Names": [f"/{row.name}"],
        "Image": summary.image,
        "ImageID": summary.image_id,
        "Command": summary.command,
        "Created": unix_seconds(row.created),
        "Ports": list_ports(row),
        "Labels": dict(summary.labels),
        "State": row.state.status,
        "Status": status_text(row.state),
        "HostConfig": {"NetworkMode": summary.network_mode},
        "NetworkSettings": {"Networks": row.network.docker_json()["Networks"]},
    }


def list_ports(row: ContainerRow) -> list[dict[str, Any]]:
    """The `Ports` of ContainerList."""
    ports: list[dict[str, Any]] = []
    for port, bound in row.network.ports.items():
        number, _, proto = port.partition("/")
        entry = {"PrivatePort": int(number), "Type": proto or "tcp"}
        if not bound:
            ports.append(entry)
        for ip, host_port in bound or ():
            ports.append({"IP": ip, **entry, "PublicPort": int(host_port)})
    return ports


_PARTS = ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))  # year to second


def unix_seconds(rfc3339: str) -> int:
    """An RFC 3339 UTC time as seconds since the epoch. Not by strptime, which takes longer than all
    else that a list does for a container."""
    return calendar.timegm(tuple(int(rfc3339[start:end]) for start, end in _PARTS))


# Each unit up to as many seconds, as go-units has them: "47 hours", never "1 day".
_HOUR = 3600
_UNITS = (
    (60, 1, "second"),
    (_HOUR, 60, "minute"),
    (48 * _HOUR, _HOUR, "hour"),
    (14 * 24 * _HOUR, 24 * _HOUR, "day"),
    (60 * 24 * _HOUR, 7 * 24 * _HOUR, "week"),
    (730 * 24 * _HOUR, 30 * 24 * _HOUR, "month"),
    (float("inf"), 365 * 24 * _HOUR, "year"),
)
_ONE = {"second": "1 second", "minute": "About a minute", "hour": "About an hour"}


def human_duration(seconds: float) -> str:
    """A time span as Docker words it: "2 minutes", "About an hour", "Less than a second"."""
    if seconds < 1:
        return "Less than a second"
    if seconds >= _HOUR:  # from there on by the nearest hour. go-units HumanDuration
        seconds = int(seconds / _HOUR + 0.5) * _HOUR
    size, unit = next((size, unit) for end, size, unit in _UNITS if seconds < end)
    count = int(seconds // size)
    return _ONE[unit] if count == 1 else f"{count} {unit}s"


def status_text(state: State) -> str:
    """`ps`'s STATUS column. moby container/state.go State.String."""
    now = time.time()
    if state.running:
        return f"Up {human_duration(now - unix_seconds(state.started_at))}"
    if state.status == "exited":
        ago = human_duration(now - unix_seconds(state.finished_at))
        return f"Exited ({state.exit_code}) {ago} ago"
    return {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}[state.status]
