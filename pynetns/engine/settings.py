"""The one configuration of an engine: files and keywords, under the names of dockerd's daemon.json.

Owns: where the files are, which keys they have, how a value is written there, on the command line and as
a keyword, and which one wins. Two files, so that a machine has one place for all its roots, as Docker's
users know it (/etc/docker/daemon.json), and a root that somebody else uses or takes along has its own:

    built in  <  /etc/pynetns/daemon.json  <  <root>/daemon.json  <  keyword arguments of Engine

A key that is not known is an error: a misspelt limit must not be no limit. What a caller gives is
refused at once; what is wrong in a file is `BadConfiguration`, under which nothing is created or started,
while everything else goes on (services.py). Knows nothing of what the values are used for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import InvalidParameter, PynetnsError
from ..model.config import LogConfig
from ..model.log_config import DRIVERS, merge, parse_options, resolve, unknown_driver
from ..model.suggest import did_you_mean
from ..network.ipam import parse_subnet
from ..network.pools import check_subnet
from ..network.validate import check_resolver_words, check_servers

DEFAULT_CONFIG_FILE = "/etc/pynetns/daemon.json"
_MTUS = range(68, 65536)  # the least that IPv4 works with (RFC 791), the most that a veth takes


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine goes by. None, () and "" leave a choice to it: its own bridge, the subnet that its
    network has or a free one, 1500 bytes, the host's name servers. `log_config` is what a container
    gets that names no driver. `sources`: for each key that was given, the file or option it is from.
    """

    bridge: str | None = None
    bip: str | None = None
    mtu: int | None = None
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    log_config: LogConfig = field(default_factory=lambda: LogConfig("json-file"))
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def label(self, key: str) -> str:
        """How a message names the place of a setting: "--bip", or "FILE : bip"."""
        source = self.sources.get(key, "")
        return f"{source} : {key}" if source.startswith("/") else _KEYS[key].option


class BadConfiguration(InvalidParameter):
    """A configuration file that cannot be read, or says what cannot be. Names file and key."""


def load_settings(root: str, config_file: str | None = None, **given: Any) -> Settings:
    """The settings of an engine at `root`; `given`: those of `KEYWORDS` that a caller gives.

    config_file: instead of DEFAULT_CONFIG_FILE; it must exist then. Raises InvalidParameter naming the
    option for what was given, BadConfiguration naming the file, the key and what it takes.
    """
    read_values(given_document(given), "")  # first: the caller's own mistakes
    if config_file is not None:
        config_file = os.path.abspath(config_file)
    if config_file is not None and not is_there(config_file):
        raise InvalidParameter(f"--config-file {config_file} : No such file or directory")
    settings = Settings()
    for path in (config_file or DEFAULT_CONFIG_FILE, f"{root}/daemon.json"):
        try:
            settings = apply(settings, read_file(path), path)
        except PynetnsError as error:
            raise BadConfiguration(f"{path} : {error}") from error
    return given_settings(settings, given)


