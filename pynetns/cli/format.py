"""Output: tables as docker's, JSON, and `--format` templates.

Owns: column layout and the part of Go's template language that is supported: text,
`{{.Field.Path}}`, `{{json .Field.Path}}` and "table" before them. Pure.
Source: `docker ps --help`, "--format"; text/template of Go.
"""

from __future__ import annotations

from ..errors import InvalidParameter

TYPE_CHECKING = False  # typing itself is not imported, see options.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Render = Callable[[Mapping[str, Any]], str]

_GAP = 3  # blanks between columns, as tabwriter has them in docker
_WIDTH = 10  # of a column at least
_ACCEPTED = "{{.Field.Path}} or {{FUNCTION .Field.Path}} with json, lower or upper"
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under their headers, the last one as long as it is."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [
        max(_WIDTH, max(len(line[at]) for line in lines) + _GAP) for at in range(len(headers) - 1)
    ]
    text = ""
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        text += f"{''.join(cells)}{line[-1]}".rstrip() + "\n"
    return text


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON as docker prints it."""
    import json
    import re

    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)
    # a byte that is no UTF-8 is a lone surrogate here: escaped it is valid JSON, and comes back
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def show_rows(
    text: str | None, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> str:
    """What a listing prints: a table of `columns` (field -> header), or by --format `text`, where
    "table TEMPLATE" gives a table with the headers of its fields."""
    if text is None or text.strip() == "table":
        cells = [[row[field] for field in columns] for row in rows]
        return table(list(columns.values()), cells)
    if not text.startswith("table "):
        render = template(text)
        return "".join(f"{render(row)}\n" for row in rows)
    text = text.removeprefix("table ").strip()
    headers = _Headers(columns)
    lines = [template(text, heading=True)(headers), *map(template(text), rows)]
    cells = [line.split("\t") for line in lines]
    width = max(map(len, cells))
    cells = [line + [""] * (width - len(line)) for line in cells]
    return table(cells[0], cells[1:])


def check_format(text: str | None) -> None:
    """InvalidParameter for a --format of a listing that is not supported, before it is made."""
    template((text or "").removeprefix("table "))


class _Headers(dict[str, str]):
    """The headers of fields by name; one without its own is its name in capitals."""

    def __missing__(self, field: str) -> str:
        return field.upper()

    def __contains__(self, field: object) -> bool:
        return True


def template(text: str, *, heading: bool = False) -> Render:
    """A `--format` text as a function of the object. InvalidParameter for what is not supported.
    With `heading` the object's values are headers, which no function changes."""
    if text == "json":
        return to_json
    for escape, meant in _ESCAPES.items():
        text = text.replace(escape, meant)
    parts: list[str | Render] = []
    while text:
        plain, opened, rest = text.partition("{{")
        if plain:
            parts.append(plain)
        if not opened:
            break
        action, closed, text = rest.partition("}}")
        if not closed:
            raise InvalidParameter(f"--format : '{{{{{rest}' is not closed by '}}}}'")
        parts.append(_action(action.strip(), heading))
    return lambda value: "".join(part if isinstance(part, str) else part(value) for part in parts)


def _action(action: str, heading: bool) -> Render:
    words = action.split()
    if len(words) == 3 and words[1] == "|":  # {{.Field | upper}}
        words = [words[2], words[0]]
    show: Callable[[Any], str] = show_value
    if len(words) == 1:
        path = words[0]
    elif len(words) == 2 and words[0] in _FUNCTIONS:
        path, show = words[1], show_value if heading else _FUNCTIONS[words[0]]
    else:
        raise InvalidParameter(f"--format : '{{{{{action}}}}}' must be {_ACCEPTED}")
    names = path.removeprefix(".").split(".") if path != "." else []
    if not path.startswith(".") or not all(
        name and name.replace("_", "a").replace("-", "a").isalnum() for name in names
    ):
        raise InvalidParameter(f"--format : '{{{{{action}}}}}' must be {_ACCEPTED}")
    return lambda value: show(_look_up(value, names, path))


def _look_up(value: Any, names: Sequence[str], path: str) -> Any:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            raise InvalidParameter(f"--format : no field {path}")
        value = value[name]
    return value


def show_value(value: Any) -> str:
    """A value as Go's fmt prints it within a template."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, dict):
        inside = " ".join(f"{key}:{show_value(value[key])}" for key in sorted(value))
        return f"map[{inside}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(show_value(item) for item in value)}]"
    return str(value)


_FUNCTIONS: dict[str, Callable[[Any], str]] = {
    "json": to_json,
    "lower": lambda value: show_value(value).lower(),
    "upper": lambda value: show_value(value).upper(),
}
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def human_size(size: float) -> str:
    """Bytes with four digits and a decimal unit, as docker shows an image's size."""
    unit = 0
    while size >= 1000 and unit < len(_SIZE_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_SIZE_UNITS[unit]}" if size < 1000 else f"{size:.0f}{_SIZE_UNITS[unit]}"


def shorten(text: str, width: int) -> str:
    """At most `width` characters, the last an ellipsis when some were cut."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
