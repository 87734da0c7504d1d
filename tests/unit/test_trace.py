"""trace.py: one measurement per step, for metrics, recorders and the log."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from pynetns import trace
from pynetns.trace import Metrics, Recorder, Span, add_spans, recording, step


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Those of this test alone."""
    metrics = Metrics()
    monkeypatch.setattr(trace, "metrics", metrics)
    return metrics


def test_metrics_count_and_sum_by_name() -> None:
    metrics = Metrics()
    assert metrics.snapshot() == {}
    metrics.add("start", 1_500_000_000)
    metrics.add("start", 250_000_000)
    metrics.add("stop", 0)
    assert metrics.snapshot() == {
        "start": {"count": 2, "seconds": 1.75},
        "stop": {"count": 1, "seconds": 0.0},
    }


def test_metrics_of_many_threads_lose_nothing(metrics: Metrics) -> None:
    def work() -> None:
        for _ in range(1000):
            metrics.add("start", 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot()["start"] == {"count": 8000, "seconds": 8000 / 1e9}


def test_a_step_counts_whether_it_succeeds_or_not(metrics: Metrics) -> None:
    with step("one"):
        pass
    with pytest.raises(ZeroDivisionError), step("one"), step("two"):
        raise ZeroDivisionError
    counts = {name: values["count"] for name, values in metrics.snapshot().items()}
    assert counts == {"one": 2, "two": 1}


def test_a_step_is_measured_by_the_clock(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1_000, 3_500])
    monkeypatch.setattr(trace.time, "monotonic_ns", lambda: next(moments))
    with Recorder() as recorder, step("one"):
        pass
    assert recorder.spans == [Span("one", 1_000, 3_500)]
    assert metrics.snapshot() == {"one": {"count": 1, "seconds": 2.5e-6}}


def test_a_recorder_takes_the_steps_of_its_own_thread_while_it_is_open() -> None:
    def elsewhere() -> None:
        assert not recording()
        with step("elsewhere"):
            pass

    with Recorder() as outer:
        with step("a"), Recorder() as inner:
            with step("b"):
                pass
            add_spans([Span("c", 1, 2, "shim")])
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert recording()
    with step("after"):
        pass
    add_spans([Span("late", 1, 2)])
    assert not recording()
    assert [span.name for span in outer.spans] == ["a"]
    assert [span.name for span in inner.spans] == ["b", "c"]


def test_chrome_trace() -> None:
    recorder = Recorder()
    recorder.spans = [Span("inner", 2_000, 3_000, "child"), Span("outer", 2_000, 9_500)]
    events = json.loads(recorder.chrome_json())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], names[e["tid"]], e["ts"], e["dur"]) for e in spans] == [
        ("outer", "python", 2.0, 7.5),
        ("inner", "child", 2.0, 1.0),
    ]


def test_the_debug_log_tells_each_step_and_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    with step("quiet"):
        pass
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, logger="pynetns"):
        with pytest.raises(OSError), step("one"):
            raise OSError("no")
        with step("two"):
            pass
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("one ") and first.endswith(" us failed: no")
    assert second.startswith("two ") and second.endswith(" us")
