"""Checking single fields of a config.json: each refusal begins with the field's name.

Owns: what a string, a number, a path may be, and which field an error that names an option of the
command line is about. Which field has to be which is bundle.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...errors import InvalidParameter, PynetnsError
from .checks import check_path

KIND_NAMES = {
    str: "a string", dict: "an object", list: "an array", bool: "true or false", int: "a number",
}  # fmt: skip
"""What a JSON value of that type is called."""


def refuse(where: str, why: str) -> InvalidParameter:
    """The error for a field of a config.json."""
    return InvalidParameter(f"{where}: {why}")


def typed(where: str, value: Any, kind: type) -> Any:
    """`value`, which must be of that kind."""
    if type(value) is not kind:
        raise refuse(where, f"must be {KIND_NAMES[kind]}")
    return value


def strings(where: str, values: Sequence[Any]) -> list[str]:
    """`values`, all of which must be strings."""
    return [typed(f"{where}[{index}]", value, str) for index, value in enumerate(values)]


def number(where: str, value: Any, low: int, high: int) -> int:
    """`value`, which must be a number of that range."""
    if type(value) is not int or not low <= value <= high:
        raise refuse(where, f"must be a number from {low} to {high}")
    return value


def path_inside(where: str, value: Any) -> str:
    """A path in the container: absolute, without "..", and such as the kernel takes."""
    check_path(where, typed(where, value, str))
    return str(value)


# What errors of the layers below begin with, where they are about an option's value.
_FIELDS = {
    "--memory-reservation": "linux.resources.memory.reservation",
    "--memory-swap": "linux.resources.memory.swap",
    "--memory": "linux.resources.memory.limit",
    "--cpu-shares": "linux.resources.cpu.shares",
    "--cpu-period": "linux.resources.cpu.period",
    "--cpus or --cpu-quota": "linux.resources.cpu.quota",
    "--cpuset-cpus": "linux.resources.cpu.cpus",
    "--cpuset-mems": "linux.resources.cpu.mems",
    "--pids-limit": "linux.resources.pids.limit",
    "--cgroup-parent": "linux.cgroupsPath",
    "--ulimit": "process.rlimits",
    "--oom-score-adj": "process.oomScoreAdj",
    "--workdir: working directory": "process.cwd:",
    "bind source": "mounts: source",
}


@contextmanager
def named_by_field() -> Iterator[None]:
    """Errors that begin with an option begin with the field that stands for it instead."""
    try:
        yield
    except PynetnsError as error:
        for option, field in _FIELDS.items():
            if str(error).startswith(option):
                error.args = (f"{field}{str(error).removeprefix(option)}",)
                break
        raise