def given_settings(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """`settings` with a caller's keywords; None and () mean that nothing was given."""
    return apply(settings, given_document(given), "")


def given_document(given: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's keywords as a file would have them."""
    nothing: tuple[object, ...] = (None, (), [])
    return {KEYWORDS[name]: value for name, value in given.items() if value not in nothing}


def is_there(path: str) -> bool:
    """Whether the file can be opened, or fails in another way than being absent."""
    try:
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        return False
    except OSError:
        return True


def read_file(path: str) -> dict[str, Any]:
    """The object in a configuration file; an absent one is empty. InvalidParameter."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=_no_key_twice)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidParameter(str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidParameter('must be a JSON object, such as {"mtu": 1450}')
    return document


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return document


def apply(settings: Settings, document: Mapping[str, Any], path: str) -> Settings:
    """`settings` with what the file at `path` says, or a caller (path ""). InvalidParameter names the
    key, or the option."""
    values = read_values(document, path)
    log_config = LogConfig(values.pop("log_driver", ""), values.pop("log_opts", ()))
    merged = merge(log_config, settings.log_config)
    try:
        resolve(merged, Settings().log_config)
    except InvalidParameter as error:
        raise InvalidParameter(f"log-opts: {error}" if path else str(error)) from error
    sources = dict(settings.sources)
    sources.update({key: path or _KEYS[key].option for key in document})
    return replace(settings, log_config=merged, sources=MappingProxyType(sources), **values)


def read_values(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The values of a file, or of a caller (path ""), each looked at alone; by keyword."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        known = _KEYS.get(key)
        if known is None:
            raise InvalidParameter(
                f"{key!r} is no key of this file{did_you_mean(key, _KEYS)}: "
                f"there are {', '.join(sorted(_KEYS))}"
            )
        values[known.keyword] = known.parse(value, key if path else known.option)
    return values


# ---- the values; each parser takes what was given and how a message names it ----


def parse_bridge(value: Any, name: str) -> str:
    """The name of a link. netdevice(7)."""
    if value == "none":
        raise InvalidParameter(
            f"{name} 'none' : there is no engine without a bridge: it is made when the first "
            "container needs it; give a container none with --network none"
        )
    if (
        not isinstance(value, str)
        or not 0 < len(value.encode(errors="surrogateescape")) <= 15
        or value in (".", "..")
        or not value.isprintable()
        or set(value) & set("/: %")
    ):
        raise InvalidParameter(
            f"{name} {value!r} : a link's name has 1 to 15 characters, no blank, '/', ':' or '%'"
        )
    return value


def parse_bip(value: Any, name: str) -> str:
    """The bridge's address, as CIDR."""
    if not isinstance(value, str):
        raise InvalidParameter(f'{name} {value!r} : must be text such as "172.30.0.1/16"')
    parse_subnet(value, value.partition("/")[0], name)
    check_subnet(value, name)
    return value


def parse_mtu(value: Any, name: str) -> int | None:
    """Bytes; 0 is the default, as in Docker."""
    typed = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 9
    size = int(value) if typed else value
    if isinstance(size, bool) or not isinstance(size, int) or (size and size not in _MTUS):
        raise InvalidParameter(
            f"{name} {value!r} : must be a whole number of bytes from {_MTUS[0]} to {_MTUS[-1]}"
        )
    return size or None


def parse_words(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise InvalidParameter(f"{name} {value!r} : must be a list of texts")
    return tuple(value)


def parse_servers(value: Any, name: str) -> tuple[str, ...]:
    """A list of IP addresses."""
    servers = parse_words(value, name)
    check_servers(servers, name)
    return servers


def parse_resolver_words(value: Any, name: str) -> tuple[str, ...]:
    """A list of search domains, or of options of resolv.conf(5)."""
    words = parse_words(value, name)
    check_resolver_words(words, name)
    return words


def parse_driver(value: Any, name: str) -> str:
    """The name of a log driver."""
    if value not in DRIVERS:
        error = unknown_driver(value)
        raise error if name.startswith("--") else InvalidParameter(f"{name}: {error}")
    return str(value)


class _Key(NamedTuple):
    """A key of the files: the option and the keyword that say the same, and how its value is read."""

    option: str
    keyword: str
    parse: Callable[[Any, str], Any]


_KEYS: Mapping[str, _Key] = {
    "bridge": _Key("--bridge", "bridge", parse_bridge),
    "bip": _Key("--bip", "bip", parse_bip),
    "mtu": _Key("--mtu", "mtu", parse_mtu),
    "dns": _Key("--dns", "dns", parse_servers),
    "dns-search": _Key("--dns-search", "dns_search", parse_resolver_words),
    "dns-opts": _Key("--dns-opt", "dns_options", parse_resolver_words),
    "log-driver": _Key("--log-driver", "log_driver", parse_driver),
    "log-opts": _Key("--log-opt", "log_opts", parse_options),
}
KEYWORDS: Mapping[str, str] = {key.keyword: name for name, key in _KEYS.items()}
