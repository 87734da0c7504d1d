"""Image names and image configuration as text: `repo[:tag]`, and `docker import --change`.

Owns: the grammar of both. Pure, no I/O.
Source: distribution/reference; Dockerfile reference, the instructions that `docker import` takes.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import InvalidParameter

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?"
_NAME = re.compile(rf"({_DOMAIN}{_COMPONENT}(?:/{_COMPONENT})*)(?::(\w[\w.-]{{0,127}}))?", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
DEFAULT_TAG = "latest"

Config = dict[str, Any]


def parse_reference(text: str) -> str:
    """`repo[:tag]` with its tag, "latest" where none is given. InvalidParameter."""
    match = _NAME.fullmatch(text)
    if match is None or len(match[1]) > 255:
        raise InvalidParameter(f"invalid reference format: {text!r} (it is repo[:tag], lower case)")
    if _HEX_ID.fullmatch(match[1]):
        raise InvalidParameter(f"invalid repository name ({match[1]}): looks like an image id")
    return f"{match[1]}:{match[2] or DEFAULT_TAG}"


def id_prefix(text: str) -> str:
    """The "sha256:…" prefix that `text` may stand for, "" when it cannot be an id."""
    match = _ID_PREFIX.fullmatch(text)
    return f"sha256:{match[1]}" if match else ""


# ---- --change ----


def _command(value: str) -> list[str]:
    """The JSON form as it is, anything else as a shell's command line."""
    if value.startswith("["):
        try:
            words = json.loads(value)
        except ValueError as error:
            raise InvalidParameter(f"--change: {value}: not a JSON list") from error
        if not all(isinstance(word, str) for word in words):
            raise InvalidParameter(f"--change: {value}: not a list of strings")
        return list(words)
    return ["/bin/sh", "-c", value]


def _pairs(value: str) -> list[tuple[str, str]]:
    """`KEY=value KEY2="two words"`, or the old form `KEY value`."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise InvalidParameter(f"--change: {value}: {error}") from error
    if words and "=" not in words[0]:
        key, _, rest = value.partition(" ")
        return [(key, rest.strip())]
    pairs = [word.partition("=") for word in words]
    if any(not key or not equals for key, equals, _ in pairs):
        raise InvalidParameter(f"--change: {value}: must be KEY=VALUE")
    return [(key, text) for key, _, text in pairs]


def _set_env(config: Config, value: str) -> None:
    env = dict(entry.split("=", 1) for entry in config.get("Env") or ())
    env.update(_pairs(value))
    config["Env"] = [f"{key}={text}" for key, text in env.items()]


def _set_ports(config: Config, value: str) -> None:
    ports = config.setdefault("ExposedPorts", {})
    for word in value.split():
        port, _, protocol = word.partition("/")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise InvalidParameter(f"--change: EXPOSE {word}: must be PORT[/PROTOCOL]")
        if protocol.lower() not in ("", "tcp", "udp", "sctp"):
            raise InvalidParameter(f"--change: EXPOSE {word}: must be tcp, udp or sctp")
        ports[f"{int(port)}/{protocol.lower() or 'tcp'}"] = {}


def _set_workdir(config: Config, value: str) -> None:
    if not value.startswith("/"):
        raise InvalidParameter(f"--change: WORKDIR {value}: must be absolute")
    config["WorkingDir"] = value


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": lambda config, value: config.update(Cmd=_command(value)),
    "ENTRYPOINT": lambda config, value: config.update(Entrypoint=_command(value)),
    "ENV": _set_env,
    "EXPOSE": _set_ports,
    "LABEL": lambda config, value: config.setdefault("Labels", {}).update(_pairs(value)),
    "STOPSIGNAL": lambda config, value: config.update(StopSignal=value),
    "USER": lambda config, value: config.update(User=value),
    "WORKDIR": _set_workdir,
}


def apply_changes(config: Config, changes: Iterable[str]) -> Config:
    """A copy of an image configuration after instructions such as `CMD ["sh"]` or `ENV A=b`."""
    config = dict(config)
    for change in changes:
        name, _, value = change.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise InvalidParameter(
                f"--change {change!r}: must be one of {', '.join(_INSTRUCTIONS)}"
            )
        if not value.strip():
            raise InvalidParameter(f"--change {change!r}: needs a value")
        instruction(config, value.strip())
    return config
