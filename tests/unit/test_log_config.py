"""model/log_config.py and engine/settings.py: log drivers, their options, their defaults."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pynetns.engine import settings
from pynetns.engine.settings import BadConfiguration, load_settings
from pynetns.errors import InvalidParameter
from pynetns.model.config import HostConfig, LogConfig, from_json, to_json
from pynetns.model.log_config import LogOptions, log_options, parse_log_config, resolve
from pynetns.model.parse import build_configs

BUILT_IN = LogConfig("json-file")
LIMIT = {"max-size": "32m", "max-file": "3"}


def resolved(driver: str = "", default: LogConfig = BUILT_IN, **options: str) -> LogConfig:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return resolve(LogConfig(driver, tuple(named.items())), default)


def values(driver: str = "", **options: str) -> LogOptions:
    return log_options(resolved(driver, **options))


# ---- a container's own ----


def test_a_log_is_limited_where_nobody_says_anything() -> None:
    assert resolved() == LogConfig("json-file", tuple(LIMIT.items()))
    assert values() == LogOptions("json-file", 32_000_000, 3)


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        ("json-file", {"max_size": "10m"}, LogOptions("json-file", 10_000_000, 1)),
        ("json-file", {"max_file": "5"}, LogOptions("json-file", 32_000_000, 5)),
        ("json-file", {"max_size": "-1"}, LogOptions("json-file", 0, 1)),
        ("json-file", {"max_size": "-1", "max_file": "1"}, LogOptions("json-file", 0, 1)),
        ("json-file", {"max_size": "1.5k", "max_file": "2"}, LogOptions("json-file", 1500, 2)),
        ("json-file", {"max_size": "4096"}, LogOptions("json-file", 4096, 1)),
        ("json-file", {"max_size": "1 KiB"}, LogOptions("json-file", 1000, 1)),
        ("json-file", {"compress": "false"}, LogOptions("json-file", 32_000_000, 3)),
        ("local", {}, LogOptions("local", 20 << 20, 5)),
        ("local", {"max_size": "10m"}, LogOptions("local", 10 << 20, 5)),
        ("local", {"max_size": "-1"}, LogOptions("local", 0, 1)),
        ("local", {"mode": "blocking"}, LogOptions("local", 20 << 20, 5)),
        ("none", {}, LogOptions("none")),
        (
            "local",
            {"mode": "non-blocking", "max_buffer_size": "4m"},
            LogOptions("local", 20 << 20, 5, True, 4 << 20),
        ),
        ("", {"mode": "non-blocking"}, LogOptions("json-file", 32_000_000, 3, True, 1_000_000)),
    ],
)
def test_options(driver: str, options: dict[str, str], expected: LogOptions) -> None:
    assert values(driver, **options) == expected


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("syslog", {}, "--log-driver 'syslog' : no log driver named 'syslog' is registered"),
        ("json-file", {"max_sise": "1m"}, "unknown log opt 'max-sise' for json-file log driver"),
        ("local", {"cache": "1"}, "unknown log opt 'cache' for log driver local"),
        ("none", {"max_size": "1m"}, "invalid logging opts for driver none"),
        ("", {"max_size": "10q"}, "--log-opt max-size=10q : must be a positive size"),
        ("", {"max_size": ""}, "--log-opt max-size= : must be a positive size"),
        ("", {"max_size": "0"}, "must be a positive size"),
        ("", {"max_size": "-5m"}, "must be a positive size"),
        ("", {"max_size": "9" * 28}, "must be a positive size"),
        ("", {"max_size": "٣m"}, "must be a positive size"),
        ("", {"max_file": "0"}, "max-file cannot be less than 1"),
        ("", {"max_file": "501"}, "or more than 500"),
        ("", {"max_file": "-1"}, "must be a whole number"),
        ("", {"max_file": "two"}, "must be a whole number"),
        ("", {"max_file": "3", "max_size": "-1"}, "--log-opt max-file=3 : needs a max-size"),
        ("", {"mode": "sometimes"}, "logging mode not supported"),
        ("", {"max_buffer_size": "1m"}, "only supported with mode=non-blocking"),
        ("", {"max_buffer_size": "1m", "mode": "blocking"}, "only supported with"),
        ("", {"max_buffer_size": "x", "mode": "non-blocking"}, "max-buffer-size=x : must be"),
        ("", {"compress": "true"}, "--log-opt compress=true : is not available"),
        ("local", {"compress": "maybe"}, "must be true or false"),
        ("", {"labels": "a"}, "--log-opt labels : is not available"),
        ("", {"env-regex": "a"}, "--log-opt env-regex : is not available"),
        ("local", {"tag": "x"}, "--log-opt tag : is not available"),
    ],
)
def test_bad_options_are_refused_by_name(
    driver: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        values(driver, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {"Type": "local", "Config": {"max-size": "1m", "max-file": 2}},
        {"type": "local", "config": {"max-size": "1m", "max-file": "2"}},
        SimpleNamespace(type="local", config={"max-size": "1m", "max-file": "2"}),
        LogConfig("local", (("max-size", "1m"), ("max-file", "2"))),
    ],
)
def test_the_ways_of_docker_py(value: Any) -> None:
    _, host_config = build_configs("host", log_config=value)
    assert host_config.log_config == LogConfig("local", (("max-size", "1m"), ("max-file", "2")))


@pytest.mark.parametrize(
    "value",
    ["json-file", {"Typ": "local"}, {"Config": ["a"]}, {"Config": {"a": None}}, {"Config": {1: "a"}},
     {"Type": "x"}, {"Type": ["local"]}, {"Config": {"a": "\0"}}, 7],
)  # fmt: skip
def test_other_shapes_are_refused(value: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"log_config|--log-driver"):
        parse_log_config(value)


def test_it_is_kept_and_a_record_of_before_has_the_default() -> None:
    _, host_config = build_configs("host", log_config={"Type": "local"})
    document = json.loads(json.dumps(to_json(host_config)))
    assert document["LogConfig"] == {"Type": "local", "Config": {}}
    assert from_json(HostConfig, document) == host_config
    del document["LogConfig"]
    assert from_json(HostConfig, document).log_config == LogConfig()
    document["LogConfig"] = {"Type": "local"}
    assert from_json(HostConfig, document).log_config == LogConfig("local")
    document["LogConfig"] = "local"
    with pytest.raises(TypeError):
        from_json(HostConfig, document)


# ---- the engine's ----


def test_defaults_hold_for_their_own_driver() -> None:
    default = LogConfig("local", (("max-size", "1m"), ("mode", "non-blocking")))
    assert resolved(default=default) == default
    assert resolved(default=default, max_size="2m").config == (
        ("max-size", "2m"), ("mode", "non-blocking"),
    )  # fmt: skip
    assert resolved("json-file", default=default).config == tuple(LIMIT.items())


def test_a_container_without_limit_loses_the_defaults_number_of_files() -> None:
    default = LogConfig("json-file", (("max-size", "1m"), ("max-file", "4")))
    assert resolved(default=default, max_size="-1") == LogConfig("json-file", (("max-size", "-1"),))


@pytest.fixture
def machine_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "daemon.json"
    path.parent.mkdir()
    monkeypatch.setattr(settings, "DEFAULT_CONFIG_FILE", str(path))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_no_file_is_no_error(machine_file: Path, root: Path) -> None:
    assert load_settings(str(root)).log_config == BUILT_IN


def test_which_value_wins(machine_file: Path, root: Path, tmp_path: Path) -> None:
    machine_file.write_text('{"log-opts": {"max-size": "1m", "max-file": "2"}}')
    assert dict(load_settings(str(root)).log_config.config) == {"max-size": "1m", "max-file": "2"}
    (root / "daemon.json").write_text('{"log-opts": {"max-size": "5m"}}')
    assert dict(load_settings(str(root)).log_config.config) == {"max-size": "5m", "max-file": "2"}
    given = load_settings(str(root), log_opts={"max-file": "7"}).log_config
    assert given == LogConfig("json-file", (("max-size", "5m"), ("max-file", "7")))
    other = load_settings(str(root), log_driver="local").log_config
    assert other == LogConfig("local")  # the files' options are another driver's
    (root / "daemon.json").write_text('{"log-driver": "none"}')
    assert load_settings(str(root)).log_config == LogConfig("none")
    own = tmp_path / "own.json"
    own.write_text('{"log-driver": "local"}')
    (root / "daemon.json").unlink()
    assert load_settings(str(root), str(own)).log_config == LogConfig("local")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"log-opt": {}}',
            "'log-opt' is no key of this file (did you mean log-opts?): there are bip, bri",
        ),
        ('{"log-driver": "syslog"}', "log-driver: --log-driver 'syslog' : no log driver named"),
        ('{"log-driver": ["local"]}', "log-driver: "),
        ('{"log-opts": ["max-size=1m"]}', "log-opts ['max-size=1m'] : must be a mapping"),
        ('{"log-opts": {"max-size": "1x"}}', "log-opts: --log-opt max-size=1x : must be"),
        ('{"log-opts": {"max-size": null}}', "log-opts 'max-size' : must be text"),
        ('{"log-driver": "none", "log-opts": {"mode": "blocking"}}', "invalid logging opts"),
        ('{"log-opts": {}, "log-opts": {}}', "'log-opts' is there twice"),
        ('{"log-opts": {}', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("\ufeff{}", "is not valid JSON"),
        ("[]", "must be a JSON object"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_key(root: Path, text: str, message: str) -> None:
    path = root / "daemon.json"
    path.write_text(text)
    with pytest.raises(InvalidParameter) as caught:
        load_settings(str(root))
    assert str(caught.value).startswith(f"{path} : ")
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(root: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"--config-file .*none : No such file"):
        load_settings(str(root), str(root / "none"))
    (root / "daemon.json").mkdir()
    with pytest.raises(BadConfiguration, match=r"daemon\.json : Is a directory"):
        load_settings(str(root))


def test_a_bad_keyword_is_refused(root: Path) -> None:
    with pytest.raises(InvalidParameter, match="no log driver named"):
        load_settings(str(root), log_driver="syslog")
    with pytest.raises(InvalidParameter, match="max-file cannot be less"):
        load_settings(str(root), log_opts={"max-file": "0"})
