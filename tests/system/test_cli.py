"""The command line as a user types it: a process of its own each time, exit codes, one-line errors."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def cli(place):
    """Run `pynetns …` on the test's own root."""

    def run(*args: str, **options) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 60)
        return subprocess.run(command(place, *args), capture_output=True, text=True, **options)

    return run


def command(place, *args: str) -> list[str]:
    roots = ["--root", place.root, "--exec-root", place.exec_root]
    return [sys.executable, "-m", "pynetns", *roots, *args]


def ok(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_run_prints_what_the_program_prints(cli):
    result = cli("run", "--rm", "host", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert ok(cli("ps", "-aq")) == ""


def test_detached_life(cli, place):
    container_id = ok(
        cli("run", "-d", "--name", "web", "host", "sh", "-c", "echo up; exec sleep 1000")
    ).strip()
    assert len(container_id) == 64
    assert ok(cli("ps", "-q")).strip() == container_id[:12]
    table = ok(cli("ps")).splitlines()
    assert table[0].split()[:3] == ["CONTAINER", "ID", "IMAGE"]
    assert table[1].startswith(container_id[:12]) and table[1].rstrip().endswith("web")
    inspect = json.loads(ok(cli("inspect", "web")))[0]
    assert inspect["Id"] == container_id and inspect["State"]["Running"]
    pid = ok(cli("inspect", "--format", "{{.State.Pid}}", "web")).strip()
    assert pid == str(inspect["State"]["Pid"])
    assert ok(cli("exec", "web", "echo", "inside")) == "inside\n"
    assert cli("exec", "web", "sh", "-c", "exit 9").returncode == 9
    assert ok(cli("exec", "-i", "web", "cat", input="typed")) == "typed"
    assert ok(cli("logs", "web")) == "up\n"
    assert ok(cli("stop", "-t", "0", "web")) == "web\n"
    assert ok(cli("wait", "web")) == "137\n"
    assert ok(cli("ps", "-q")) == ""
    assert "Exited (137)" in ok(cli("ps", "-a"))
    assert ok(cli("start", "web")) == "web\n"
    assert ok(cli("kill", "web")) == "web\n"
    assert ok(cli("rm", "web")) == "web\n"


def test_create_and_start_attached(cli):
    ok(cli("create", "--name", "one", "host", "sh", "-c", "echo attached; exit 4"))
    result = cli("start", "-a", "one")
    assert (result.returncode, result.stdout) == (4, "attached\n")


def test_stdin(cli):
    assert ok(cli("run", "--rm", "-i", "host", "cat", input="line\n")) == "line\n"
    assert ok(cli("run", "--rm", "host", "cat", input="not given\n")) == ""


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "host", "no-such-program"], 127, ["no-such-program"]),
        (["run", "host", "/etc/passwd"], 126, ["/etc/passwd"]),
        (["run", "nothing", "true"], 125, ["No such image", "nothing"]),
        (["run", "-m", "12q", "host", "true"], 125, ["--memory", "12q"]),
        (["run", "-p", "70000:80", "host", "true"], 125, ["70000"]),
        (["run", "-p", "x", "host", "true"], 125, ["x"]),
        (["run", "--ip", "1.2.3", "host", "true"], 125, ["--ip", "1.2.3"]),
        (["run", "--mac-address", "zz", "host", "true"], 125, ["--mac-address"]),
        (["run", "--cap-add", "FLY", "host", "true"], 125, ["--cap-add", "FLY"]),
        (["run", "--sysctl", "vm.swappiness=1", "host", "true"], 125, ["--sysctl", "vm.swappiness"]),
        (["run", "-v", "/tmp:/a/../b", "host", "true"], 125, [".."]),
        (["run", "-v", "named:/x", "host", "true"], 125, ["named"]),
        (["run", "--mount", "type=bind,source=/no/such/dir,target=/x", "host", "true"], 125, ["/no/such/dir"]),
        (["run", "--network", "nowhere", "host", "true"], 125, ["nowhere"]),
        (["run", "--cpus", "many", "host", "true"], 125, ["--cpus", "many"]),
        (["run", "--ulimit", "nothing=1", "host", "true"], 125, ["--ulimit", "nothing"]),
        (["run", "--tmpfs", "/x:bad=1", "host", "true"], 125, ["--tmpfs", "bad"]),
        (["run", "--security-opt", "sec=x", "host", "true"], 125, ["--security-opt"]),
        (["run", "--device", "/dev/nothing", "host", "true"], 125, ["--device", "/dev/nothing"]),
        (["run", "--restart", "always", "host", "true"], 125, ["--restart"]),
        (["run", "--name", "bad name", "host", "true"], 125, ["bad name"]),
        (["run", "--rootfs", "/no/such/dir", "true"], 125, ["--rootfs", "/no/such/dir"]),
        (["run", "--oom-score-adj", "5000", "host", "true"], 125, ["--oom-score-adj"]),
        (["run", "--shm-size", "0", "host", "true"], 125, ["--shm-size"]),
        (["run", "--no-such-option", "host", "true"], 125, ["--no-such-option"]),
        (["run"], 125, ["image"]),
        (["rm", "nothing"], 1, ["No such container: nothing"]),
        (["exec", "nothing", "true"], 1, ["No such container: nothing"]),
        (["logs", "nothing"], 1, ["No such container: nothing"]),
        (["inspect", "nothing"], 1, ["nothing"]),
        (["import", "/no/such/file", "x"], 1, ["/no/such/file"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(cli, place, args, code, words):
    result = cli(*args)
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines and lines[0].startswith("pynetns: "), result.stderr
    assert len(lines) == 1 and "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0]
    ids = [i for i in ok(cli("ps", "-aq")).split()]
    if code == 125:
        assert ids == []
    for container_id in ids:  # a failed start leaves a container to look at, as in Docker
        ok(cli("rm", container_id))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-w", "/etc/passwd"], "/etc/passwd"),
        (["-u", "nobody-such"], "unable to find user nobody-such"),
        (["-u", "0:nobodies"], "unable to find group nobodies"),
        (["-u", "2147483648"], "range 0-2147483647"),
        (["-u", "-1"], "range 0-2147483647"),
        (["--group-add", "nobodies"], "unable to find group nobodies"),
        (["--group-add", "-5"], "range 0-2147483647"),
    ],
)
def test_only_the_program_itself_answers_126_or_127(cli, options, word):
    """What fails before it is tried: run 125, start 1, exec 126, as docker 28 on 20.10."""
    result = cli("run", *options, "--network", "none", "--name", "one", "host", "true")
    assert (result.returncode, result.stderr.count("\n")) == (125, 1)
    assert word in result.stderr
    result = cli("start", "one")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    state = json.loads(ok(cli("inspect", "one")))[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 128) and word in state["Error"]
    if options[0] != "--group-add":
        ok(cli("run", "-d", "--network", "none", "--name", "two", "host", "sleep", "1000"))
        assert cli("exec", *options, "two", "true").returncode == 126


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bridge", "much-too-long-a-name"], "--bridge"),
        (["--bridge", "a/b"], "--bridge"),
        (["--bip", "1.2.3.4"], "bip"),
        (["--bip", "10.0.0.0/16"], "bip"),
    ],
)
def test_bad_global_option(place, options, word):
    line = [*command(place)[:3], *options, *command(place, "ps")[3:]]
    result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert result.returncode == 125, result.stderr
    assert word in result.stderr and result.stderr.count("\n") == 1


