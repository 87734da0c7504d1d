"""Defaults of an engine from configuration files, under the names that dockerd's daemon.json has.

Owns: where the files are, which keys they may have, and which value wins. Values are checked by the
model. Two files, so that a machine has one place for all its roots, as Docker's users know it
(/etc/docker/daemon.json), and a root that somebody else uses or takes along has its own:

    built in  <  /etc/pynetns/daemon.json  <  <root>/daemon.json  <  keyword arguments of Engine

A key that is not known is an error: a misspelt limit must not be no limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidParameter, Unavailable
from ..model.config import LogConfig
from ..model.log_config import DRIVERS, merge, parse_options, resolve, unknown_driver

DEFAULT_CONFIG_FILE = "/etc/pynetns/daemon.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """The engine's defaults. `log_config` is what a container gets that names no driver."""

    log_config: LogConfig = field(default_factory=lambda: LogConfig("json-file"))


def load_settings(
    root: str,
    config_file: str | None = None,
    log_driver: str | None = None,
    log_opts: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of an engine at `root`.

    config_file: instead of DEFAULT_CONFIG_FILE; it must exist then. InvalidParameter names the file
    and the key, or the keyword; Unavailable a file that cannot be read.
    """
    settings = Settings()
    for path, required in (
        (config_file or DEFAULT_CONFIG_FILE, config_file is not None),
        (f"{root}/daemon.json", False),
    ):
        document = read_file(path, required=required)
        try:
            settings = apply(settings, document)
        except InvalidParameter as error:
            raise InvalidParameter(f"{path} : {error}") from error
    given = {"log-driver": log_driver, "log-opts": log_opts}
    return apply(settings, {key: value for key, value in given.items() if value is not None})


def read_file(path: str, *, required: bool) -> dict[str, Any]:
    """The object in a configuration file; an absent one is empty unless it is `required`."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=_no_key_twice)
    except FileNotFoundError as error:
        if not required:
            return {}
        raise InvalidParameter(f"--config-file {path} : {error.strerror}") from error
    except OSError as error:
        raise Unavailable(f"{path} : {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"{path} : is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidParameter(f"{path} : must be a JSON object")
    return document


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return document


def apply(settings: Settings, document: Mapping[str, Any]) -> Settings:
    """`settings` with what a file says. InvalidParameter names the key."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in _KEYS:
            known = ", ".join(sorted(_KEYS))
            raise InvalidParameter(f"{key!r} is no key of this file: there are {known}")
        values[key] = _KEYS[key](value, key)
    log_config = LogConfig(values.get("log-driver", ""), values.get("log-opts", ()))
    merged = merge(log_config, settings.log_config)
    try:
        resolve(merged, Settings().log_config)
    except InvalidParameter as error:
        raise InvalidParameter(f"log-opts: {error}") from error
    return replace(settings, log_config=merged)


def parse_driver(value: Any, key: str) -> str:
    """The name of a log driver."""
    if value not in DRIVERS:
        raise InvalidParameter(f"{key}: {unknown_driver(value)}")
    return str(value)


_KEYS: dict[str, Callable[[Any, str], Any]] = {
    "log-driver": parse_driver,
    "log-opts": parse_options,
}
