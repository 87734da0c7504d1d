"""engine/verbs/create.py on a fake machine: what is made, what is refused, and that nothing is left."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pynetns import errors
from pynetns.engine.verbs import create
from pynetns.testing import FakeEngine, fake_engine

from .verbs import SLEEP, descriptors, events, files, left


def test_what_a_create_makes(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, name="web")
    assert (container.name, container.status) == ("web", "created")
    directory = f"{engine.root}/containers/{container.id}"
    document = json.loads(Path(f"{directory}/config.v2.json").read_text())
    assert (document["Name"], document["Path"], document["Args"]) == ("/web", "sleep", ["300"])
    assert set(os.listdir(directory)) >= {
        "config.v2.json", f"{container.id}-json.log", "hostconfig.json", "hostname", "hosts",
        "resolv.conf",
    }  # fmt: skip
    assert sorted(os.listdir(f"{engine.root}/overlay2/{container.id}")) == ["diff", "work"]
    assert events(engine) == ["create"]
    (event,) = engine.events()
    assert event.attributes == {"name": "web", "image": "host"}
    assert left(engine) == [] and engine.kernel.calls[-1].name != "shim.begin_spawn"


def test_another_engine_sees_it(engine: FakeEngine, directory: str) -> None:
    container = engine.containers.create("host", SLEEP, labels={"a": "b"})
    with fake_engine(directory, engine.machine) as other:
        found = other.containers.get(container.name)
        assert found.id == container.id and found.labels == {"a": "b"}


def test_a_name_is_found_where_none_is_given(engine: FakeEngine, monkeypatch) -> None:
    names = iter(["taken", "taken", "free"])
    monkeypatch.setattr(create, "random_name", lambda: next(names))
    assert engine.containers.create("host", SLEEP).name == "taken"
    assert engine.containers.create("host", SLEEP).name == "free"
    monkeypatch.setattr(create, "random_name", lambda: "taken")
    monkeypatch.setattr(create, "numbered_name", lambda: "numbered1")
    assert engine.containers.create("host", SLEEP).name == "numbered1"
    with pytest.raises(errors.Conflict, match="give --name"):
        engine.containers.create("host", SLEEP)


def test_the_slash_of_a_name_is_docker_s(engine: FakeEngine) -> None:
    assert engine.containers.create("host", SLEEP, name="/web").name == "web"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"image": "nosuch"}, errors.NotFound, "No such image: nosuch.*import one"),
        ({"image": ""}, errors.InvalidParameter, "image : name one"),
        ({"name": "-x"}, errors.InvalidParameter, "--name '-x'"),
        ({"name": "taken"}, errors.Conflict, "taken"),
        ({"network_mode": "nosuch"}, errors.NotFound, "network nosuch not found"),
        ({"volumes": ["/proc/x:/proc/x"]}, errors.InvalidParameter, "inside /proc"),
        ({"ports": {"80/tcp": 99999}}, errors.InvalidParameter, "port"),
        ({"log_config": {"Type": "syslog"}}, errors.InvalidParameter, "syslog"),
        ({"devices": ["/nosuch"]}, errors.PynetnsError, "/nosuch"),
    ],
)
def test_what_is_refused_leaves_nothing(engine: FakeEngine, options, error, text) -> None:
    engine.containers.create("host", SLEEP, name="taken")
    before, open_before = files(engine), descriptors(engine)
    image = options.pop("image", "host")
    with pytest.raises(error, match=text):
        engine.containers.create(image, SLEEP, **options)
    assert files(engine) == before and descriptors(engine) == open_before
    assert events(engine) == ["create"]
    assert [c.name for c in engine.containers.list(all=True)] == ["taken"]


def test_an_image_s_configuration_is_what_the_user_left_open(engine: FakeEngine, tmp_path) -> None:
    (tmp_path / "etc").mkdir()
    changes = [
        "ENV A=1", "ENV B=2", "ENTRYPOINT [\"run\"]", "CMD [\"x\"]", "WORKDIR /w", "USER 7",
        "LABEL l=1", "EXPOSE 80", "STOPSIGNAL SIGINT",
    ]  # fmt: skip
    engine.images.import_rootfs(str(tmp_path), "app", changes=changes)
    config = engine.containers.create("app", environment={"B": "3"}).attrs["Config"]
    assert config["Env"] == ["A=1", "B=3"]
    assert (config["Entrypoint"], config["Cmd"]) == (["run"], ["x"])
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/w", "7", "SIGINT")
    assert config["Labels"] == {"l": "1"} and list(config["ExposedPorts"]) == ["80/tcp"]
    own = engine.containers.create(
        "app", ["y"], entrypoint="other", working_dir="/v", user="8", labels={"l": "2"}
    ).attrs["Config"]
    assert (own["Entrypoint"], own["Cmd"]) == (["other"], ["y"])
    assert (own["WorkingDir"], own["User"], own["Labels"]) == ("/v", "8", {"l": "2"})
    bare = engine.containers.create("app", ["y"], entrypoint=[""]).attrs["Config"]
    assert (bare["Entrypoint"], bare["Cmd"]) == (None, ["y"])


def test_no_command_at_all(engine: FakeEngine, tmp_path) -> None:
    engine.images.import_rootfs(str(tmp_path), "empty")
    with pytest.raises(errors.InvalidParameter, match="No command specified"):
        engine.containers.create("empty")


@pytest.mark.parametrize(
    "step", ["create_files", "create_log", "write_record", "make_directory", "register_name"]
)
@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_step_that_fails_leaves_nothing(
    engine: FakeEngine, monkeypatch, step: str, failure: BaseException
) -> None:
    done: list[int] = []
    real = getattr(create, step)

    def fail(*args, **options):
        done.append(1)
        if step == "make_directory" and len(done) < 3:
            return real(*args, **options)
        raise failure

    monkeypatch.setattr(create, step, fail)
    open_before = descriptors(engine)
    expected = errors.Unavailable if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        engine.containers.create("host", SLEEP, name="web")
    monkeypatch.undo()
    assert done and files(engine) == [] and events(engine) == []
    assert engine.store.containers() == [] and descriptors(engine) == open_before
    assert engine.containers.create("host", SLEEP, name="web").name == "web"


def test_a_ghost_gives_its_name_back(engine: FakeEngine) -> None:
    ghost = engine.containers.create("host", SLEEP, name="web")
    os.unlink(f"{engine.root}/containers/{ghost.id}/hostconfig.json")
    container = engine.containers.create("host", SLEEP, name="web")
    assert container.id != ghost.id
    assert [c.id for c in engine.containers.list(all=True)] == [container.id]


def test_limits_are_checked_against_the_machine(engine: FakeEngine) -> None:
    container = engine.containers.create("host", SLEEP, mem_limit="64m", pids_limit=5)
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    with pytest.raises(errors.InvalidParameter):
        engine.containers.create("host", SLEEP, mem_limit="1k")