def test_signals_reach_the_program(place, cli):
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        command(place, "run", "--rm", "host", "sh", "-c", script),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 5


def test_killed_command_leaves_the_container_running(place, cli):
    script = "echo ready; sleep 0.5; echo later; exit 8"
    process = subprocess.Popen(
        command(place, "run", "--name", "kept", "host", "sh", "-c", script),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert ok(cli("wait", "kept")) == "8\n"
    assert ok(cli("logs", "kept")) == "ready\nlater\n"


def test_logs_follow_and_tail(cli):
    script = "for i in 1 2 3 4; do echo $i; done; exec sleep 1000"
    ok(cli("run", "-d", "--name", "talk", "host", "sh", "-c", script))
    deadline = time.monotonic() + 10
    while ok(cli("logs", "talk")).count("\n") < 4:
        assert time.monotonic() < deadline
    assert ok(cli("logs", "--tail", "2", "talk")) == "3\n4\n"
    ok(cli("kill", "talk"))
    assert ok(cli("logs", "-f", "talk")) == "1\n2\n3\n4\n"


def test_terminal(place):
    """On a real terminal: raw mode, window size, the program's exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    script = "stty size; read x; echo got $x; exit 6"
    process = subprocess.Popen(
        command(place, "run", "--rm", "-it", "host", "sh", "-c", script),
        stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    out = b""
    os.write(master, b"word\n")
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        out += data
    os.close(master)
    assert process.wait() == 6
    assert b"40 100" in out
    assert b"got word" in out


def test_trace_file(cli, tmp_path):
    path = tmp_path / "trace.json"
    assert ok(cli("run", "--rm", "--trace", str(path), "host", "echo", "x")) == "x\n"
    names = {e["name"] for e in json.loads(path.read_text())["traceEvents"]}
    assert {"container_start", "task_start", "shim_spawn", "mount /proc"} <= names


def test_import_and_images(cli, tmp_path):
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    image_id = ok(cli("import", str(tmp_path / "tree"), "tree:v2")).strip()
    assert image_id.startswith("sha256:")
    assert "tree" in ok(cli("images")) and "host" in ok(cli("images"))
    assert cli("rmi", "tree:v2").returncode == 0
    assert "tree" not in ok(cli("images"))


def test_cidfile_labels_filters(cli, tmp_path):
    cidfile = tmp_path / "cid"
    ok(cli("run", "-d", "--cidfile", str(cidfile), "-l", "app=x", "host", "sleep", "1000"))
    container_id = cidfile.read_text().strip()
    assert ok(cli("ps", "-q", "-f", "label=app=x")).strip() == container_id[:12]
    assert ok(cli("ps", "-q", "-f", "label=app=y")) == ""
    assert cli("run", "--cidfile", str(cidfile), "host", "true").returncode == 125


def test_doctor_info_version_gc_help(cli):
    result = cli("doctor")
    assert result.returncode == 0, result.stdout
    assert "overlay" in result.stdout
    assert json.loads(ok(cli("info", "--format", "json")))["Containers"] == 0
    assert "0.1.0" in ok(cli("version"))
    assert cli("gc").returncode == 0
    for verb in ("run", "ps", "exec", "logs"):
        assert "usage" in ok(cli(verb, "--help")).lower()


def test_output_into_a_closed_pipe_is_no_traceback(place):
    line = " ".join(command(place, "run", "--rm", "host", "seq", "1", "100000")) + " | head -1"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert result.stdout == "1\n"
    assert "Traceback" not in result.stderr
