"""What the command line says and answers when its descriptors are closed, full or read by nobody;
when a program's background jobs hold them; and when whoever runs it goes away."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys

import pytest

from pynetns.kernel.pidfd import ended

from .test_cli import command

pytestmark = pytest.mark.root
FULL = "pynetns: standard output : No space left on device"


@pytest.fixture
def shell(place):
    """Run a shell line in which `px` is the command line on the test's own root."""
    px = f'px() {{ {shlex.join(command(place))} "$@"; }}\n'

    def run(line: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", px + line], capture_output=True, text=True, timeout=60, **options
        )

    return run


@pytest.fixture
def web(engine):
    """A container that runs."""
    return engine.containers.run("host", ["sleep", "1000"], detach=True, name="web", network="none")


RUN = "px run --rm --network none host sh -c"


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        (f"{RUN} 'exit 3' >&-", 3, "", ""),
        (f"{RUN} 'echo x; exit 3' >&-", 3, "", ""),
        (f"{RUN} 'echo x; exit 3' 2>&-", 3, "x\n", ""),
        (f"{RUN} 'echo x; exit 3' <&-", 3, "x\n", ""),
        (f"{RUN} 'exit 3' <&- >&- 2>&-", 3, "", ""),
        (f"{RUN} 'exit 3' >/dev/full", 3, "", ""),
        (f"{RUN} 'echo x; exit 3' >/dev/full", 3, "", FULL),
        (f"{RUN} 'seq 1 50000' >/dev/full", 1, "", FULL),
        (f"{RUN} 'echo x >&2' 2>/dev/full", 1, "", ""),
        ("px run --rm -i --network none host cat <&-", 0, "", ""),
        ("px exec web sh -c 'echo x; exit 4' >&-", 4, "", ""),
        ("px exec web sh -c 'echo x; exit 4' >/dev/full", 4, "", FULL),
        ("px exec -i web cat <&-", 0, "", ""),
        ("px start web >&-", 0, "", ""),
        ("px ps >&-", 0, "", ""),
        ("px ps >/dev/full", 1, "", FULL),
        ("px inspect web >/dev/full", 1, "", FULL),
        ("px images >/dev/full", 1, "", FULL),
        ("px info >/dev/full", 1, "", FULL),
        ("px version >/dev/full", 1, "", FULL),
        ("px --help >/dev/full", 1, "", FULL),
        ("px rm nothing 2>&-", 1, "", ""),
        ("px rm nothing 2>/dev/full", 1, "", ""),
        ("px nothing <&- >&- 2>&-", 125, "", ""),
    ],
)  # fmt: skip
def test_closed_and_full_descriptors(shell, web, line, code, out, err):
    result = shell(line)
    assert (result.returncode, result.stdout) == (code, out), result.stderr
    assert result.stderr.rstrip("\n") == err


@pytest.mark.parametrize(("verb", "done"), [("run -d", "started"), ("create", "created")])
def test_what_was_done_is_told_though_the_id_could_not_be_printed(shell, engine, verb, done):
    line = f"px {verb} --name made --network none host sleep 1000"
    assert shell(f"{line} >&-").returncode == 0
    engine.containers.get("made").remove(force=True)
    result = shell(f"{line} >/dev/full")
    made = engine.containers.get("made")
    assert result.returncode == 1
    assert result.stderr == f"{FULL} (container {made.id} was {done})\n"


def test_a_database_never_becomes_standard_output(shell, place):
    """The descriptors that are missing are /dev/null, whatever is opened later."""
    script = "import os, sys; from pynetns.cli.stdio import set_up; set_up(); " \
        "os.write(%d, b'x'); print(os.open('/', 0) > 2, file=open(sys.argv[1], 'w'))"  # fmt: skip
    for fd, closed in enumerate(("<&-", ">&-", "2>&-")):
        line = shlex.join([sys.executable, "-c", script % fd, f"{place.top}/said"])
        assert shell(f"{line} {closed}").returncode == 0
        assert (place.top / "said").read_text() == "True\n"
    assert (
        shell("px run -d --name dark --network none host sleep 1000 <&- >&- 2>&-").returncode == 0
    )
    assert shell("px ps -q").stdout != ""


