"""Checking single fields of a config.json: each refusal begins with the field's name.

Owns: what a string, a number, a path may be. Which field has to be which is bundle.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import InvalidParameter
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
