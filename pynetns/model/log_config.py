"""Where a container's output goes: log drivers and their options, as Docker has them.

Owns: the drivers, the options of each, how their values are written, and the limit that holds where
nobody says anything. Pure: a user's words and the engine's default in, a checked LogConfig out, and
`log_options`, what the writer needs of it.
Source: moby daemon/logs.go mergeAndVerifyLogConfig, daemon/logger/factory.go ValidateLogOpts and
the drivers jsonfilelog and local; docker/go-units for sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import InvalidParameter
from .config import LogConfig
from .suggest import did_you_mean

MAX_SIZE = "32m"  # of each of MAX_FILE json-file logs, where nobody says how large a log may be
MAX_FILE = "3"
_LOCAL_SIZE, _LOCAL_FILES = 20 << 20, 5  # moby's own defaults of driver local
_BUFFER_SIZE = 1_000_000  # bytes; moby's of mode=non-blocking
# A reader holds every file of a log open.
_FILES_LIMIT = 500

# Docker's own: json-file counts in thousands, local and max-buffer-size in 1024s
_UNIT_BASES = {"json-file": 1000, "local": 1024}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?i?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")

DRIVERS = ("json-file", "local", "none")
_OPTIONS = ("max-size", "max-file", "mode", "max-buffer-size", "compress")
_OF = {"json-file": "for json-file log driver", "local": "for log driver local"}
_NO_ATTRIBUTES = "is not available: this engine writes no extra attributes into its logs"
_REFUSED = dict.fromkeys(("labels", "labels-regex", "env", "env-regex", "tag"), _NO_ATTRIBUTES)


class LogOptions(NamedTuple):
    """What the writer of a log needs. Sizes in bytes; `max_size` 0 is unlimited."""

    driver: str
    max_size: int = 0
    max_file: int = 1
    non_blocking: bool = False
    max_buffer: int = 0


def parse_log_config(value: Any, option: str = "log_config") -> LogConfig:
    """docker-py's LogConfig or a dict like it: `{"Type": "json-file", "Config": {"max-size": "10m"}}`.

    Names and texts are looked at here, what they mean with the engine's default by `resolve`.
    """
    if isinstance(value, LogConfig):
        return value
    accepted = 'such as {"Type": "json-file", "Config": {"max-size": "10m"}}'
    if not isinstance(value, Mapping):
        found = {"type": getattr(value, "type", None), "config": getattr(value, "config", None)}
        if found["type"] is None and found["config"] is None:
            raise InvalidParameter(f"{option} {value!r} : must be {accepted}")
        value = found
    known = {str(key).lower(): entry for key, entry in value.items()}
    if set(known) - {"type", "config"}:
        raise InvalidParameter(f"{option} {value!r} : must be {accepted}")
    driver = known.get("type") or ""
    if driver not in ("", *DRIVERS):
        raise unknown_driver(driver)
    return LogConfig(driver, parse_options(known.get("config") or {}, option))


def parse_log_opts(values: Iterable[str]) -> dict[str, str]:
    """The `--log-opt NAME=VALUE` of the command line; the last of a name holds."""
    pairs = (value.partition("=") for value in values)
    return {name: value for name, _, value in pairs}


def parse_options(value: Any, option: str) -> tuple[tuple[str, str], ...]:
    """The texts of a mapping of options; numbers and truth values are accepted as such."""
    if not isinstance(value, Mapping):
        raise InvalidParameter(
            f"{option} {value!r} : must be a mapping such as {{'max-size': '10m'}}"
        )
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, bool):
            entry = str(entry).lower()
        elif isinstance(entry, int):
            entry = str(entry)
        if not isinstance(name, str) or not isinstance(entry, str) or "\0" in name + entry:
            raise InvalidParameter(f"{option} {name!r} : must be text, not {entry!r}")
        found[name] = entry
    return tuple(found.items())


def unknown_driver(driver: object) -> InvalidParameter:
    names = ", ".join(DRIVERS)
    return InvalidParameter(
        f"--log-driver {driver!r} : no log driver named '{driver}' is registered"
        f"{did_you_mean(str(driver), DRIVERS)}: there are {names}"
    )


def merge(given: LogConfig, default: LogConfig) -> LogConfig:
    """`given` over `default`: options of the default hold where both mean the same driver."""
    driver = given.type or default.type
    base = default.config if driver == default.type else ()
    return LogConfig(driver, tuple((dict(base) | dict(given.config)).items()))


def resolve(given: LogConfig, default: LogConfig) -> LogConfig:
    """What a container gets: merged, limited, checked. InvalidParameter names the option.

    A json-file log without max-size is limited to MAX_FILE files of MAX_SIZE; max-size=-1 is none.
    """
    merged = merge(given, default)
    driver = merged.type or "json-file"
    options = dict(merged.config)
    if driver == "json-file" and "max-size" not in options:
        options = {"max-size": MAX_SIZE, "max-file": MAX_FILE} | options
    if options.get("max-size") == "-1" and "max-file" not in dict(given.config):
        options.pop("max-file", None)  # the default's, for its own max-size
    resolved = LogConfig(driver, tuple(options.items()))
    log_options(resolved)
    return resolved


@lru_cache(maxsize=64)
def log_options(log_config: LogConfig) -> LogOptions:
    """The values of a resolved configuration; InvalidParameter names the option that is wrong."""
    driver, options = log_config.type or "json-file", dict(log_config.config)
    if driver not in DRIVERS:
        raise unknown_driver(driver)
    if driver == "none":
        if options:
            raise InvalidParameter("--log-opt : invalid logging opts for driver none")
        return LogOptions("none")
    for name in options:
        if name in _REFUSED:
            raise InvalidParameter(f"--log-opt {name} : {_REFUSED[name]}")
        if name not in _OPTIONS:
            raise InvalidParameter(
                f"--log-opt {name} : unknown log opt '{name}' {_OF[driver]}"
                f"{did_you_mean(name, _OPTIONS)}: there are {', '.join(_OPTIONS)}"
            )
    _check_compress(options.get("compress", "false"))
    max_size, max_file = _file_limits(driver, options)
    non_blocking, max_buffer = _mode(options)
    return LogOptions(driver, max_size, max_file, non_blocking, max_buffer)


def _check_compress(value: str) -> None:
    if value in _TRUE:
        raise InvalidParameter(
            "--log-opt compress=true : is not available: rotated logs are kept as they are"
        )
    if value not in _FALSE:
        raise InvalidParameter(f"--log-opt compress={value} : must be true or false")


def _file_limits(driver: str, options: Mapping[str, str]) -> tuple[int, int]:
    size = options.get("max-size")
    files = options.get("max-file")
    max_size, max_file = (_LOCAL_SIZE, _LOCAL_FILES) if driver == "local" else (0, 1)
    if size is not None:
        max_size = 0 if size == "-1" else _parse_size("max-size", size, _UNIT_BASES[driver])
    if files is None:
        return max_size, max_file if max_size else 1
    if not (files.isascii() and files.isdecimal() and 1 <= len(files) < 10):
        raise InvalidParameter(f"--log-opt max-file={files} : must be a whole number")
    if not 1 <= int(files) <= _FILES_LIMIT:
        raise InvalidParameter(
            f"--log-opt max-file={files} : max-file cannot be less than 1 or more than {_FILES_LIMIT}"
        )
    if not max_size and int(files) > 1:
        raise InvalidParameter(
            f"--log-opt max-file={files} : needs a max-size, a log without is never rotated"
        )
    return max_size, int(files)


def _mode(options: Mapping[str, str]) -> tuple[bool, int]:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(
            f"--log-opt mode={mode} : logging mode not supported: blocking or non-blocking"
        )
    size = options.get("max-buffer-size")
    if size is None:
        return mode == "non-blocking", _BUFFER_SIZE if mode == "non-blocking" else 0
    if mode != "non-blocking":
        raise InvalidParameter(
            "--log-opt max-buffer-size : max-buffer-size option is only supported with "
            "mode=non-blocking"
        )
    return True, _parse_size("max-buffer-size", size, 1024)


def _parse_size(name: str, text: str, base: int) -> int:
    """Bytes of "10m", "1.5g", "4096". go-units FromHumanSize (base 1000), RAMInBytes (1024)."""
    match = _SIZE.fullmatch(text)
    size = 0
    if match and len(text) < 30:
        whole, _, fraction = match[1].partition(".")
        factor = base ** _POWERS[(match[2] or "").lower()]
        size = int(whole + fraction) * factor // 10 ** len(fraction)
    if not 0 < size < 1 << 63:
        unlimited = ", or -1 for no limit" if name == "max-size" else ""
        raise InvalidParameter(
            f"--log-opt {name}={text} : must be a positive size such as 100k, 10m or 1g{unlimited}"
        )
    return size
