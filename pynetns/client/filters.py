"""The filters of `ps`. Source: Docker Engine API 1.41, ContainerList."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidParameter
from ..model.summary import Summary
from ..store import ContainerRow

_Test = Callable[[ContainerRow, Summary, str], bool]


def _label(row: ContainerRow, summary: Summary, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    return key in summary.labels and (not equals or summary.labels[key] == wanted)


_FILTERS: dict[str, _Test] = {
    "name": lambda row, summary, value: value.removeprefix("/") in row.name,
    "id": lambda row, summary, value: row.id.startswith(value),
    "status": lambda row, summary, value: row.state.docker_status() == value,
    "label": _label,
    "ancestor": lambda row, summary, value: value in (summary.image, summary.image_id),
    "exited": lambda row, summary, value: (
        row.state.status == "exited" and str(row.state.exit_code) == value
    ),
}


def matches(row: ContainerRow, filters: Mapping[str, Any]) -> bool:
    """Whether a container passes every filter; a list of values means any of them."""
    summary = row.summary or Summary()
    for key, values in filters.items():
        test = _FILTERS.get(key)
        if test is None:
            known = ", ".join(sorted(_FILTERS))
            raise InvalidParameter(f"--filter {key} : unknown, accepted are {known}")
        wanted = [values] if isinstance(values, str | int) else values
        if not any(test(row, summary, str(value)) for value in wanted):
            return False
    return True
