"""An OCI spec's `linux.resources` as files to write; pure.

Owns: the tables of limits for v1 and v2, and the option each one is asked for with. Device rules
are device_bpf.py's. OCI runtime-spec config-linux, "Control groups"; kernel documents cgroup-v1 and
cgroup-v2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ...errors import InvalidParameter, Unavailable
from ...model.config import HostConfig
from .hierarchy import Hierarchies

Block = Mapping[str, Any]
DEFAULT_PERIOD = 100_000  # microseconds


class Setting(NamedTuple):
    """One file of one controller. `optional`: nobody asked for it, it may be absent."""

    controller: str
    file: str
    value: str
    option: str
    optional: bool = False


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2-262144) as cpu.weight (1-10000), linearly, as the OCI runtimes do."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9999 // 262_142


def _plain(block: Block, key: str) -> str:
    return str(block[key])


def _or_max(block: Block, key: str) -> str:
    return "max" if block[key] < 0 else str(block[key])


def _swap_alone(block: Block, key: str) -> str:
    """v1 counts memory and swap together, v2 swap alone."""
    return "max" if block[key] < 0 else str(block[key] - block["limit"])


def _weight(block: Block, key: str) -> str:
    return str(shares_to_weight(block[key]))


def _cpu_max(block: Block, key: str) -> str:
    quota = block.get("quota") or -1
    return f"{quota if quota > 0 else 'max'} {block.get('period') or DEFAULT_PERIOD}"


Render = Callable[[Block, str], str]


class _Limit(NamedTuple):
    option: str
    controller: str
    v1_file: str
    v1: Render
    v2_file: str
    v2: Render


LIMITS: dict[tuple[str, str], _Limit] = {
    ("memory", "limit"): _Limit(
        "--memory", "memory", "memory.limit_in_bytes", _plain, "memory.max", _or_max
    ),
    ("memory", "reservation"): _Limit(
        "--memory-reservation",
        "memory",
        "memory.soft_limit_in_bytes",
        _plain,
        "memory.low",
        _or_max,
    ),
    ("memory", "swap"): _Limit(
        "--memory-swap",
        "memory",
        "memory.memsw.limit_in_bytes",
        _plain,
        "memory.swap.max",
        _swap_alone,
    ),
    ("cpu", "shares"): _Limit("--cpu-shares", "cpu", "cpu.shares", _plain, "cpu.weight", _weight),
    ("cpu", "period"): _Limit(
        "--cpu-period", "cpu", "cpu.cfs_period_us", _plain, "cpu.max", _cpu_max
    ),
    ("cpu", "quota"): _Limit(
        "--cpus or --cpu-quota", "cpu", "cpu.cfs_quota_us", _plain, "cpu.max", _cpu_max
    ),
    ("cpu", "cpus"): _Limit(
        "--cpuset-cpus", "cpuset", "cpuset.cpus", _plain, "cpuset.cpus", _plain
    ),
    ("cpu", "mems"): _Limit(
        "--cpuset-mems", "cpuset", "cpuset.mems", _plain, "cpuset.mems", _plain
    ),
    ("pids", "limit"): _Limit("--pids-limit", "pids", "pids.max", _or_max, "pids.max", _or_max),
}
_ORDER = {name: position for position, name in enumerate(LIMITS)}


def render(resources: Mapping[str, Any], on_v1: Collection[str]) -> list[Setting]:
    """The files to write, in that order; `on_v1` are the controllers of v1 hierarchies.

    Raises InvalidParameter for a limit that this package cannot enforce: none is ignored.
    """
    wanted = [
        (name, key)
        for name, block in resources.items()
        if name != "devices"
        for key in block
        if block[key] is not None
    ]
    settings: dict[tuple[str, str], Setting] = {}
    for name, key in sorted(wanted, key=lambda item: _ORDER.get(item, len(_ORDER))):
        limit, block = LIMITS.get((name, key)), resources[name]
        if limit is None:
            raise InvalidParameter(f"resources: {name}.{key}: is no limit that can be set")
        if key == "swap" and "limit" not in block:
            raise InvalidParameter("--memory-swap: needs --memory")
        v1 = limit.controller in on_v1
        file, write = (limit.v1_file, limit.v1) if v1 else (limit.v2_file, limit.v2)
        optional = (name, key) == ("memory", "swap") and block[key] == 2 * block["limit"]
        settings[limit.controller, file] = Setting(
            limit.controller, file, write(block, key), limit.option, optional
        )
    return list(settings.values())


# What of a host configuration needs which controller; the options are those of LIMITS.
_OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("memory", "--memory", "memory"),
    ("memory_reservation", "--memory-reservation", "memory"),
    ("nano_cpus", "--cpus", "cpu"),
    ("cpu_shares", "--cpu-shares", "cpu"),
    ("cpu_period", "--cpu-period", "cpu"),
    ("cpu_quota", "--cpu-quota", "cpu"),
    ("cpuset_cpus", "--cpuset-cpus", "cpuset"),
    ("cpuset_mems", "--cpuset-mems", "cpuset"),
)


def check_controllers(host_config: HostConfig, hierarchies: Hierarchies) -> None:
    """Whether this machine has the controller of every limit. Unavailable names the option."""
    for attribute, option, controller in _OPTIONS:
        if getattr(host_config, attribute):
            _require(option, controller, hierarchies)
    if host_config.pids_limit > 0:
        _require("--pids-limit", "pids", hierarchies)


def _require(option: str, controller: str, hierarchies: Hierarchies) -> None:
    if controller not in hierarchies.v1 and controller not in hierarchies.v2_controllers:
        raise Unavailable(
            f"{option}: this machine has no {controller} cgroup controller (mount its hierarchy, "
            "or enable it in cgroup.subtree_control of the parents)"
        )
