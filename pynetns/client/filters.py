"""The filters of `ps`, from their text to one question about a container.

Owns: keys, values and how they combine: every key must match, of several values of a key any may, but
labels must all be there. Source: Docker Engine API 1.41, ContainerList; moby daemon/list.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidParameter
from ..model.state import TRANSITIONS
from ..model.suggest import did_you_mean
from ..model.summary import Summary
from ..storage.reference import parse_reference
from ..store import ContainerRow

Test = Callable[[ContainerRow], bool]
_NOTHING = Summary()
# Docker's; no container has the last two
_STATUSES = sorted({*TRANSITIONS, "paused", "restarting"})


def _name(value: str) -> Test:
    """A regular expression, looked for in the name with and without its slash; as in Docker, what is
    none is no error and no name."""
    try:
        found = re.compile(value).search
    except re.error:
        return lambda row: False
    return lambda row: bool(found(row.name) or found(f"/{row.name}"))


def _id(value: str) -> Test:
    return lambda row: row.id.startswith(value)


def _status(value: str) -> Test:
    if value not in _STATUSES:
        raise InvalidParameter(f"--filter status={value} : must be one of {', '.join(_STATUSES)}")
    return lambda row: row.state.status == value


def _label(value: str) -> Test:
    key, equals, wanted = value.partition("=")

    def test(row: ContainerRow) -> bool:
        labels = (row.summary or _NOTHING).labels
        return key in labels and (not equals or labels[key] == wanted)

    return test


def _ancestor(value: str) -> Test:
    """An image: the name the container was created from, or the beginning of its id."""
    name, digits = _with_tag(value), value.removeprefix("sha256:")

    def test(row: ContainerRow) -> bool:
        summary = row.summary or _NOTHING
        if digits and summary.image_id.removeprefix("sha256:").startswith(digits):
            return True
        return bool(summary.image_id) and _with_tag(summary.image) == name

    return test


def _with_tag(name: str) -> str:
    try:
        return parse_reference(name)
    except InvalidParameter:
        return name  # an id


def _exited(value: str) -> Test:
    try:
        code = int(value)
    except ValueError as error:
        raise InvalidParameter(f"--filter exited={value} : must be an exit code") from error
    return lambda row: row.state.status == "exited" and row.state.exit_code == code


_FILTERS: dict[str, Callable[[str], Test]] = {
    "name": _name,
    "id": _id,
    "status": _status,
    "label": _label,
    "ancestor": _ancestor,
    "exited": _exited,
}


def compile_filters(filters: Mapping[str, Any]) -> Test:
    """Whether a container passes: `filters` has one value or several for each key.

    InvalidParameter for a key that is unknown or a value that can match nothing.
    """
    tests = [_of_key(key, values) for key, values in filters.items()]
    return lambda row: all(test(row) for test in tests)


def _of_key(key: str, values: Any) -> Test:
    make = _FILTERS.get(key)
    if make is None:
        raise InvalidParameter(
            f"--filter {key} : unknown{did_you_mean(key, _FILTERS)}, accepted are "
            f"{', '.join(sorted(_FILTERS))}"
        )
    tests = [make(str(v)) for v in ([values] if isinstance(values, str | int) else values)]
    combine = all if key == "label" else any
    return lambda row: combine(test(row) for test in tests)
