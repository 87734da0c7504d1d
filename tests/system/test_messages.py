"""What is refused says the cause and what to do about it, in one line."""

from __future__ import annotations

import subprocess

import pytest

from .test_cli import command

pytestmark = pytest.mark.root


@pytest.fixture
def px(place):
    def run(*args: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(place, *args), capture_output=True, text=True, timeout=60, **options
        )

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ulimit", "nofile=2000000000"], ["--ulimit nofile", "fs.nr_open", "lower value"]),
        (["--ulimit", "memlock=64m"], ["--ulimit memlock", "without a unit"]),
        (["--memory", "1k"], ["--memory", "at least 6m"]),
        (["--memory", "6143k"], ["--memory", "at least 6m"]),
        (["--memory-reservation", "1m"], ["--memory-reservation", "at least 6m"]),
        (["--ipc", "container:donor"], ["--ipc container:donor", "--ipc shareable"]),
        (["--cpu-period", "10ms"], ["--cpu-period '10ms'", "microseconds, without a unit"]),
        (["--cpu-quota", "1s"], ["--cpu-quota '1s'", "microseconds, without a unit"]),
        (["--cpu-shares", "1k"], ["--cpu-shares '1k'", "without a unit"]),
        (["--pids-limit", "1k"], ["--pids-limit '1k'", "processes, without a unit"]),
        (["--stop-timeout", "10s"], ["--stop-timeout '10s'", "seconds, without a unit"]),
        (["--oom-score-adj", "5%"], ["--oom-score-adj '5%'", "from -1000 to 1000"]),
        (["--shm-size", "1x"], ["--shm-size '1x'", "64m"]),
        (["--cpus", "1.5x"], ["--cpus '1.5x'", "0.5"]),
        (["--ulimit", "nofil=10"], ["--ulimit nofil", "did you mean nofile?"]),
        (["--cap-add", "NET_ADMN"], ["--cap-add", "did you mean NET_ADMIN?"]),
        (["--cap-drop", "cap_sysadmin"], ["--cap-drop", "did you mean SYS_ADMIN?"]),
        (["--log-opt", "max-sise=1m"], ["--log-opt max-sise", "did you mean max-size?"]),
        (["--log-driver", "jsonfile"], ["--log-driver 'jsonfile'", "did you mean json-file?"]),
        (["--mount", "type=bind,scr=/,dst=/x"], ["--mount", "'scr' (did you mean src?)"]),
        (["--network", "brigde"], ["--network", "(did you mean bridge?)", "container:NAME"]),
        (["-u", "nosuch"], ["nosuch", "--user takes a name", "or a number"]),
        (["--group-add", "nosuch"], ["nosuch", "--group-add take a name", "or a number"]),
        (["-w", "/etc/passwd"], ["--workdir", "/etc/passwd", "give a directory"]),
        (["--memry", "64m"], ["--memry", "did you mean --memory?"]),
        (["-p", "127.0.0.1:80"], ["127.0.0.1:80", "127.0.0.1::80"]),
    ],
)
def test_an_option_that_is_refused(px, engine, options, words):
    engine.containers.run("host", ["sleep", "1000"], detach=True, name="donor", network="none")
    result = px("run", "--rm", "--network", "none", *options, "host", "true")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (125, "", 1)
    for word in words:
        assert word in result.stderr
    assert [c.name for c in engine.containers.list(all=True)] == ["donor"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["run", "nothing", "true"], ["No such image: nothing", "pynetns import", "host"]),
        (["rnu", "host"], ["rnu", "did you mean run?"]),
        (["ps", "--fromat", "json"], ["--fromat", "did you mean --format?"]),
        (["ps", "-f", "nam=x"], ["--filter nam", "did you mean name?"]),
        (["ps", "--filter", "volume=x"], ["--filter volume", "accepted are ancestor"]),
        (["pull", "busybox"], ["pull", "no such command", "pynetns import FILE|DIR NAME"]),
        (["network", "ls"], ["network", "no such command", "run --network"]),
        (["volume", "ls"], ["volume", "no such command", "run -v"]),
    ],
)
def test_a_line_that_is_refused(px, line, words):
    result = px(*line)
    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    for word in words:
        assert word in result.stderr


def test_a_shareable_ipc_is_shared(engine, px):
    engine.containers.run(
        "host", ["sh", "-c", "echo shared > /dev/shm/file; exec sleep 1000"],
        detach=True, name="donor", network="none", ipc_mode="shareable",
    )  # fmt: skip
    line = "until [ -e /dev/shm/file ]; do sleep 0.05; done; cat /dev/shm/file"
    result = px(
        "run", "--rm", "--network", "none", "--ipc", "container:donor", "host", "sh", "-c", line
    )
    assert (result.returncode, result.stdout) == (0, "shared\n")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (["-v", "./data/x:/m"], "data/x"),
        (["-v", ".:/m"], "."),
        (["--mount", "type=bind,src=./data,dst=/m"], "data"),
        (["--mount", 'type=bind,"src=./with,comma",dst=/m'], "with,comma"),
    ],
)
def test_sources_start_where_the_command_is_given(px, tmp_path, options, path):
    (tmp_path / "data").mkdir()
    (tmp_path / "with,comma").mkdir()
    line = ["run", "--rm", "--network", "none", *options, "host", "sh", "-c", "echo > /m/here"]
    result = px(*line, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / path / "here").exists()


@pytest.mark.security
@pytest.mark.parametrize("path", ["relative", "/a/../../b", "/" + "n" * 256, "/n" * 2100])
@pytest.mark.parametrize("option", ["-w", "-v", "--tmpfs", "--mount", "--device"])
def test_a_bad_path_is_refused_before_anything_is_made(px, place, engine, option, path):
    source = f"{place.top}/source"
    value = {
        "-v": f"{source}:{path}",
        "--mount": f"type=bind,source=/tmp,target={path}",
        "--device": f"/dev/null:{path}",
    }.get(option, path)
    result = px("run", "--network", "none", option, value, "host", "true")
    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    assert engine.containers.list(all=True) == []
    assert not (place.top / "source").exists()
