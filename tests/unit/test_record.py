"""A container's files: what an older version did not write is its default, a newer one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pynetns.engine.record import (
    ContainerRecord,
    container_directory,
    read_record,
    summarize,
    write_record,
)
from pynetns.errors import StateDamaged
from pynetns.model.config import Config, HostConfig, LogConfig, Mount
from pynetns.model.log_config import resolve
from pynetns.model.state import NEVER
from pynetns.model.summary import Summary

ID = "ab" * 32
RECORD = ContainerRecord(
    id=ID,
    created="2024-01-01T00:00:00.000000000Z",
    path="/bin/sh",
    args=("-c", "true"),
    image_id="sha256:12",
    lowers=("/l1", "/l2"),
    config=Config(
        cmd=("/bin/sh", "-c", "true"), image="app", labels=(("a", "b"),), env=("X=1",), user="app"
    ),
    host_config=HostConfig(
        mounts=(Mount("bind", "/s", "/t"),),
        log_config=LogConfig("json-file"),
        memory=1 << 20,
        auto_remove=True,
    ),
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    Path(container_directory(str(tmp_path), ID)).mkdir(parents=True)
    write_record(str(tmp_path), RECORD, "web")
    return str(tmp_path)


def document(root: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(container_directory(root, ID), name).read_text())
    return found


def change(root: str, name: str, document: Any) -> None:
    Path(container_directory(root, ID), name).write_text(json.dumps(document))


def test_it_is_read_as_written(root: str) -> None:
    assert read_record(root, ID) == RECORD


DEFAULTS = {
    "Created": {"created": NEVER},
    "Image": {"image_id": ""},
    "Lowers": {"lowers": ()},
    "Config": {"config": Config()},
}


@pytest.mark.parametrize(
    "key", ["Version", "ID", "Name", "Created", "Path", "Args", "Image", "Lowers", "Config", "OS"]
)
def test_a_missing_key_is_its_default(root: str, key: str) -> None:
    document_ = document(root, "config.v2.json")
    del document_[key]
    change(root, "config.v2.json", document_)
    assert read_record(root, ID) == replace(RECORD, **DEFAULTS.get(key, {}))


@pytest.mark.parametrize("half", ["Config", "HostConfig"])
def test_so_is_every_missing_option(root: str, half: str) -> None:
    if half == "Config":
        whole = document(root, "config.v2.json")
        change(root, "config.v2.json", {**whole, "Config": {}})
        assert read_record(root, ID).config == Config()
    else:
        change(root, "hostconfig.json", {})
        log_config = resolve(LogConfig(), LogConfig())  # as it was before there were log options
        assert read_record(root, ID).host_config == replace(HostConfig(), log_config=log_config)


def test_a_newer_one_is_refused_by_name(root: str) -> None:
    change(root, "config.v2.json", {**document(root, "config.v2.json"), "Version": 3})
    words = r"config\.v2\.json: written by a newer pynetns \(version 3, .* reads 2\): upgrade"
    with pytest.raises(StateDamaged, match=words):
        read_record(root, ID)


@pytest.mark.parametrize(
    "damage", [[], {"Config": 7}, {"Config": {"Env": 7}}, {"Version": "x"}, {"Config": {"X": 1}}]
)
def test_a_damaged_one_is_named(root: str, damage: Any) -> None:
    change(root, "config.v2.json", damage)
    with pytest.raises(StateDamaged, match=r"config\.v2\.json"):
        read_record(root, ID)


def test_what_lists_show_of_it() -> None:
    summary = summarize(RECORD)
    assert summary == Summary("app", "sha256:12", "/bin/sh -c true", "default", True, {"a": "b"})
    assert Summary.from_json(summary.to_json()) == summary
    bare = replace(RECORD, config=Config(), host_config=HostConfig(rootfs="/srv/root"))
    assert summarize(bare).image == "/srv/root"


@pytest.mark.parametrize("key", json.loads(Summary().to_json()))
def test_a_summary_lacks_what_an_older_version_did_not_know(key: str) -> None:
    document_ = json.loads(Summary().to_json())
    del document_[key]
    assert Summary.from_json(json.dumps(document_)) == Summary()
