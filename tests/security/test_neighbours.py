"""One container cannot stop the others: shared limits used up, output without end, pipes kept open.

No timings: whether the engine answers at all, by commands of other processes, within seconds.
Fairness of CPU and disk without limits is not promised; see docs/security.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import wait_for_line
from .test_runtime_binary import shim_pid

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 30  # seconds, after which what takes one is taken to hang


# What others want meanwhile, in a process of its own: it may hang. Prints what it has done.
OTHERS = """
import sys, pynetns
root, exec_root, tree, name = sys.argv[1:5]
with pynetns.Engine(root, exec_root) as engine:
    print(engine.containers.run(rootfs=tree, command=["/attack", "say", "ran"], remove=True).decode())
    neighbour = engine.containers.get(name)
    print(neighbour.exec_run(["/attack", "say", "exec"])[1].decode())
    print("logs" if b"sleeping" in neighbour.logs() else "", flush=True)
    print("list" if neighbour in engine.containers.list() else "", flush=True)
    neighbour.stop(timeout=5)
    print("stop" if neighbour.wait(timeout=5)["StatusCode"] == 0 else "", flush=True)
"""


@pytest.fixture
def troubles(place, running, workshop):
    """What no longer works for others: a start, an exec, logs, list, stop and wait."""
    root = workshop.tree()
    neighbour = running(root, ["/attack", "sleep"])
    wait_for_line(neighbour, "sleeping")

    def troubles_() -> list[str]:
        argv = [sys.executable, "-c", OTHERS, place.root, place.exec_root, str(root), neighbour.id]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        others = subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            answer, _ = others.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.kill(shim_pid(place), signal.SIGKILL)  # without it the rest can be cleaned up
            others.kill()
            answer = "HANGS " + others.communicate()[0]
        missing = {"ran", "exec", "logs", "list", "stop"} - set(answer.split())
        return [f"no {', '.join(sorted(missing))}: {answer[-1000:]}"] if missing else []

    return troubles_


def test_fork_bomb(attack, running, workshop, troubles):
    this = attack("exhaustion", "a fork bomb under --pids-limit 60")
    container = running(workshop.tree(), ["/attack", "forks"], pids_limit=60)
    count = int(wait_for_line(container, "forked").split()[1])
    this.control(count > 40, f"as an attack: {count}")
    found = troubles()
    this.verdict(count > 60 or found, f"{count} processes, {found}")


def test_descriptors_used_up(attack, running, workshop, troubles):
    this = attack("exhaustion", "all the descriptors a container may have")
    container = running(workshop.tree(), ["/attack", "descriptors"])
    count = int(wait_for_line(container, "opened").split()[1])
    this.control(count > 500, f"as an attack: {count}")
    found = troubles()
    this.verdict(found, found)


def test_inotify_instances_used_up(attack, place, running, workshop, troubles):
    """The kernel counts them by user id, for the whole machine."""
    root = workshop.tree()
    this = attack("exhaustion", "all inotify instances of uid 0; then logs -f of another")
    speaker = running(root, ["sh", "-c", "echo first; sleep 2; echo last"])
    container = running(root, ["/attack", "inotify"])
    text = ""
    while "instances" not in text:  # no waiting for events: that is what the attack denies
        time.sleep(0.02)
        text = container.logs().decode()
    try:
        followed = b"".join(speaker.logs(stream=True, follow=True)).decode()
    except OSError as error:
        followed = str(error)
    found = troubles()
    container.remove(force=True)
    count, limit = int(text.split()[1]), Path("/proc/sys/fs/inotify/max_user_instances")
    this.control(0 < count <= int(limit.read_text()), f"as an attack: {count}")
    this.verdict(found or "last" not in followed, f"{count} instances: {followed} {found}")


def test_output_without_end(attack, running, workshop, troubles):
    this = attack("exhaustion", "two containers that print as fast as they can")
    root = workshop.tree()
    flood = [running(root, ["yes", ""]) for _ in range(2)]
    found = troubles()
    for container in flood:
        container.remove(force=True)
    this.verdict(found, found)


def test_pipes_kept_open_by_another(attack, running, workshop, troubles):
    """A program ends, a process it left in a shared pid namespace goes on printing."""
    root = workshop.tree()
    this = attack(
        "exhaustion", "`yes & exit` in a shared pid namespace: output outlives its container"
    )
    keeper = running(root, ["/attack", "sleep"])
    wait_for_line(keeper, "sleeping")
    running(
        root,
        ["sh", "-c", "for i in 1 2 3 4; do yes '' & done; exit"],
        pid_mode=f"container:{keeper.id}",
    )
    found = troubles()
    this.verdict(found, found)


def test_escape_sequences_stay_in_the_log(attempt, workshop):
    """As with Docker: `logs` gives what was printed, byte for byte; what a terminal makes of it is
    the reader's affair (docs/security.md)."""
    text = attempt(workshop.tree(), ["/attack", "say", "\033]0;title\007\033[2J"])
    assert "\033]0;title\007\033[2J" in text
