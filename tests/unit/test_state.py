"""A container's state: its JSON through the years, and the number of its run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pynetns.engine.ending import exited_state
from pynetns.engine.starting import Starting
from pynetns.engine.verbs.start import record_started
from pynetns.model.config import Config
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.model.state import State
from pynetns.network.sandbox import Sandbox
from pynetns.runtime.shim.client import Exit
from pynetns.store import Store
from pynetns.testing import FakeKernel

ID = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "pynetns.db"))
    store.add_container(ID, "web", "2024-01-01T00:00:00Z", State())
    yield store
    store.close()


@pytest.mark.parametrize("key", json.loads(State().to_columns()[-1]))
def test_a_missing_key_is_its_default(key: str) -> None:
    *columns, text = State().to_columns()
    document = json.loads(text)
    del document[key]
    assert State.from_columns(*columns, json.dumps(document)) == State()


def start(store: Store) -> State:
    """Record a start, as the last step of one does."""
    row = store.container(ID)
    assert row is not None
    record = SimpleNamespace(config=Config())
    container = Starting(row.id, row.name, record, row.state, row.network)
    record_started(
        SimpleNamespace(store=store, kernel=FakeKernel()), container, Sandbox(), os.getpid()
    )
    row = store.container(ID)
    assert row is not None
    return row.state


def test_each_start_is_another_run(store: Store) -> None:
    assert State().run == 0
    first = start(store)
    assert first.run == 1
    ended = exited_state(first, Exit(3, 0), False)
    assert ended.run == 1  # the end is that run's
    store.set_state(ID, ended)
    assert start(store).run == 2


def test_a_start_that_is_not_recorded_is_no_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "add_event", fail)
    with pytest.raises(KeyboardInterrupt):
        start(store)
    row = store.container(ID)
    assert row is not None
    assert row.state == State()


def test_network_settings_lack_what_an_older_version_did_not_know() -> None:
    assert NetworkSettings.from_json("{}") == NetworkSettings()
    short = NetworkSettings.from_json('{"networks": {"bridge": ["bridge", "n"]}}')
    assert short.networks == {"bridge": EndpointSettings("bridge", "n")}
