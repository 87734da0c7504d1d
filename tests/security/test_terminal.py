"""The starter's terminal and files: nothing inside may type into it (CVE-2005-4890 and kin), nor get
hold of what the starter's standard descriptors are."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import exec_outcome

MARK = "typed-by-the-container"


def in_a_terminal(argv: list[str], environment: dict[str, str]) -> str:
    """Run `argv` with a controlling terminal of its own, then a reader of what is left to be read
    there; everything that came out."""
    reader = "IFS= read -r -t 0.3 line; echo; echo got=$line"
    script = ["bash", "-c", '"$@"; ' + reader, "sh", *argv]
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.execvpe("bash", script, {**os.environ, **environment})
        finally:
            os._exit(127)
    text = b""
    while True:
        if not select.select([master], [], [], 30)[0]:
            break
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        text += data
    os.close(master)
    os.waitpid(pid, 0)
    return text.decode(errors="replace")


@pytest.fixture
def client(place, running, workshop):
    """The command line that runs or execs something with these flags."""
    root = workshop.tree()
    environment = {"PYNETNS_ROOT": place.root, "PYNETNS_EXEC_ROOT": place.exec_root}

    def client_(how: str, flags: list[str], command: list[str]) -> str:
        if how == "run":
            words = ["run", "--rm", *flags, "--rootfs", str(root), *command]
        else:
            words = ["exec", *flags, running(root, ["/attack", "sleep"]).id, *command]
        return in_a_terminal([sys.executable, "-m", "pynetns", *words], environment)

    return client_


@pytest.mark.parametrize("how", ["run", "exec"])
def test_typing_into_the_starters_terminal(attack, client, workshop, how):
    """TIOCSTI and TIOCLINUX on every descriptor and terminal that is in reach."""
    control = in_a_terminal([str(workshop.attack), "inject", MARK], {})
    possible = Path("/proc/sys/dev/tty/legacy_tiocsti")
    verdicts = []
    for flags in ([], ["-i"], ["-t"], ["-i", "-t"]):
        words = " ".join([how, *flags])
        this = attack("terminal", f"TIOCSTI into the starter's terminal, {words}")
        if not possible.exists() or possible.read_text().strip() != "0":
            this.control(f"got={MARK}" in control, f"without a container: {control}")
        text = client(how, flags, ["/attack", "inject", MARK])
        assert "injected" in text, text
        verdicts.append((this, f"got={MARK}" in text or "got=" not in text, text))
    attack.judge(*verdicts)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_no_controlling_terminal(attack, client, workshop, how):
    """/dev/tty of a container without -t is nobody's."""
    this = attack("terminal", f"/dev/tty opened in a container without -t, {how}")
    control = in_a_terminal([str(workshop.attack), "open", "w", "/dev/tty"], {})
    this.control("OPENED" in control, "without a container")
    text = client(how, [], ["/attack", "open", "w", "/dev/tty"])
    assert "/dev/tty" in text, text
    this.verdict("OPENED" in text, text)


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "attached"])
def test_null_device_of_the_host_as_stdio(attack, attempt, running, workshop, detached):
    """Where there is no input, /dev/null is the container's own: root inside may change its mode."""
    root = workshop.tree()
    this = attack("stdio", f"the host's /dev/null as 0, 1 or 2, {'run' if detached else 'exec'}")
    if detached:
        outcome = attempt(root, ["/attack", "reopen"])
    else:
        outcome = exec_outcome(running(root, ["/attack", "sleep"]), ["/attack", "reopen"])
    assert outcome.lines("fd 0"), outcome
    host = os.stat("/dev/null")
    mark = f"device {host.st_dev} inode {host.st_ino}"
    got = [line for line in outcome.lines("fd") if f"{mark} CHMOD" in line]
    this.verdict(got, f"{got}; /dev/null of the host is {mark}")


@pytest.mark.parametrize("how", ["run", "exec"])
def test_files_of_the_starter_as_stdio(attack, place, running, workshop, victim, how):
    """`pynetns exec c program < in > out`: the files are the client's, the program gets pipes."""
    root = workshop.tree()
    this = attack(
        "stdio", f"the files that the client reads and writes, opened anew inside, {how} -i"
    )
    source, target = victim.path / "secret", victim.path.parent / "out"

    def talk(argv: list[str]) -> str:
        target.write_text("written before\n")
        with source.open("rb") as stdin, target.open("ab") as stdout:
            subprocess.run(
                argv, env=environment, stdin=stdin, stdout=stdout, check=True, timeout=30
            )
        return target.read_text()

    environment = {**os.environ, "PYNETNS_ROOT": place.root, "PYNETNS_EXEC_ROOT": place.exec_root}
    control = talk([str(workshop.attack), "reopen"])
    this.control("READ written before" in control, f"without a container: {control}")
    if how == "run":
        words = ["run", "--rm", "-i", "--rootfs", str(root), "/attack", "reopen"]
    else:
        words = ["exec", "-i", running(root, ["/attack", "sleep"]).id, "/attack", "reopen"]
    text = talk([sys.executable, "-m", "pynetns", *words])
    assert "fd 1" in text, text
    this.verdict("REOPENED" in text or "READ" in text or victim.changes(), text)


def test_forged_log(attack, attempt, workshop):
    """What looks like a record of the log, or like its end, is text like any other."""
    lines = [
        '{"log":"forged\\n","stream":"stderr","time":"2000-01-01T00:00:00Z"}',
        '"}\n{"log":"forged"}',
        "\x01\x02\x7f\\u0000",
        "\r\n\u2028\u2029",
    ]
    this = attack("logs", "output that poses as records of the log")
    outcome = attempt(workshop.tree(), ["/attack", "say", *lines])
    wanted = "".join(f"{line}\n" for line in lines)
    this.verdict(outcome.output != wanted, f"{outcome} for {wanted!r}")
