"""engine/settings.py: one configuration from files and keywords. Log options: test_log_config.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pynetns.cli.main import GLOBAL_OPTIONS, main
from pynetns.engine import settings
from pynetns.engine.settings import BadConfiguration, Settings, load_settings
from pynetns.errors import InvalidParameter

from .fake_engine import FakeEngine


@pytest.fixture
def machine_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "daemon.json"
    path.parent.mkdir()
    monkeypatch.setattr(settings, "DEFAULT_CONFIG_FILE", str(path))
    return path


@pytest.fixture
def root(tmp_path: Path, machine_file: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


EVERYTHING = {
    "bridge": "br7",
    "bip": "172.30.0.1/16",
    "mtu": 1450,
    "dns": ["10.0.0.53", "fd00::1"],
    "dns-search": ["example.org", "."],
    "dns-opts": ["ndots:2"],
    "log-driver": "local",
    "log-opts": {"max-size": "1m"},
}


def test_every_key_is_read(root: Path) -> None:
    path = root / "daemon.json"
    path.write_text(json.dumps(EVERYTHING))
    found = load_settings(str(root))
    assert (found.bridge, found.bip, found.mtu) == ("br7", "172.30.0.1/16", 1450)
    assert found.dns == ("10.0.0.53", "fd00::1")
    assert (found.dns_search, found.dns_options) == (("example.org", "."), ("ndots:2",))
    assert (found.log_config.type, dict(found.log_config.config)) == ("local", {"max-size": "1m"})
    assert dict(found.sources) == dict.fromkeys(EVERYTHING, str(path))
    assert found.label("bip") == f"{path} : bip"


def test_no_file_leaves_the_choice_to_the_engine(root: Path) -> None:
    assert load_settings(str(root)) == Settings()


def test_keyword_over_root_over_machine_key_by_key(root: Path, machine_file: Path) -> None:
    own = root / "daemon.json"
    machine_file.write_text('{"mtu": 1400, "dns": ["1.1.1.1"], "bridge": "br1"}')
    own.write_text('{"mtu": 1450, "dns": ["2.2.2.2", "3.3.3.3"]}')
    found = load_settings(str(root), mtu=9000, dns=(), bip=None)
    assert (found.bridge, found.mtu, found.dns) == ("br1", 9000, ("2.2.2.2", "3.3.3.3"))
    assert dict(found.sources) == {"bridge": str(machine_file), "mtu": "--mtu", "dns": str(own)}
    assert found.label("mtu") == "--mtu"


def test_another_file_replaces_the_machines(root: Path, machine_file: Path, tmp_path: Path) -> None:
    machine_file.write_text("not even JSON")
    other = tmp_path / "other.json"
    other.write_text('{"mtu": 1300}')
    assert load_settings(str(root), str(other)).mtu == 1300


def test_a_text_is_no_list_of_servers_and_an_empty_list_is_nothing(root: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"--dns '1\.1\.1\.1' : must be a list"):
        load_settings(str(root), dns="1.1.1.1")
    (root / "daemon.json").write_text('{"dns": ["2.2.2.2"]}')
    assert load_settings(str(root), dns=[]).dns == ("2.2.2.2",)


def test_a_file_that_is_named_from_here(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.json").write_text('{"bip": "172.30.0.1/16"}')
    monkeypatch.chdir(tmp_path)
    assert load_settings(str(root), "own.json").label("bip") == f"{tmp_path}/own.json : bip"


def test_zero_is_the_default_mtu(root: Path) -> None:
    (root / "daemon.json").write_text('{"mtu": 0}')
    assert load_settings(str(root)).mtu is None


BAD = [
    ("bridge", "none", "--network none"),
    ("bridge", "", "1 to 15 characters"),
    ("bridge", "a" * 16, "1 to 15 characters"),
    ("bridge", "a/b", "1 to 15 characters"),
    ("bridge", "a b", "1 to 15 characters"),
    ("bridge", "br%d", "1 to 15 characters"),
    ("bridge", 7, "1 to 15 characters"),
    ("bip", "172.30.0.1", "A.B.C.D/N"),
    ("bip", "172.30.0.0/16", "no host address"),
    ("bip", "172.30.0.1/31", "A.B.C.D/N"),
    ("bip", "fd00::1/64", "A.B.C.D/N"),
    ("bip", "127.0.0.1/8", "is the loopback network"),
    ("bip", "224.0.0.1/8", "is multicast"),
    ("bip", ["172.30.0.1/16"], '"172.30.0.1/16"'),
    ("mtu", 67, "from 68 to 65535"),
    ("mtu", 65536, "from 68 to 65535"),
    ("mtu", -1, "from 68 to 65535"),
    ("mtu", True, "from 68 to 65535"),
    ("mtu", "1k", "from 68 to 65535"),
    ("mtu", 1500.5, "from 68 to 65535"),
    ("dns", "1.1.1.1", "list of texts"),
    ("dns", ["one.one.one.one"], "is not an ip address"),
    ("dns", [1], "list of texts"),
    ("dns-search", ["a b"], "is not one word"),
    ("dns-search", ["a\noptions x"], "is not one word"),
    ("dns-opts", [""], "is not one word"),
]


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_a_bad_value_names_file_key_and_what_it_takes(
    root: Path, key: str, value: Any, words: str
) -> None:
    path = root / "daemon.json"
    path.write_text(json.dumps({key: value}))
    with pytest.raises(BadConfiguration) as caught:
        load_settings(str(root))
    assert str(caught.value).startswith(f"{path} : {key}")
    assert words in str(caught.value)


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_a_bad_keyword_names_the_option(root: Path, key: str, value: Any, words: str) -> None:
    keyword, option = settings._KEYS[key].keyword, settings._KEYS[key].option
    with pytest.raises(InvalidParameter) as caught:
        load_settings(str(root), **{keyword: value})
    assert not isinstance(caught.value, BadConfiguration)
    assert str(caught.value).startswith(option)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("mtuu", "did you mean mtu?"),
        ("dns-options", "did you mean dns-opts?"),
        ("log_driver", "did you mean log-driver?"),
        ("insecure-registries", "there are bip, bridge, dns"),
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones(root: Path, key: str, words: str) -> None:
    (root / "daemon.json").write_text(json.dumps({key: 1}))
    with pytest.raises(BadConfiguration, match=r"is no key of this file") as caught:
        load_settings(str(root))
    assert words in str(caught.value)


def test_a_callers_mistake_is_told_before_that_of_a_file(root: Path) -> None:
    (root / "daemon.json").write_text("{")
    with pytest.raises(InvalidParameter, match=r"--mtu") as caught:
        load_settings(str(root), mtu=1)
    assert not isinstance(caught.value, BadConfiguration)


def test_a_keyword_may_complete_what_a_file_says(root: Path) -> None:
    (root / "daemon.json").write_text('{"log-opts": {"mode": "non-blocking"}}')
    found = load_settings(str(root), log_opts={"max-buffer-size": "2m"})
    assert dict(found.log_config.config) == {"mode": "non-blocking", "max-buffer-size": "2m"}


# ---- the command line ----


def test_every_setting_is_an_option_of_the_command_line() -> None:
    options = {option.dest: option for option in GLOBAL_OPTIONS}
    for key in settings._KEYS.values():
        assert key.option in options[key.keyword].names


def test_options_reach_the_engine() -> None:
    engine = FakeEngine()
    line = "--bridge br7 --bip 172.30.0.1/16 --mtu 1450 --dns 1.1.1.1 --dns 2.2.2.2 --dns-search a "
    line += "--dns-opt ndots:2 --log-driver local --log-opt max-size=1m --config-file /c ps"
    assert main(line.split(), open_engine=engine) == 0
    assert engine.opened_with == {
        "bridge": "br7",
        "bip": "172.30.0.1/16",
        "mtu": "1450",
        "dns": ["1.1.1.1", "2.2.2.2"],
        "dns_search": ["a"],
        "dns_options": ["ndots:2"],
        "log_driver": "local",
        "log_opts": {"max-size": "1m"},
        "config_file": "/c",
    }
