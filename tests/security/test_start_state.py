"""What a program begins with is the same whoever starts it, and holds nothing of the starter.

Everything a process inherits is looked at from inside; once started from a process in which all of it
is odd (starter.py), once from one in which nothing was changed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import wait_for_line
from .starter import KEYRING_MARK, SECRET
from .test_runtime_binary import shim_pid
from .test_terminal import in_a_terminal

REPOSITORY = Path(__file__).parents[2]
# What a program of a default container finds; None: whatever it is, the starter must not matter.
EXPECTED = {
    "descriptors": "0 1 2",
    "descriptors-of-init": "0 1 2",
    "dispositions": "",
    "signal-mask": "0",
    "uid": "0 0 0 gid 0 0 0 groups 0",
    "umask": "022",
    "securebits": "0",
    "no-new-privs": "0",
    "dumpable": "1",
    "keepcaps": "0",
    "thp-disable": "0",
    "personality": "0",
    "nice": "0",
    "scheduler": "0",
    "io-priority": None,
    "cpus": None,
    "timer-slack": "50000",
    "memory-policy": "0",
    "death-signal": "0",
    "subreaper": "0",
    "terminal": "No such device or address",
    "oom-score-adj": "0",
    "coredump-filter": "00000033",
    "directory": "/",
    "parent": "0",
    "session": None,
    "processes": None,
    "limits": None,
}


def state(text: str) -> dict[str, str]:
    """What `/attack state` printed."""
    pairs = (line.partition(" ")[::2] for line in text.splitlines() if line)
    found = {name: value.strip() for name, value in pairs}
    found["limits"] = str({name: found[name] for name in found if name.startswith("limit-")})
    return found


def start_from(place, tree: Path, directory: Path, *, clean: bool) -> tuple[str, dict, dict]:
    """(session keyring of the starter, state by run, state by exec)."""
    argv = [sys.executable, "-m", "tests.security.starter"]
    argv += [place.root, place.exec_root, str(tree), str(directory)]
    environment = {"PYTHONPATH": str(REPOSITORY), **({"CLEAN": "1"} if clean else {})}
    done = in_a_terminal(argv, environment).replace("\r", "")
    if "EXEC" not in done:
        return done, {}, {}
    by_run, by_exec = done.split("EXEC\n")
    keyring = ""
    if KEYRING_MARK in by_run:
        keyring, by_run = by_run.split(KEYRING_MARK)[1].split("\n", 1)
    return keyring.strip(), state(by_run), state(by_exec)


@pytest.fixture
def second_place(leak_check):
    from ..conftest import Place

    place = Place()
    yield place
    place.clean()


def test_nothing_of_the_starter_is_inherited(attack, place, second_place, workshop, victim):
    tree = workshop.tree()
    this = attack("inherited state", "a start that fails because of an odd starter")
    keyring, *dirty = start_from(place, tree, victim.path, clean=False)
    told, *clean = start_from(second_place, tree, victim.path, clean=True)
    this.control(clean[1], f"from a starter with nothing odd: {told[-2000:]}")
    this.verdict(not dirty[1], keyring[-2000:])
    verdicts = []
    for how, found, other in zip(("run", "exec"), dirty, clean, strict=True):
        for name, wanted in EXPECTED.items():
            this = attack("inherited state", f"{name} of a program by {how}, from an odd starter")
            assert name in found and name in other, f"{name} is not told: {found}"
            differs = found[name] != other[name] or (wanted is not None and found[name] != wanted)
            evidence = f"{found[name]!r} by {how}; clean {other[name]!r}, expected {wanted!r}"
            verdicts.append((this, differs, evidence))
        this = attack("inherited state", f"session keyring by {how}, from an odd starter")
        ring = found["session-keyring"]
        verdicts.append((this, ring == keyring or int(ring) < 0, f"{ring}, starter's {keyring}"))
        this = attack("inherited state", f"environment by {how}, from an odd starter")
        names = {name for name in found if name.startswith("env-")}
        secret = SECRET in str(found) or names != {"env-PATH", "env-HOSTNAME", "env-HOME"}
        verdicts.append((this, secret, sorted(names)))
    attack.judge(*verdicts)


def test_session_keyrings_differ(attack, attempt, workshop):
    this = attack("keys", "two containers with one session keyring")
    options = {"security_opt": ["seccomp=unconfined"]}
    rings = [attempt(workshop.tree(), ["/attack", "keys", "session"], **options) for _ in range(2)]
    assert all("KEY" in ring for ring in rings), rings
    this.verdict(rings[0].output == rings[1].output, rings)


def test_starter_that_ignores_its_children(attack, place, workshop):
    """SIG_IGN of SIGCHLD survives execve: the shim of such a starter must still see its children end."""
    tree = workshop.tree()
    this = attack(
        "inherited state", "SIGCHLD ignored by whoever starts the shim: nobody ever waits"
    )
    environment = {
        **os.environ,
        "PYNETNS_ROOT": place.root,
        "PYNETNS_EXEC_ROOT": place.exec_root,
        "PYTHONPATH": str(REPOSITORY),
    }
    argv = [
        sys.executable,
        "-m",
        "pynetns",
        "run",
        "--rm",
        "--rootfs",
        str(tree),
        "/attack",
        "say",
        "x",
    ]
    client = subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    try:
        output, _ = client.communicate(timeout=30)
        this.verdict(b"x" not in output or client.returncode != 0, output)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        os.kill(shim_pid(place), signal.SIGKILL)
        this.verdict(True, "it never returned")


@pytest.mark.parametrize("how", ["default", "--pid host"])
def test_shim_and_engine_out_of_reach(attack, attempt, engine, running, workshop, victim, how):
    """Their memory, files, descriptors and root; with --pid host they are seen, and shut all the same."""
    root = workshop.tree()
    container = running(root, ["/attack", "sleep"])
    wait_for_line(container, "sleeping")
    pids = [shim_pid(engine), os.getpid()]
    options = {"pid_mode": "host"} if "host" in how else {}
    script = "; ".join(
        f"cat /proc/{pid}/environ /proc/{pid}/maps 2>/dev/null; "
        f"/attack open r /proc/{pid}/fd/* /proc/{pid}/root /proc/{pid}/cwd /proc/{pid}/mem; "
        f"/attack open w /proc/{pid}/mem /proc/{pid}/exe"
        for pid in pids
    )
    this = attack(
        "shim and engine", f"memory, descriptors, root, environment read or written, {how}"
    )
    control = attempt(root, ["sh", "-c", script], pid_mode="host", privileged=True)
    this.control("OPENED" in control, "by a privileged container that sees them")
    outcome = attempt(root, ["sh", "-c", script], **options)
    refused = ("Permission denied", "Operation not permitted", "No such file or directory")
    got = [line for line in outcome.output.splitlines() if not line.startswith(refused)]
    this.verdict(got or not outcome.output, outcome)
