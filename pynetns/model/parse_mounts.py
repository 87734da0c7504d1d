"""What a user mounts into a container: -v, --mount, --tmpfs and docker-py's forms of them.

Owns: the text of the three options as `Mount` values. Pure: whether a source exists and whether a
target is sound is checked later. Source: docker/cli opts/mount.go, moby volume/mounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidParameter
from .config import Mount
from .parse_lists import parse_list
from .parse_values import parse_boolean, parse_size, parse_text, refuse
from .suggest import did_you_mean

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
# Accepted because nothing is to be done: this engine labels no files and caches none.
_NO_EFFECT = frozenset(("z", "Z", "consistent", "cached", "delegated"))
_VOLUME_FORM = "HOST:CONTAINER[:ro|rw|PROPAGATION,…] with an absolute host path"
_NAMED_VOLUME = "named volumes are not available: give an absolute host path"


# Makes a path absolute; where there is a directory to start from (the command line), not here.
Absolute = Callable[[str], str]


def parse_volume(entry: Any, option: str = "--volume", absolute: Absolute | None = None) -> Mount:
    """ "HOST:CONTAINER[:OPTIONS]"; a Mount is one already. With `absolute` HOST may be a path that
    begins with ".", as docker's command line has it."""
    if isinstance(entry, Mount):
        return entry
    parts = parse_text(entry, option).split(":")
    if absolute is not None and parts[0].startswith("."):
        parts[0] = absolute(parts[0])
    if len(parts) == 1 and parts[0]:
        raise InvalidParameter(f"{option} {entry!r} : {_NAMED_VOLUME}")
    if len(parts) > 3 or not all(parts):
        raise refuse(option, entry, _VOLUME_FORM)
    source, target, mode = (*parts, "")[:3]
    return _bind(source, target, mode, option, entry)


def _bind(source: str, target: str, mode: str, option: str, entry: Any) -> Mount:
    if not source.startswith("/"):
        raise InvalidParameter(f"{option} {entry!r} : {_NAMED_VOLUME}")
    words = mode.split(",") if mode else []
    propagations = [word for word in words if word in PROPAGATIONS]
    access = [word for word in words if word in ("ro", "rw")]
    known = len(propagations) + len(access) + sum(word in _NO_EFFECT for word in words)
    if known != len(words) or len(propagations) > 1 or len(access) > 1:
        accepted = "ro or rw, and one of " + ", ".join(sorted(PROPAGATIONS))
        raise InvalidParameter(f"{option} {entry!r} : invalid mode {mode!r}, must be {accepted}")
    return Mount(
        create_source=True,
        type="bind",
        source=source,
        target=target,
        read_only="ro" in access,
        propagation=propagations[0] if propagations else "rprivate",
    )


def parse_volumes(value: Any, option: str = "--volume") -> tuple[Mount, ...]:
    """A list of entries, or docker-py's `{source: {"bind": target, "mode": "ro"}}`."""
    if not isinstance(value, Mapping):
        return parse_list(value, option, parse_volume)
    mounts = []
    for source, spec in value.items():
        if isinstance(spec, str):
            spec = {"bind": spec}
        if not isinstance(spec, Mapping) or not isinstance(spec.get("bind"), str):
            raise refuse(option, {source: spec}, "{HOST: {'bind': CONTAINER, 'mode': 'ro'}}")
        unknown = spec.keys() - {"bind", "mode", "ro", "propagation"}
        if unknown or ("mode" in spec and "ro" in spec):
            raise refuse(option, {source: spec}, "bind with mode (or ro) and propagation")
        mode = spec.get("mode") or ("ro" if spec.get("ro") else "")
        words = [word for word in (mode, spec.get("propagation") or "") if word]
        mounts.append(_bind(str(source), spec["bind"], ",".join(words), option, source))
    return tuple(mounts)


def parse_tmpfs(entry: Any, option: str = "--tmpfs") -> Mount:
    """ "CONTAINER[:OPTIONS]", options as mount(8) has them for a tmpfs."""
    target, _, options = parse_text(entry, option).partition(":")
    if not target:
        raise refuse(option, entry, "CONTAINER[:OPTIONS] such as /run:size=64m,mode=755")
    return Mount(type="tmpfs", source="", target=target, tmpfs_options=options)


def parse_tmpfs_mounts(value: Any, option: str = "--tmpfs") -> tuple[Mount, ...]:
    """A list of entries, or a mapping of target to options."""
    if isinstance(value, Mapping):
        value = [f"{target}:{options}" if options else target for target, options in value.items()]
    return parse_list(value, option, parse_tmpfs)


# key of --mount -> field of the collected values; Docker's synonyms beside each other
_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "destination": "target",
    "dst": "target",
    "readonly": "read_only",
    "ro": "read_only",
    "bind-propagation": "propagation",
    "bind-nonrecursive": "nonrecursive",
    "bind-recursive": "recursive",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "consistency": "consistency",
}
_FLAGS = frozenset(("read_only", "nonrecursive"))
# Which keys belong to one type only.
_BIND_ONLY = frozenset(("source", "propagation", "nonrecursive", "recursive"))
_RECURSIVE = {"enabled": True, "disabled": False}
_TMPFS_ONLY = frozenset(("size", "mode"))


