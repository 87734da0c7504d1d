"""`images`, `import`, `rmi`: the images of the engine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .format import check_format, human_size, show_rows
from .main import for_each
from .options import Command, Option

if TYPE_CHECKING:
    from .main import Context
    from .options import Values

_COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}
_NONE = "<none>"


def images(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns images`."""
    check_format(values.get("format"))
    rows = []
    for image in context.engine.images.list():
        shown_id = image.id if values.get("no_trunc") else short_id(image.id)
        for tag in image.tags or [f"{_NONE}:{_NONE}"]:
            rows.append(row_of(tag, shown_id, image.attrs))
    if values.get("quiet"):
        unique = dict.fromkeys(row["ID"] for row in rows)
        print("".join(f"{image_id}\n" for image_id in unique), end="")
    else:
        print(show_rows(values.get("format"), rows, _COLUMNS), end="")
    return 0


def short_id(image_id: str) -> str:
    """Twelve digits, without "sha256:"."""
    return image_id.removeprefix("sha256:")[:12]


def row_of(name: str, shown_id: str, attrs: dict[str, Any]) -> dict[str, str]:
    """The fields of one line; what an image does not say is empty."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    size = attrs.get("Size")
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": shown_id,
        "CreatedSince": created_since(attrs.get("Created")),
        "CreatedAt": str(attrs.get("Created") or ""),
        "Size": "" if size is None else human_size(size),
    }


def created_since(created: Any) -> str:
    """ "2 days ago" of an RFC 3339 time."""
    if not created:
        return ""
    from ..engine.verbs.inspect import human_duration, unix_seconds

    return f"{human_duration(time.time() - unix_seconds(created))} ago"


def import_(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns import`: prints the new image's id."""
    source, *name = words
    image = context.engine.images.import_rootfs(
        sys.stdin.buffer if source == "-" else source,
        name[0] if name else "",
        changes=values.get("change", []),
    )
    print(image.id)
    return 0


def rmi(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns rmi`."""

    def act(name: str) -> None:
        context.engine.images.remove(name, force=values.get("force", False))
        print(f"Deleted: {name}")

    return for_each(context, "rmi", words, act)


COMMANDS = {
    "images": Command(
        images,
        "[OPTIONS]",
        "List images",
        (
            Option("-q --quiet", "quiet", "", "Only ids"),
            Option("--no-trunc", "no_trunc", "", "Do not shorten"),
            Option("--format", "format", "TEMPLATE", "json, or text with {{.Repository}}"),
        ),
    ),
    "import": Command(
        import_,
        "[OPTIONS] FILE|DIRECTORY|- [NAME[:TAG]]",
        "Make an image of a root file system: a directory, or a tar file (plain, gzip, zstd)",
        (Option("-c --change", "change", "INSTRUCTION", "e.g. 'CMD sh'", many=True),),
        arguments=(1, 2),
    ),
    "rmi": Command(
        rmi,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove images",
        (Option("-f --force", "force", "", "Also when it has several names"),),
        arguments=(1, -1),
    ),
}
