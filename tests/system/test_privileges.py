"""Whose privileges a program has, at start and by exec, whoever starts it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pynetns.errors import StartFailed

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


@pytest.fixture
def container(engine):
    return engine.containers.run("host", SLEEP, detach=True)


def status(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_another_user_cannot_execute_what_only_root_may(engine, how):
    script = "cp /bin/true /tmp/t; chmod 700 /tmp/t; mv /tmp/t /tmp/rootonly; exec sleep 1000"
    container = engine.containers.run("host", ["sh", "-c", script], detach=True)
    container.exec_run(["sh", "-c", "until test -x /tmp/rootonly; do :; done"])
    if how == "exec":
        with pytest.raises(StartFailed, match="Permission denied") as caught:
            container.exec_run(["/tmp/rootonly"], user="1000")
        assert caught.value.exit_code == 126
        return
    assert container.exec_run(["su", "-s", "/bin/sh", "nobody", "-c", "/tmp/rootonly"])[0] != 0


@pytest.mark.parametrize(
    ("started_as", "exec_as", "effective"),
    [("", "", True), ("", "1000", False), ("1000", "0", True), ("1000", "", False)],
)
def test_exec_has_the_capabilities_of_its_own_user(engine, started_as, exec_as, effective):
    container = engine.containers.run("host", SLEEP, detach=True, user=started_as)
    words = status(container.exec_run(["cat", "/proc/self/status"], user=exec_as)[1].decode())
    assert (int(words["CapEff"], 16) != 0) is effective
    assert int(words["CapBnd"], 16) == 0xA80425FB
    assert int(words["CapInh"], 16) == int(words["CapAmb"], 16) == 0


def test_exec_has_the_home_and_the_groups_of_its_user(engine):
    container = engine.containers.run("host", SLEEP, detach=True, group_add=["1234"])
    home = container.exec_run(["sh", "-c", "echo $HOME; id -G"], user="daemon")[1].decode().split()
    assert home[0] == "/usr/sbin"
    assert "1234" in home[1:]


def test_a_home_that_was_set_stays(engine):
    container = engine.containers.run("host", SLEEP, detach=True, environment=["HOME=/x"])
    assert container.exec_run(["sh", "-c", "echo $HOME"], user="daemon")[1] == b"/x\n"


def test_group_of_the_starter_is_not_the_programs(place):
    """Started by a process whose group is another: root inside is 0:0 all the same."""
    code = (
        "import os, sys; os.setgroups([4321]); os.setresgid(1234, 1234, 1234)\n"
        "import pynetns\n"
        f"with pynetns.Engine({place.root!r}, {place.exec_root!r}) as engine:\n"
        "    out = engine.containers.run('host', ['sh', '-c', 'id -g; id -G; stat -c %g /proc/self'])\n"
        "    sys.stdout.buffer.write(out)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["0", "0", "0"]


def test_every_container_has_a_session_keyring_of_its_own(engine, container):
    script = (
        "import ctypes; libc = ctypes.CDLL(None); import sys\n"
        "print(libc.syscall(250, 0, -3, 1))\n"  # KEYCTL_GET_KEYRING_ID of the session, create
    )
    python = os.path.realpath(
        sys.executable
    )  # a virtual environment may lie where image host has nothing
    options = {"security_opt": ["seccomp=unconfined"], "remove": True}
    ids = {engine.containers.run("host", [python, "-c", script], **options) for _ in range(3)}
    own = subprocess.run([python, "-c", script], check=True, capture_output=True).stdout
    assert len(ids) == 3
    assert own not in ids


def test_exec_into_a_container_that_may_have_no_process_more(engine):
    container = engine.containers.run("host", SLEEP, detach=True, pids_limit=1)
    for _ in range(3):
        code, out = container.exec_run(["cat", "/proc/self/cgroup", "/proc/self/status"])
        assert code == 0
        inside = container.exec_run(["cat", "/proc/1/cgroup"])[1]
        assert inside in out
        words = status(out.decode())
        assert words["CapEff"].strip() == "00000000a80425fb"
        assert words["Seccomp"].strip() == "2"


def test_sysctl_of_an_interface(engine):
    for _ in range(10):
        out = engine.containers.run(
            "host",
            ["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"],
            sysctls={"net.ipv4.conf.eth0.rp_filter": "2"},
            remove=True,
        )
        assert out == b"2\n"


def test_more_arguments_than_16_bits_count(engine):
    out = engine.containers.run(
        "host", ["sh", "-c", "echo $#", "x", *map(str, range(70000))], remove=True
    )
    assert out == b"70000\n"


def test_stdin_is_the_containers_own_null_device(engine):
    script = "stat -L -c %d /proc/self/fd/0; stat -c %d /dev/null; chmod 600 /proc/self/fd/0"
    before = os.stat("/dev/null")
    container = engine.containers.run("host", ["sh", "-c", script], detach=True)
    assert container.wait()["StatusCode"] == 0
    inside, dev = container.logs().split()
    assert inside == dev
    assert os.stat("/dev/null").st_mode == before.st_mode


@pytest.mark.parametrize("tty", [False, True])
def test_exec_leads_a_session_of_its_own(container, tty):
    script = "cut -d' ' -f5,6,7 /proc/self/stat; echo $$"
    code, out = container.exec_run(["sh", "-c", script], tty=tty)
    assert code == 0
    _, session, terminal, pid = out.decode().split()
    assert session == pid
    assert (terminal != "0") is tty


@pytest.mark.parametrize("tty", [False, True])
def test_a_pid_namespace_is_joined_with_a_proc_of_its_own(engine, container, tty):
    script = "readlink /proc/self >&2; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/$$/oom_score_adj; test -w /proc/sysrq-trigger || echo ro"
    other = engine.containers.run(
        "host", ["sh", "-c", script], detach=True, pid_mode=f"container:{container.id}", tty=tty,
        oom_score_adj=77,
    )  # fmt: skip
    assert other.wait()["StatusCode"] == 0
    words = other.logs(stderr=False).split()
    assert words[:2] == [b"sleep", b"1000"] or tty
    assert words[-2:] == [b"77", b"ro"]
