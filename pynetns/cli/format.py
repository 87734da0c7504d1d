"""Output: tables as docker's, JSON, and `--format` templates.

Owns: column layout and the part of Go's template language that is supported: text,
`{{.Field.Path}}` and `{{json .Field.Path}}`. Pure. Source: `docker ps --help`, "--format";
text/template of Go.
"""

from __future__ import annotations

from ..errors import InvalidParameter

TYPE_CHECKING = False  # typing itself is not imported, see options.py
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Render = Callable[[Mapping[str, Any]], str]

_GAP = 3  # blanks between columns, as tabwriter has them in docker
_ACCEPTED = "{{.Field.Path}} or {{json .Field.Path}}"
_ESCAPES = {"\\t": "\t", "\\n": "\n"}


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under their headers, the last one as long as it is."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) + _GAP for at in range(len(headers) - 1)]
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


def template(text: str) -> Render:
    """A `--format` text as a function of the object. InvalidParameter for what is not supported."""
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
        parts.append(_action(action.strip()))
    return lambda value: "".join(part if isinstance(part, str) else part(value) for part in parts)


def _action(action: str) -> Render:
    words = action.split()
    if len(words) == 1:
        path, show = words[0], show_value
    elif len(words) == 2 and words[0] == "json":
        path, show = words[1], to_json
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
