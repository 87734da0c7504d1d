"""engine/filters.py, engine/inspect.py: which containers a listing shows, and what of them.

The state is real (a store and records on disk), nothing runs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pynetns.cli.listing import row_of
from pynetns.client.containers import ContainerCollection
from pynetns.engine.record import ContainerRecord, read_record, summarize, write_record
from pynetns.engine.verbs.inspect import human_duration, list_json, status_text
from pynetns.errors import InvalidParameter
from pynetns.kernel import LinuxKernel
from pynetns.kernel.process import ProcessIdentity
from pynetns.model.config import Config, HostConfig
from pynetns.model.network import NetworkSettings
from pynetns.model.state import State, rfc3339
from pynetns.store import Store

IMAGE = f"sha256:{'12' * 32}"
NEW = State()
OTHER_IMAGE = f"sha256:{'34' * 32}"


class Crowd:
    """Containers on record, and what a listing shows of them."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        for name in ("containers", "exec/tasks", "exec/locks"):
            (root / name).mkdir(parents=True)
        self.store = Store(f"{root}/pynetns.db")
        self.engine: Any = SimpleNamespace(
            root=self.root,
            kernel=LinuxKernel(),
            exec_root=f"{root}/exec",
            store=self.store,
            record=lambda id: read_record(self.root, id),
        )

    def add(
        self,
        name: str,
        id: str = "",
        state: State = NEW,
        ports: dict[str, Any] | None = None,
        image: tuple[str, str] = ("app", IMAGE),
        **labels: str,
    ) -> None:
        number = len(self.store.containers())
        id = (id or f"{number:02x}").ljust(64, "0")
        created = rfc3339(1_700_000_000_000_000_000 + number * 1_000_000_000)
        self.store.add_container(id, name, created, State())
        self.store.set_run(id, state, NetworkSettings(ports=ports or {}))
        os.mkdir(f"{self.root}/containers/{id}")
        config = Config(image=image[0], labels=tuple(labels.items()))
        record = ContainerRecord(id, created, "sleep", ("9",), image[1], (), config, HostConfig())
        write_record(self.root, record, name)
        self.store.set_summary(id, summarize(record))

    def names(self, *, all: bool = True, limit: int = -1, **filters: Any) -> list[str]:
        listed = ContainerCollection(self.engine).list(all=all, filters=filters, limit=limit)
        return [container.name for container in listed]

    def line(self, name: str) -> dict[str, str]:
        row = self.store.container_by_name(name)
        assert row is not None
        return row_of(list_json(row), no_trunc=False)


@pytest.fixture
def crowd(tmp_path: Path):  # type: ignore[no-untyped-def]
    crowd = Crowd(tmp_path)
    yield crowd
    crowd.store.close()


def running() -> State:
    """That of a container whose process is this one."""
    identity = ProcessIdentity.of(os.getpid())
    return State(
        status="running", pid=identity.pid, start_ticks=identity.start_ticks,
        boot_id=identity.boot_id, started_at=rfc3339(time.time_ns()), started_before=True,
    )  # fmt: skip


def exited(code: int) -> State:
    return State(status="exited", exit_code=code, started_before=True)


# ---- which ----


def test_newest_first_and_only_those_that_run_unless_asked(crowd: Crowd) -> None:
    crowd.add("old")
    crowd.add("live", state=running())
    crowd.add("later", state=running())
    crowd.add("ended", state=exited(0))
    assert crowd.names(all=False) == ["later", "live"]
    assert crowd.names() == ["ended", "later", "live", "old"]
    assert crowd.names(limit=1) == ["ended"]
    assert crowd.names(limit=1, status=["created", "running"]) == ["later"]


def test_being_created_or_removed_is_not_shown(crowd: Crowd) -> None:
    crowd.add("whole")
    crowd.store.add_container("ff" * 32, "half", rfc3339(time.time_ns()), State())
    assert crowd.names() == ["whole"]
    assert crowd.names(name="half") == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("web", ["web", "web-2", "myweb"]),
        ("^web", ["web", "web-2"]),
        ("^/web$", ["web"]),
        ("/web", ["web", "web-2"]),
        (["^web$", "db"], ["web", "db"]),
        ("WEB", []),
        ("web(", []),
        (["(", "db"], ["db"]),
        ("none", []),
    ],
)
def test_by_name(crowd: Crowd, value: Any, found: list[str]) -> None:
    for name in ("db", "myweb", "web-2", "web"):
        crowd.add(name)
    assert crowd.names(name=value) == found


def test_by_id(crowd: Crowd) -> None:
    for name, id in (("a", "abc1"), ("b", "abc2"), ("c", "1abc")):
        crowd.add(name, id)
    assert crowd.names(id="abc") == ["b", "a"]
    assert crowd.names(id="abc1") == crowd.names(id="abc1".ljust(64, "0")) == ["a"]
    assert crowd.names(id=["abc1", "1a"]) == ["c", "a"]
    assert crowd.names(id="bc") == []


def test_by_status_whether_running_or_not(crowd: Crowd) -> None:
    crowd.add("new")
    crowd.add("live", state=running())
    crowd.add("ended", state=exited(1))
    crowd.add("dead", state=State(status="dead"))
    for all in (True, False):
        assert crowd.names(all=all, status="created") == ["new"]
        assert crowd.names(all=all, status="running") == ["live"]
        assert crowd.names(all=all, status=["exited", "dead"]) == ["dead", "ended"]
        assert crowd.names(all=all, status="removing") == []


