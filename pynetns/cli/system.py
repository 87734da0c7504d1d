"""`info`, `version`, `doctor`, `gc`: about the engine and the machine."""

from __future__ import annotations

import os
import sys

from .format import template
from .options import Command, Option

TYPE_CHECKING = False  # typing itself is not imported, see options.py
if TYPE_CHECKING:
    from typing import Any

    from ..doctor import Check
    from .main import Context
    from .options import Values


def info(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns info`."""
    return show(context.engine.info(), values)


def version(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns version`; opens no engine, so that it works for everybody."""
    from .. import __version__

    machine = os.uname()
    document = {
        "Version": __version__,
        "KernelVersion": machine.release,
        "Os": "linux",
        "Arch": machine.machine,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
    }
    return show(document, values)


def show(document: dict[str, Any], values: Values) -> int:
    """An object as lines, or by --format."""
    if "format" in values:
        print(template(values["format"])(document))
    else:
        print("".join(f"{key}: {value}\n" for key, value in document.items()), end="")
    return 0


def doctor(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns doctor`: 1 when something essential is missing."""
    from ..doctor import check

    checks = check(context.options.get("root"), context.options.get("exec_root"))
    if "format" in values:
        render = template(values["format"])
        print("".join(f"{render(one.as_dict())}\n" for one in checks), end="")
    else:
        print("".join(describe(one) for one in checks), end="")
    return 1 if any(one.ok is False for one in checks) else 0


_MARKS = {True: "ok     ", False: "MISSING", None: "warning"}


def describe(one: Check) -> str:
    """A check on one line, its fix on the next."""
    text = f"{_MARKS[one.ok]}  {one.name}: {one.detail}\n"
    return text if one.ok or not one.fix else f"{text}         fix: {one.fix}\n"


def gc(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns gc`: says what it removed."""
    for line in context.engine.gc(all=values.get("all", False)):
        print(f"removed {line}")
    return 0


_FORMAT = Option("-f --format", "format", "TEMPLATE", "json, or text with {{.Version}} and so on")
COMMANDS = {
    "info": Command(info, "[OPTIONS]", "Show the engine's state and the machine", (_FORMAT,)),
    "version": Command(version, "[OPTIONS]", "Show versions", (_FORMAT,)),
    "doctor": Command(
        doctor,
        "[OPTIONS]",
        "Say what this machine can and cannot do, with the fix for each",
        (Option("-f --format", "format", "TEMPLATE", "json, or text with {{.Name}} {{.Ok}}"),),
    ),
    "gc": Command(
        gc,
        "[OPTIONS]",
        "Remove what no container owns, and say what",
        (Option("-a --all", "all", "", "Also the engine's bridge, rules and mounts"),),
    ),
}
