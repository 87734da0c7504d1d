"""The starter's terminal: nothing inside may type into it (CVE-2005-4890 and kin)."""

from __future__ import annotations

import os
import pty
import select
import sys
from pathlib import Path

import pytest

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
