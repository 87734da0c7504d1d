"""Options that are given several times: environment, labels, sysctls, hosts, limits, devices.

Owns: the form of one entry of each, as `docker run` and docker-py have it. Pure; whether a limit's
or a sysctl's name exists is checked where the spec is made. Source: docker/cli opts/, moby opts/,
docker/go-units ulimit.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import InvalidParameter
from .config import DeviceMapping, Ulimit
from .parse_values import is_ip, parse_integer, parse_text, refuse

HOST_GATEWAY = "host-gateway"  # stands for the address of the bridge
Pairs = tuple[tuple[str, str], ...]


def parse_list(
    value: Any, option: str, item: Callable[[Any, str], Any] = parse_text
) -> tuple[Any, ...]:
    """Every entry through `item`. A text alone is refused: it would be read letter by letter."""
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise refuse(option, value, "a list")
    return tuple(item(entry, option) for entry in value)


def parse_env(
    entry: Any, option: str = "--env", environ: Mapping[str, str] | None = None
) -> str | None:
    """One variable, "NAME=VALUE". "NAME" alone is looked up in `environ`, None when it is not
    there; without `environ` it stays as it is (which removes the variable an image has set)."""
    if not isinstance(entry, str) or not entry or entry.startswith("=") or "\0" in entry:
        raise refuse(option, entry, "NAME=VALUE or NAME")
    if "=" in entry or environ is None:
        return entry
    return f"{entry}={environ[entry]}" if entry in environ else None


def parse_env_file(
    text: str, option: str = "--env-file", environ: Mapping[str, str] | None = None
) -> list[str]:
    """The variables of an environment file: one a line, "#" begins a comment, no quoting."""
    found = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        entry = line.lstrip()
        if not entry or entry.startswith("#"):
            continue
        name = entry.partition("=")[0]
        if not name or any(c.isspace() for c in name):
            raise InvalidParameter(
                f"{option} : line {number} {entry!r} must be NAME=VALUE or NAME without blanks"
            )
        variable = parse_env(entry, option, environ)
        if variable is not None:
            found.append(variable)
    return found


def parse_environment(value: Any, option: str = "--env") -> tuple[str, ...]:
    """A list of entries, or a mapping in which None stands for a name alone."""
    if isinstance(value, Mapping):
        value = [key if text is None else f"{key}={text}" for key, text in value.items()]
    return parse_list(value, option, parse_env)


def parse_label(entry: Any, option: str = "--label") -> tuple[str, str]:
    """ "KEY=VALUE" or "KEY", whose value is empty."""
    text = parse_text(entry, option)
    key, _, value = text.partition("=")
    if not key.strip():
        raise refuse(option, entry, "KEY or KEY=VALUE")
    return key, value


def parse_labels(value: Any, option: str = "--label") -> Pairs:
    """A list of entries or a mapping; the last of a key wins."""
    return _pairs(value, option, parse_label)


def parse_sysctl(entry: Any, option: str = "--sysctl") -> tuple[str, str]:
    """ "NAME=VALUE"."""
    text = parse_text(entry, option)
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise refuse(option, entry, "NAME=VALUE such as net.ipv4.ip_forward=1")
    return name, value


def parse_sysctls(value: Any, option: str = "--sysctl") -> Pairs:
    """A list of entries or a mapping."""
    return _pairs(value, option, parse_sysctl)


def _pairs(value: Any, option: str, item: Callable[[Any, str], tuple[str, str]]) -> Pairs:
    if isinstance(value, Mapping):
        value = [f"{key}={'' if text is None else text}" for key, text in value.items()]
    return tuple(dict(parse_list(value, option, item)).items())


def parse_add_host(entry: Any, option: str = "--add-host") -> str:
    """ "NAME:ADDRESS"; also Docker's newer "NAME=ADDRESS", and brackets around an IPv6 address."""
    text = parse_text(entry, option)
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    address = address.removeprefix("[").removesuffix("]")
    known = address == HOST_GATEWAY or is_ip(address)
    if not name or any(c.isspace() for c in name) or not known:
        raise refuse(option, entry, "NAME:ADDRESS such as db:10.0.0.2, or NAME:host-gateway")
    return f"{name}:{address}"


def parse_extra_hosts(value: Any, option: str = "--add-host") -> tuple[str, ...]:
    """A list of entries, or a mapping of name to address."""
    if isinstance(value, Mapping):
        value = [f"{name}:{address}" for name, address in value.items()]
    return parse_list(value, option, parse_add_host)


def parse_ulimit(entry: Any, option: str = "--ulimit") -> Ulimit:
    """ "NAME=SOFT[:HARD]", hard being soft when absent; docker-py's Ulimit. -1 is unlimited."""
    if isinstance(entry, Ulimit):
        return entry
    if isinstance(entry, Mapping):
        fields = {str(key).lower(): value for key, value in entry.items()}
        name = fields.get("name")
        if not isinstance(name, str) or not name or fields.keys() - {"name", "soft", "hard"}:
            raise refuse(option, dict(entry), "a Name with Soft and Hard")
        soft = fields.get("soft", fields.get("hard", 0))
        hard = fields.get("hard", soft)
    else:
        text = parse_text(entry, option)
        name, equals, values = text.partition("=")
        if not name or not equals:
            raise refuse(option, entry, "NAME=SOFT[:HARD] such as nofile=1024:2048")
        soft, colon, hard = values.partition(":")
        hard = hard if colon else soft
    where, what = f"{option} {name}", "a whole number (bytes, seconds or a count), without a unit,"
    return Ulimit(
        name,
        parse_integer(soft, where, low=-1, what=what),
        parse_integer(hard, where, low=-1, what=what),
    )


def parse_device(entry: Any, option: str = "--device") -> DeviceMapping:
    """ "HOST[:CONTAINER][:rwm]"."""
    if isinstance(entry, DeviceMapping):
        return entry
    accepted = "HOST[:CONTAINER][:rwm] such as /dev/fuse"
    parts = parse_text(entry, option).split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise refuse(option, entry, accepted)
    if len(parts) == 2 and not set(parts[1]) - set("rwm"):
        return DeviceMapping(parts[0], parts[0], parts[1])
    host, container, permissions = parts[0], *(parts[1:] + [parts[0], "rwm"][len(parts) - 1 :])
    return DeviceMapping(host, container, permissions)


def parse_group(entry: Any, option: str = "--group-add") -> str:
    """A group's name or number, looked up in the container's own files at its start."""
    text = str(entry) if isinstance(entry, int) and not isinstance(entry, bool) else entry
    if not isinstance(text, str) or not text or any(c.isspace() for c in text) or ":" in text:
        raise refuse(option, entry, "a group's name or number")
    return text
