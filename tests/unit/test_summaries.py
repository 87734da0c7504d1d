"""What lists show is put on record for containers whose files are there, and for no others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pynetns.engine.record import ContainerRecord, container_directory, summarize, write_record
from pynetns.engine.summaries import complete_summaries
from pynetns.errors import Unavailable
from pynetns.model.config import Config, HostConfig, LogConfig
from pynetns.model.state import State
from pynetns.store import Store

WHOLE, MADE, DAMAGED, LISTED = (letter * 64 for letter in "abcd")


def record(id: str) -> ContainerRecord:
    config = Config(image="app", labels=(("a", "b"),))
    host_config = HostConfig(log_config=LogConfig("none"))
    return ContainerRecord(id, "2024", "sh", ("-c",), "sha256:12", ("/l",), config, host_config)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SimpleNamespace]:
    store = Store(str(tmp_path / "pynetns.db"))
    store.add_image("sha256:12", "app", "2024", ("l",), {}, 1)
    for id in (WHOLE, MADE, DAMAGED, LISTED):
        store.add_container(id, id[:4], "2024", State())
        os.makedirs(container_directory(str(tmp_path), id))
        write_record(str(tmp_path), record(id), id[:4])
    directory = Path(container_directory(str(tmp_path), MADE))
    (directory / "hostconfig.json").unlink()  # which is written last
    Path(container_directory(str(tmp_path), DAMAGED), "config.v2.json").write_text("{")
    store.set_summary(LISTED, replace(summarize(record(LISTED)), image="as it is"))
    yield SimpleNamespace(store=store, root=str(tmp_path))
    store.close()


def test_those_whose_files_are_there(engine, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    complete_summaries(engine)
    rows = {row.id: row.summary for row in engine.store.containers()}
    assert rows[WHOLE] == summarize(record(WHOLE))
    assert rows[MADE] is None and rows[DAMAGED] is None
    assert rows[LISTED] is not None and rows[LISTED].image == "as it is"
    assert engine.store.image_users("sha256:12") == [WHOLE, LISTED]
    assert DAMAGED[:12] in caplog.text and MADE[:12] not in caplog.text
    assert [row.id for row in engine.store.unsettled()] == [MADE, DAMAGED]


def test_a_full_disk_keeps_nobody_from_anything(engine, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def full(*_: object, **__: object) -> None:
        raise Unavailable("database or disk is full")

    monkeypatch.setattr(engine.store, "set_summary", full)
    complete_summaries(engine)
    monkeypatch.undo()
    complete_summaries(engine)
    assert engine.store.container(WHOLE).summary is not None
