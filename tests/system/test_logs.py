"""Log drivers, their options and defaults, and `logs` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pynetns import errors
from pynetns.runtime.task import Attach

pytestmark = pytest.mark.root

WAITING = ["sh", "-c", "echo one; echo two >&2; exec sleep 1000"]


def command(place, *args: str) -> list[str]:
    roots = ["--root", place.root, "--exec-root", place.exec_root]
    return [sys.executable, "-m", "pynetns", *roots, *args]


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def log_config(container) -> dict:
    return container.attrs["HostConfig"]["LogConfig"]


# ---- options ----


def test_a_log_has_a_limit_by_default(engine):
    container = engine.containers.create("host", ["true"])
    limit = {"max-size": "32m", "max-file": "3"}
    assert log_config(container) == {"Type": "json-file", "Config": limit}
    path = f"{engine.root}/containers/{container.id}/{container.id}-json.log"
    assert container.attrs["LogPath"] == path
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_options_are_kept_and_shown(engine, place):
    options = {"max-size": "10m", "max-file": "4", "mode": "non-blocking", "max-buffer-size": "2m"}
    created = engine.containers.create(
        "host", ["true"], log_config={"Type": "local", "Config": options}
    )
    again = place.engine().containers.get(created.id)
    assert log_config(again) == {"Type": "local", "Config": options}
    assert again.attrs["LogPath"] == ""  # as Docker: only json-file's is for others to read
    assert os.listdir(f"{engine.root}/containers/{created.id}/local-logs") == ["container.log"]


def test_a_bad_option_leaves_nothing(engine):
    for config in (
        {"Type": "json-file", "Config": {"max-file": "0"}},
        {"Type": "local", "Config": {"max-buffer-size": "1m"}},
        {"Type": "json-file", "Config": {"labels": "a"}},
    ):
        with pytest.raises(errors.InvalidParameter, match="--log-opt"):
            engine.containers.create("host", ["true"], log_config=config)
    assert engine.containers.list(all=True) == []


def test_driver_none_keeps_nothing_and_says_so(engine, place):
    container = engine.containers.run(
        "host", ["echo", "lost"], detach=True, name="quiet", log_config={"Type": "none"}
    )
    container.wait()
    for options in ({}, {"stream": True}):
        with pytest.raises(errors.NotSupported, match="does not support reading"):
            container.logs(**options)
    names = os.listdir(f"{engine.root}/containers/{container.id}")
    assert not [name for name in names if "log" in name]
    result = subprocess.run(command(place, "logs", "quiet"), capture_output=True, text=True)
    expected = "pynetns: logs : configured logging driver does not support reading\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_driver_none_still_has_output_in_the_foreground(run):
    assert run(["echo", "shown"], log_config={"Type": "none"}) == "shown\n"


def test_a_container_of_before_log_options(engine, place):
    container = engine.containers.create("host", ["echo", "old"])
    path = Path(engine.root, "containers", container.id, "hostconfig.json")
    document = json.loads(path.read_text())
    del document["LogConfig"]
    path.write_text(json.dumps(document))
    again = place.engine().containers.get(container.id)
    assert log_config(again)["Config"] == {"max-size": "32m", "max-file": "3"}
    again.start()
    again.wait()
    assert again.logs() == b"old\n"


def test_defaults_of_a_root(place):
    os.makedirs(place.root)
    file = Path(place.root, "daemon.json")
    file.write_text('{"log-driver": "json-file", "log-opts": {"max-size": "5m"}}')
    engine = place.engine()
    assert log_config(engine.containers.create("host", ["true"]))["Config"] == {"max-size": "5m"}
    other = place.engine(log_driver="none")
    assert log_config(other.containers.create("host", ["true"])) == {"Type": "none", "Config": {}}
    assert other.info()["LoggingDriver"] == "none"
    file.write_text('{"log-optz": {}}')
    with pytest.raises(errors.InvalidParameter, match=r"daemon\.json : 'log-optz' is no key"):
        place.engine().containers.create("host", ["true"])


def test_defaults_of_the_command_line(place, tmp_path):
    file = tmp_path / "own.json"
    file.write_text('{"log-opts": {"max-size": "6m"}}')
    options = ["--config-file", str(file), "create", "--log-opt", "max-file=2", "host", "true"]
    created = subprocess.run(command(place, *options), capture_output=True, text=True)
    assert (created.returncode, created.stderr) == (0, "")
    container = place.engine().containers.get(created.stdout.strip())
    assert log_config(container)["Config"] == {"max-size": "6m", "max-file": "2"}
    file.write_text("{")
    failed = subprocess.run(command(place, *options), capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (125, "")
    assert failed.stderr.startswith(f"pynetns: {file} : is not valid JSON")
    assert failed.stderr.count("\n") == 1


# ---- reading ----


def test_stream_follows_line_by_line_as_in_docker_py(engine):
    container = engine.containers.run("host", ["sh", "-c", "echo a; read x; echo b"],
                                      detach=True, stdin_open=True)  # fmt: skip
    lines = container.logs(stream=True)
    assert next(lines) == b"a\n"
    container.kill()
    assert list(lines) == []
    assert list(container.logs(stream=True, follow=False)) == [b"a\n"]
    assert container.logs(True, False, False, False, 0) == b""


def test_follow_ends_by_ctrl_c_as_in_docker(engine, place):
    engine.containers.run("host", WAITING, detach=True, name="web")
    process = subprocess.Popen(
        command(place, "logs", "-f", "web"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr.readline() == b"two\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"one\n", b"")


def test_follow_ends_when_nobody_reads_any_more(engine, place):
    """`logs -f | head -1`: the container says nothing more, so no write would fail."""
    engine.containers.run("host", WAITING, detach=True, name="web")
    process = subprocess.Popen(
        command(place, "logs", "-f", "web"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert (first_line(process), process.stderr.readline()) == (b"one\n", b"two\n")
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_reader_that_has_enough_is_no_error(engine, place):
    container = engine.containers.run("host", ["seq", "200000"], detach=True, name="many")
    container.wait()
    process = subprocess.Popen(
        command(place, "logs", "many"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert first_line(process) == b"1\n"
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (141, b"")
    process.stderr.close()


def test_what_timestamps_show_is_a_time_for_since(engine, place):
    container = engine.containers.run("host", ["seq", "3"], detach=True, name="three")
    container.wait()
    shown = subprocess.run(
        command(place, "logs", "-t", "three"), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    second, third = (line.split()[0] for line in shown[1:])
    since = ["logs", "--since", third, "three"]
    assert subprocess.check_output(command(place, *since)).splitlines()[-1] == b"3"
    until = ["logs", "--details", "--until", second, "three"]
    assert b" 2" in subprocess.check_output(command(place, *until)).splitlines()


# ---- rotation, formats: what the shim writes ----


def log_files(engine, container) -> dict[str, int]:
    """Name and size of the files of a json-file log."""
    directory = f"{engine.root}/containers/{container.id}"
    prefix = f"{container.id}-json.log"
    names = [name for name in os.listdir(directory) if name.startswith(prefix)]
    return {name.removeprefix(prefix): os.stat(f"{directory}/{name}").st_size for name in names}


def numbered(last: int, count: int) -> bytes:
    return b"".join(b"%d\n" % n for n in range(last - count + 1, last + 1))


def test_a_log_is_rotated_and_read_as_one(engine):
    config = {"Config": {"max-size": "20k", "max-file": "3"}}
    container = engine.containers.run("host", ["seq", "3000"], detach=True, log_config=config)
    container.wait()
    files = log_files(engine, container)
    assert set(files) == {"", ".1", ".2"}
    assert all(size < 21_000 for size in files.values())
    lines = container.logs()
    count = lines.count(b"\n")
    assert 400 < count < 3000
    assert lines == numbered(3000, count)
    assert container.logs(tail=300) == numbered(3000, 300)
    assert b"".join(container.logs(stream=True)) == lines


def test_one_file_is_started_again(engine):
    config = {"Config": {"max-size": "20k"}}
    container = engine.containers.run("host", ["seq", "3000"], detach=True, log_config=config)
    container.wait()
    files = log_files(engine, container)
    assert set(files) == {""} and files[""] < 21_000
    lines = container.logs()
    assert lines and lines == numbered(3000, lines.count(b"\n"))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_following_a_log_that_rotates(engine, driver):
    """The writer waits for the reader now and then, so that nothing is rotated away unread."""
    config = {"Type": driver, "Config": {"max-size": "4k", "max-file": "40"}}
    script = "for i in $(seq 1500); do echo $i; [ $((i % 100)) = 0 ] && read x; done; exit 0"
    container = engine.containers.create(
        "host", ["sh", "-c", script], stdin_open=True, log_config=config
    )
    reader, writer = os.pipe()
    container.start(Attach(stdin_fd=reader))
    os.close(reader)
    seen = b""
    for line in container.logs(stream=True):
        seen += line
        if line.endswith(b"00\n"):
            os.write(writer, b"\n")
    os.close(writer)
    assert seen == numbered(1500, 1500)


def test_driver_local_keeps_every_byte(engine):
    script = (
        r"printf '\377\0\376\r\n'; printf 'ä\033[0m\n' >&2; head -c 40000 /dev/zero; printf end"
    )
    container = engine.containers.run(
        "host", ["sh", "-c", script], detach=True, log_config={"Type": "local"}
    )
    container.wait()
    assert container.logs(stderr=False) == b"\xff\0\xfe\r\n" + b"\0" * 40000 + b"end"
    assert container.logs(stdout=False) == "ä\033[0m\n".encode()
    assert container.logs(tail=1, stderr=False).endswith(b"end")


def test_driver_local_is_rotated(engine):
    config = {"Type": "local", "Config": {"max-size": "8k", "max-file": "2"}}
    container = engine.containers.run("host", ["seq", "3000"], detach=True, log_config=config)
    container.wait()
    directory = f"{engine.root}/containers/{container.id}/local-logs"
    assert sorted(os.listdir(directory)) == ["container.log", "container.log.1"]
    lines = container.logs()
    assert lines and lines == numbered(3000, lines.count(b"\n"))


def test_a_restarted_container_goes_on_in_its_log(engine):
    for driver in ("json-file", "local"):
        container = engine.containers.run(
            "host", ["echo", driver], detach=True, log_config={"Type": driver}
        )
        container.wait()
        container.start()
        container.wait()
        assert container.logs() == f"{driver}\n{driver}\n".encode()


def test_a_log_that_may_not_hold_its_program_back(engine):
    config = {"Config": {"mode": "non-blocking", "max-buffer-size": "64k"}}
    container = engine.containers.run("host", ["seq", "100000"], detach=True, log_config=config)
    assert container.wait()["StatusCode"] == 0
    lines = container.logs().splitlines()
    numbers = [int(line) for line in lines]
    assert numbers and numbers == sorted(set(numbers))  # some may be missing, none is moved
