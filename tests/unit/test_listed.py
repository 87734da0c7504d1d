"""An element of `ps`: made of a container's row alone."""

from __future__ import annotations

import calendar
import time

import pytest

from pynetns.engine.verbs.inspect import list_json, unix_seconds
from pynetns.model.network import EndpointSettings, NetworkSettings
from pynetns.model.state import State
from pynetns.model.summary import Summary
from pynetns.store import ContainerRow

CREATED = "2024-05-01T12:34:56.123456789Z"
ROW = ContainerRow(
    "ab" * 32,
    "web",
    CREATED,
    State(status="exited", exit_code=3, finished_at=CREATED, started_before=True, run=1),
    NetworkSettings(
        ports={"80/tcp": (("0.0.0.0", "8080"),), "90/udp": None},
        networks={"bridge": EndpointSettings("bridge")},
    ),
    Summary("app:v1", "sha256:12", "sh -c true", "bridge", False, {"a": "b"}),
)


def test_all_of_it_is_in_the_row() -> None:
    shown = list_json(ROW)
    assert (shown["Id"], shown["Names"]) == (ROW.id, ["/web"])
    assert (shown["Image"], shown["ImageID"]) == ("app:v1", "sha256:12")
    assert (shown["Command"], shown["Labels"]) == ("sh -c true", {"a": "b"})
    assert shown["Created"] == 1714566896
    assert shown["Status"].startswith("Exited (3) ")
    assert shown["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "Type": "tcp", "PublicPort": 8080},
        {"PrivatePort": 90, "Type": "udp"},
    ]
    assert shown["HostConfig"] == {"NetworkMode": "bridge"}
    assert list(shown["NetworkSettings"]["Networks"]) == ["bridge"]


def test_one_without_a_summary_is_listed_too() -> None:
    """It runs, and its files cannot be read: that is no reason to hide it, or all others."""
    shown = list_json(ROW._replace(summary=None))
    assert (shown["Names"], shown["Image"], shown["Command"]) == (["/web"], "", "")


@pytest.mark.parametrize("text", [CREATED, "2024-02-29T23:59:59Z", "1970-01-01T00:00:00Z"])
def test_seconds_are_what_strptime_says(text: str) -> None:
    expected = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    assert unix_seconds(text) == expected


def test_a_damaged_time_is_no_time() -> None:
    with pytest.raises(ValueError):
        unix_seconds("yesterday")
