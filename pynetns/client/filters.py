"""The filters of `ps`. Source: Docker Engine API 1.41, ContainerList."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidParameter
from ..model.suggest import did_you_mean

if TYPE_CHECKING:
    from ..engine.record import ContainerRecord
    from ..engine.services import Services
    from ..store import ContainerRow


def _label(row: ContainerRow, record: ContainerRecord, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    labels = dict(record.config.labels)
    return key in labels and (not equals or labels[key] == wanted)


_FILTERS: dict[str, Callable[[ContainerRow, ContainerRecord, str], bool]] = {
    "name": lambda row, record, value: value.removeprefix("/") in row.name,
    "id": lambda row, record, value: row.id.startswith(value),
    "status": lambda row, record, value: row.state.status == value,
    "label": _label,
    "ancestor": lambda row, record, value: value in (record.config.image, record.image_id),
    "exited": lambda row, record, value: (
        row.state.status == "exited" and str(row.state.exit_code) == value
    ),
}


def check_filters(filters: Mapping[str, Any]) -> None:
    """InvalidParameter for a filter that there is not, whether there is anything to filter or not."""
    for key in filters:
        if key not in _FILTERS:
            raise InvalidParameter(
                f"--filter {key} : unknown{did_you_mean(key, _FILTERS)}, accepted are "
                f"{', '.join(sorted(_FILTERS))}"
            )


def matches(engine: Services, row: ContainerRow, filters: Mapping[str, Any]) -> bool:
    """Whether a container passes every filter (checked before); a list of values means any of them."""
    record = engine.record(row.id)
    for key, values in filters.items():
        test = _FILTERS[key]
        wanted = [values] if isinstance(values, str | int) else values
        if not any(test(row, record, str(value)) for value in wanted):
            return False
    return True