def test_by_exit_code(crowd: Crowd) -> None:
    crowd.add("new")
    crowd.add("live", state=running())
    for code in (0, 1, 137):
        crowd.add(f"ended-{code}", state=exited(code))
    assert crowd.names(exited="0") == crowd.names(exited=0) == ["ended-0"]
    assert crowd.names(exited=["137", "1"]) == ["ended-137", "ended-1"]
    assert crowd.names(all=False, exited="0") == []


def test_labels_must_all_be_there(crowd: Crowd) -> None:
    crowd.add("both", app="x", tier="web")
    crowd.add("one", app="x")
    crowd.add("other", app="y", tier="web")
    crowd.add("none")
    assert crowd.names(label="app") == ["other", "one", "both"]
    assert crowd.names(label="app=x") == ["one", "both"]
    assert crowd.names(label=["app=x", "tier=web"]) == ["both"]
    assert crowd.names(label=["app", "tier"]) == ["other", "both"]
    assert crowd.names(label="app=") == crowd.names(label="ap") == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("app", ["tagged", "plain"]),
        ("app:latest", ["tagged", "plain"]),
        ("app:v2", ["other"]),
        (["app", "app:v2"], ["other", "tagged", "plain"]),
        (IMAGE, ["tagged", "plain"]),
        ("121212", ["tagged", "plain"]),
        ("sha256:3434", ["by id", "other"]),
        ("ap", []),
        ("", []),
    ],
)
def test_by_image(crowd: Crowd, value: Any, found: list[str]) -> None:
    crowd.add("plain", image=("app", IMAGE))
    crowd.add("tagged", image=("app:latest", IMAGE))
    crowd.add("other", image=("app:v2", OTHER_IMAGE))
    crowd.add("by id", image=("3434343434", OTHER_IMAGE))
    crowd.add("rootfs", image=("", ""))
    assert crowd.names(ancestor=value) == found


def test_several_keys_must_all_match(crowd: Crowd) -> None:
    crowd.add("web-1", state=exited(0), app="x")
    crowd.add("web-2", state=exited(1), app="x")
    crowd.add("db", state=exited(0), app="x")
    crowd.add("web-3", state=exited(0))
    assert crowd.names(name="web", label="app", exited="0") == ["web-1"]
    assert crowd.names(name=["web", "db"], label="app", exited="0") == ["db", "web-1"]
    assert crowd.names(name="db", exited="1") == []


@pytest.mark.parametrize(
    ("filters", "word"),
    [
        ({"nam": "x"}, "accepted are ancestor, exited, id, label, name, status"),
        ({"status": "runing"}, "created, dead, exited, paused, removing, restarting, running"),
        ({"status": ["running", "x"]}, "status=x"),
        ({"exited": "zero"}, "exit code"),
    ],
)
def test_what_can_match_nothing_is_refused_also_where_there_is_nothing(
    crowd: Crowd, filters: dict[str, Any], word: str
) -> None:
    with pytest.raises(InvalidParameter) as failure:
        crowd.names(**filters)
    assert word in str(failure.value)


# ---- what of them ----


def test_ports_column(crowd: Crowd) -> None:
    published = (("0.0.0.0", "8080"),)
    both = (("127.0.0.1", "53"), ("10.0.0.1", "53"))
    crowd.add("none")
    crowd.add("web", ports={"80/tcp": published, "443/tcp": None, "53/udp": both})
    assert crowd.line("none")["Ports"] == ""
    assert crowd.line("web")["Ports"] == (
        "0.0.0.0:8080->80/tcp, 10.0.0.1:53->53/udp, 127.0.0.1:53->53/udp, 443/tcp"
    )


def test_ports_as_docker_lists_them(crowd: Crowd) -> None:
    crowd.add("web", ports={"80/tcp": (("0.0.0.0", "8080"),), "9/udp": None, "7": ()})
    row = crowd.store.container_by_name("web")
    assert row is not None
    assert list_json(row)["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 9, "Type": "udp"},
        {"PrivatePort": 7, "Type": "tcp"},
    ]


def test_the_other_columns(crowd: Crowd) -> None:
    crowd.add("web", "abcdef", app="x", tier="y")
    line = crowd.line("web")
    assert (line["ID"], line["Names"], line["Image"]) == ("abcdef000000", "web", "app")
    assert (line["Command"], line["Labels"]) == ('"sleep 9"', "app=x,tier=y")
    assert (line["State"], line["Status"]) == ("created", "Created")
    assert line["RunningFor"].endswith("years ago")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "Less than a second"), (1, "1 second"), (59.9, "59 seconds"),
        (60, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"),
        (3600, "About an hour"), (5399, "About an hour"), (5400, "2 hours"),
        (86400, "24 hours"), (171000, "2 days"), (13 * 86400, "13 days"), (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"), (60 * 86400, "2 months"), (729 * 86400, "24 months"),
        (730 * 86400, "2 years"), (4000 * 86400, "10 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_status_texts() -> None:
    def ago(seconds: int) -> str:
        return rfc3339(time.time_ns() - seconds * 1_000_000_000)

    up = State(status="running", started_at=ago(330))
    assert status_text(up) == "Up 5 minutes"
    ended = State(status="exited", exit_code=3, finished_at=ago(7300), started_before=True)
    assert status_text(ended) == "Exited (3) 2 hours ago"
    assert status_text(State()) == "Created"
    assert status_text(State(status="removing")) == "Removal In Progress"
    assert status_text(State(status="dead")) == "Dead"
