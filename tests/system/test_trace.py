"""One trace: Python, shim and child steps of a start on one clock."""

from __future__ import annotations

import json
import os

import pytest

from pynetns import Recorder

pytestmark = pytest.mark.root


def test_a_start_is_traced_on_one_clock(engine):
    container = engine.containers.create("host", ["true"])
    with Recorder() as recorder:
        container.start()
    container.wait()
    spans = {span.name: span for span in recorder.spans}
    outer = spans["container_start"]
    for name in (
        "conditional_mount_on_start", "initialize_networking", "allocate_network",
        "connect_to_network", "create_endpoint", "new_sandbox", "join", "create_spec",
        "create_task", "task_start", "record_started", "shim_spawn", "mount /proc", "seccomp",
    ):  # fmt: skip
        assert outer.start <= spans[name].start <= spans[name].end <= outer.end, name
    order = [
        "conditional_mount_on_start", "initialize_networking", "create_spec", "create_task",
        "join", "task_start", "record_started",
    ]  # fmt: skip
    starts = [spans[name].start for name in order]
    assert starts == sorted(starts)
    task, shim, wait = spans["task_start"], spans["shim_spawn"], spans["wait"]
    assert spans["create_task"].start <= shim.start <= shim.end <= wait.end <= task.end
    assert spans["join"].end <= wait.end, "the program waits for its network"


def test_chrome_json(engine):
    with Recorder() as recorder:
        engine.containers.run("host", ["true"], remove=True)
    document = json.loads(recorder.chrome_json())
    tracks = {e["args"]["name"]: e["tid"] for e in document["traceEvents"] if e["ph"] == "M"}
    spans = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert set(tracks) == {"python", "thread", "shim", "child"}
    assert {e["tid"] for e in spans} == set(tracks.values())
    assert all(e["dur"] >= 0 and e["pid"] == os.getpid() for e in spans)


def test_nothing_is_recorded_outside(engine):
    with Recorder() as recorder:
        pass
    engine.containers.run("host", ["true"], remove=True)
    assert recorder.spans == []