def parse_mount(entry: Any, option: str = "--mount", absolute: Absolute | None = None) -> Mount:
    """ "type=bind,source=HOST,target=CONTAINER[,readonly]" or "type=tmpfs,target=CONTAINER", a line
    of CSV; also a Mount, and docker-py's `docker.types.Mount`. `absolute` as for parse_volume."""
    if isinstance(entry, Mount):
        return entry
    if isinstance(entry, Mapping):
        return _make_mount(_docker_py_mount(entry, option), option, dict(entry))
    values: dict[str, Any] = {}
    for part in split_csv(parse_text(entry, option), option):
        key, equals, value = part.strip().partition("=")
        field = _MOUNT_KEYS.get(key.lower())
        if field is None:
            raise InvalidParameter(
                f"{option} {entry!r} : unknown key {key!r}{did_you_mean(key, _MOUNT_KEYS)}, "
                f"must be {', '.join(_MOUNT_KEYS)}"
            )
        if field in _FLAGS:
            values[field] = parse_boolean(value if equals else True, f"{option} {key}")
        elif not value:
            raise refuse(f"{option} {key}", value, "KEY=VALUE")
        else:
            values[field] = value
    if absolute is not None and values.get("source", "").startswith("."):
        values["source"] = absolute(values["source"])
    return _make_mount(values, option, entry)


def split_csv(text: str, option: str) -> list[str]:
    """The fields of one line of comma-separated values: a field in quotes may hold commas, and ""
    for a quote. RFC 4180; encoding/csv of Go."""
    fields: list[str] = []
    while True:
        if text.startswith('"'):
            field, text = _quoted(text[1:], option)
        else:
            end = text.find(",")
            field, text = (text, "") if end < 0 else (text[:end], text[end:])
            if '"' in field:
                raise InvalidParameter(
                    f"{option} {field!r} : a quote must be around the whole KEY=VALUE, "
                    "as in '\"source=/a,b\"'"
                )
        fields.append(field)
        if not text:
            return fields
        text = text[1:]


def _quoted(text: str, option: str) -> tuple[str, str]:
    """(the field, what follows its closing quote: nothing or a comma and more)."""
    field = ""
    while True:
        part, quote, text = text.partition('"')
        field += part
        if not quote:
            raise InvalidParameter(f"{option} {field!r} : the closing quote is missing")
        if not text.startswith('"'):
            break
        field, text = field + '"', text[1:]
    if text and not text.startswith(","):
        raise InvalidParameter(f"{option} {text!r} : must not follow a closing quote")
    return field, text


def _docker_py_mount(entry: Mapping[str, Any], option: str) -> dict[str, Any]:
    """The mount object of Docker's API under the names of --mount."""
    bind = entry.get("BindOptions") or {}
    tmpfs = entry.get("TmpfsOptions") or {}
    if entry.get("VolumeOptions"):
        raise InvalidParameter(f"{option} {dict(entry)!r} : {_NAMED_VOLUME}")
    values = {
        "type": entry.get("Type"),
        "source": entry.get("Source"),
        "target": entry.get("Target"),
        "read_only": entry.get("ReadOnly"),
        "propagation": bind.get("Propagation"),
        "nonrecursive": bind.get("NonRecursive"),
        "size": tmpfs.get("SizeBytes"),
        "mode": None if tmpfs.get("Mode") is None else f"{tmpfs['Mode']:o}",
    }
    return {key: value for key, value in values.items() if value is not None}


def _make_mount(values: Mapping[str, Any], option: str, entry: Any) -> Mount:
    kind = values.get("type", "volume")
    if kind == "volume":
        raise InvalidParameter(f"{option} {entry!r} : {_NAMED_VOLUME}, with type=bind")
    if kind not in ("bind", "tmpfs"):
        raise refuse(f"{option} type", kind, "bind or tmpfs")
    if not values.get("target"):
        raise InvalidParameter(f"{option} {entry!r} : target=CONTAINER is missing")
    foreign = values.keys() & (_TMPFS_ONLY if kind == "bind" else _BIND_ONLY)
    if foreign:
        raise InvalidParameter(
            f"{option} {entry!r} : {', '.join(sorted(foreign))} is not for type={kind}"
        )
    if kind == "tmpfs":
        return _make_tmpfs(values, option)
    source = values.get("source", "")
    if not source.startswith("/"):
        raise InvalidParameter(f"{option} {entry!r} : source must be an absolute host path")
    propagation = values.get("propagation", "rprivate")
    if propagation not in PROPAGATIONS:
        raise refuse(f"{option} bind-propagation", propagation, ", ".join(sorted(PROPAGATIONS)))
    recursive = _RECURSIVE.get(values.get("recursive", "enabled"))
    if recursive is None or (not recursive and "nonrecursive" in values):
        raise refuse(
            f"{option} bind-recursive", values["recursive"], "enabled or disabled, given once"
        )
    return Mount(
        type="bind",
        source=source,
        target=values["target"],
        read_only=values.get("read_only", False),
        propagation=propagation,
        recursive=recursive and not values.get("nonrecursive", False),
    )


def _make_tmpfs(values: Mapping[str, Any], option: str) -> Mount:
    options = []
    if "size" in values:
        options.append(f"size={parse_size(values['size'], f'{option} tmpfs-size')}")
    if "mode" in values:
        mode = values["mode"]
        if not mode or set(mode) - set("01234567") or len(mode) > 4:
            raise refuse(f"{option} tmpfs-mode", mode, "octal digits such as 1777")
        options.append(f"mode={mode}")
    return Mount(
        type="tmpfs",
        source="",
        target=values["target"],
        read_only=values.get("read_only", False),
        tmpfs_options=",".join(options),
    )
