"""`ps` and `inspect`: what there is, as a table, as JSON or by a template.

Owns: the columns and the fields of a row. The objects are the engine's (Docker's JSON).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidParameter, NotFound
from .format import check_format, shorten, show_rows, template, to_json
from .main import ENGINE_ERROR, report
from .options import Command, Option

if TYPE_CHECKING:
    from .main import Context
    from .options import Values

_COLUMNS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
}
_ID_LENGTH = 12
_COMMAND_LENGTH = 20


def ps(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns ps`."""
    from ..engine.verbs.inspect import list_json
    from ..model.parse import parse_integer

    check_format(values.get("format"))
    filters = parse_filters(values.get("filter", ()))
    limit = parse_integer(values.get("last", -1), "--last")
    if values.get("latest"):
        limit = 1
    containers = context.engine.containers.list(
        all=values.get("all", False) or limit > 0, filters=filters, limit=limit
    )
    rows = [
        row_of(list_json(container.row), values.get("no_trunc", False)) for container in containers
    ]
    if values.get("quiet"):
        print("".join(f"{row['ID']}\n" for row in rows), end="")
    else:
        print(show_rows(values.get("format"), rows, _COLUMNS), end="")
    return 0


def parse_filters(entries: list[str]) -> dict[str, list[str]]:
    """Every -f "KEY=VALUE", values of a key together."""
    filters: dict[str, list[str]] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise InvalidParameter(f"--filter {entry!r} : must be KEY=VALUE such as status=exited")
        filters.setdefault(key, []).append(value)
    return filters


def row_of(summary: Mapping[str, Any], no_trunc: bool) -> dict[str, str]:
    """The fields of one line of `ps`, from an element of Docker's ContainerList."""
    from ..engine.verbs.inspect import human_duration

    command = summary["Command"]
    return {
        "ID": summary["Id"] if no_trunc else summary["Id"][:_ID_LENGTH],
        "Image": summary["Image"],
        "Command": f'"{command if no_trunc else shorten(command, _COMMAND_LENGTH)}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(summary["Created"])),
        "RunningFor": f"{human_duration(time.time() - summary['Created'])} ago",
        "Status": summary["Status"],
        "State": summary["State"],
        "Ports": show_ports(summary["Ports"]),
        "Names": ",".join(name.removeprefix("/") for name in summary["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in summary["Labels"].items()),
        "Networks": ",".join(summary["NetworkSettings"]["Networks"]),
    }


def show_ports(ports: list[Mapping[str, Any]]) -> str:
    """ "0.0.0.0:8080->80/tcp, 81/tcp"."""
    shown = []
    for port in ports:
        private = f"{port['PrivatePort']}/{port['Type']}"
        public = f"{port['IP']}:{port['PublicPort']}->" if "PublicPort" in port else ""
        shown.append(f"{public}{private}")
    return ", ".join(sorted(shown))


def inspect(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns inspect`: containers, then images, of that name."""
    render = template(values["format"]) if "format" in values else None
    kind = values.get("type", "")
    if kind not in ("", "container", "image"):
        raise InvalidParameter(f"--type {kind!r} : must be container or image")
    found, code = [], 0
    for name in names:
        try:
            found.append(find_object(context, name, kind))
        except NotFound as error:
            code = max(code, report(error, "inspect"))
    if render is None:
        print(to_json(found, indent=4))
    else:
        print("".join(f"{render(item)}\n" for item in found), end="")
    sys.stdout.flush()
    return ENGINE_ERROR if code else 0


def find_object(context: Context, name: str, kind: str) -> Mapping[str, Any]:
    """The attributes of the container or image of that name."""
    if kind != "image":
        try:
            return context.engine.containers.get(name).attrs
        except NotFound:
            if kind == "container":
                raise
    try:
        return context.engine.images.get(name).attrs
    except NotFound as error:
        if kind == "image":
            raise
        raise NotFound(f"inspect : No such object: {name}") from error


COMMANDS = {
    "ps": Command(
        ps,
        "[OPTIONS]",
        "List containers",
        (
            Option("-a --all", "all", "", "Also those that do not run"),
            Option("-q --quiet", "quiet", "", "Only ids"),
            Option("-f --filter", "filter", "KEY=VALUE", "name, id, status, label, …", many=True),
            Option("-n --last", "last", "NUMBER", "The last ones created, whatever their state"),
            Option("-l --latest", "latest", "", "The last one created, whatever its state"),
            Option("--no-trunc", "no_trunc", "", "Do not shorten"),
            Option(
                "--format", "format", "TEMPLATE", "json, [table] text with {{.Names}} and so on"
            ),
        ),
    ),
    "inspect": Command(
        inspect,
        "[OPTIONS] NAME [NAME...]",
        "Show all about containers or images as JSON",
        (
            Option("-f --format", "format", "TEMPLATE", "json, or text with {{.State.Pid}}"),
            Option("--type", "type", "TYPE", "container or image"),
        ),
        arguments=(1, -1),
    ),
}