def test_a_reader_that_goes_away_is_reported_as_docker_does(shell, engine):
    """The program goes on, its output is in the log; the command says why it ended."""
    result = shell("px run --name on --network none host seq 1 300000 | head -1; echo $PIPESTATUS")
    assert result.stdout == "1\n1\n"
    assert result.stderr == "pynetns: standard output : Broken pipe\n"
    container = engine.containers.get("on")
    assert container.wait()["StatusCode"] == 0
    assert container.logs(tail=1) == b"300000\n"


def test_exec_ends_with_its_program_not_with_its_background_jobs(web, shell):
    code, out = web.exec_run(["sh", "-c", "sleep 50 & echo $!"])
    assert code == 0
    assert web.exec_run(["kill", "-0", out.decode().strip()])[0] == 0, "it was waited for"
    pid = shell("px exec web sh -c 'sleep 50 & echo $!'").stdout.strip()
    assert web.exec_run(["kill", "-0", pid])[0] == 0, "it was waited for"


def test_all_that_the_program_itself_wrote_arrives(web, shell):
    """More than a pipe holds, while a background job goes on writing into the same pipe."""
    script = "sleep 50 & seq 1 60000; echo end"
    assert web.exec_run(["sh", "-c", script])[1].endswith(b"60000\nend\n")
    out = shell(f"px exec web sh -c '{script}' | (sleep 0.2; cat)").stdout
    assert out.startswith("1\n2\n") and out.endswith("60000\nend\n")
    assert b"own\n" in web.exec_run(["sh", "-c", "yes & echo own; sleep 0.1"])[1]


def test_foreground_run_ends_with_its_container(shell):
    result = shell("px run --rm --pid host --network none host sh -c 'sleep 1000 & echo $!'")
    assert result.returncode == 0  # longer than `shell` waits for it
    job = int(result.stdout)
    try:
        pidfd = os.pidfd_open(job)
    except ProcessLookupError:  # it has gone down with its container
        return
    assert ended(pidfd, 20)
    os.close(pidfd)


_DEAF = "trap 'echo got' INT TERM; echo ready; while :; do sleep 0.1; done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_third_request_ends_the_command_itself(place, engine, number):
    process = subprocess.Popen(
        command(place, "run", "--name", "deaf", "--network", "none", "host", "sh", "-c", _DEAF),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(number)
            assert process.stdout.readline() == "got\n"
        process.send_signal(number)
        assert process.wait(30) == 1
        assert "got 3 SIGTERM/SIGINTs, forcefully exiting" in process.stderr.read()
    assert engine.containers.get("deaf").status == "running"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_rm_is_done_by_whoever_looks_next_when_the_command_is_gone(place, shell, number):
    os.mkfifo(place.top / "fifo")
    script = "trap '' QUIT; echo ready; read x < /v/fifo"
    options = ["--sig-proxy=false", "--rm", "--network", "none", "-v", f"{place.top}:/v"]
    process = subprocess.Popen(
        command(place, "run", "--name", "last", *options, "host", "sh", "-c", script),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    pid = json.loads(shell("px inspect last").stdout)[0]["State"]["Pid"]
    pidfd = os.pidfd_open(pid)
    (place.top / "fifo").write_text("go\n")
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000)
    os.close(pidfd)
    assert shell("px ps -aq").stdout == ""
    assert shell("px inspect last").returncode == 1


@pytest.mark.parametrize("options", [["-it"], ["-t"], ["-i"], []])
def test_a_terminal_that_is_closed_leaves_the_rest_to_the_command(place, shell, options):
    """As docker's, the command stays until the program has ended, and then removes the container."""
    os.mkfifo(place.top / "fifo")
    script = "trap '' HUP; echo ready; read x < /v/fifo; echo more; exit 3"
    line = ["run", "--rm", *options, "--network", "none", "-v", f"{place.top}:/v"]
    pid, terminal = pty.fork()
    if pid == 0:
        words = command(place, *line, "host", "sh", "-c", script)
        os.execv(words[0], words)
    out = b""
    while b"ready" not in out:
        out += os.read(terminal, 1000)
    os.close(terminal)
    (place.top / "fifo").write_text("go\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert shell("px ps -aq").stdout == ""
