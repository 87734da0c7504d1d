"""exec, logs, attach and stdin of running containers, as docker has them."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pynetns import errors
from pynetns.client.containers import ContainerError
from pynetns.runtime.task import Attach

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


@pytest.fixture
def container(engine):
    return engine.containers.run("host", SLEEP, detach=True, hostname="box", environment=["A=1"])


def test_exec_runs_inside(container):
    code, out = container.exec_run(["sh", "-c", "hostname; echo $A; cat /proc/1/cmdline; exit 4"])
    assert code == 4
    assert out == b"box\n1\nsleep\x001000\x00"


def test_exec_shares_every_namespace(container):
    pid = container.attrs["State"]["Pid"]
    for name in ("mnt", "net", "uts", "ipc", "pid", "cgroup"):
        inside = container.exec_run(["readlink", f"/proc/self/ns/{name}"])[1].decode().strip()
        assert inside == os.readlink(f"/proc/{pid}/ns/{name}"), name


def test_exec_has_the_containers_privileges(container):
    out = container.exec_run(["cat", "/proc/self/status"])[1].decode()
    assert "CapEff:\t00000000a80425fb" in out
    assert "Seccomp:\t2" in out


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [
        ({"user": "nobody"}, "id -un", "nobody"),
        ({"user": "12:34"}, "echo $(id -u):$(id -g)", "12:34"),
        ({"workdir": "/etc"}, "pwd", "/etc"),
        ({"environment": {"B": "2"}}, "echo $A$B", "12"),
        ({"privileged": True}, "grep ^Seccomp: /proc/self/status | cut -f2", "0"),
        ({"tty": True}, "test -t 0 && echo terminal", "terminal"),
    ],
)
def test_exec_options(container, options, script, expected):
    code, out = container.exec_run(["sh", "-c", script], **options)
    assert (code, out.decode().strip()) == (0, expected)


@pytest.mark.parametrize(("command", "code"), [(["no-such-program"], 127), (["/etc/passwd"], 126)])
def test_exec_of_what_cannot_be_executed(container, command, code):
    with pytest.raises(errors.StartFailed) as caught:
        container.exec_run(command)
    assert caught.value.exit_code == code
    assert container.exec_run(["true"])[0] == 0


def test_exec_with_bad_directory_or_user(container):
    for options in ({"workdir": "/no/where"}, {"user": "nobody-of-this-name"}):
        with pytest.raises(errors.StartFailed) as caught:
            container.exec_run(["true"], **options)
        assert caught.value.exit_code == 126


def test_exec_needs_a_running_container(engine, container):
    container.kill()
    with pytest.raises(errors.Conflict, match="is not running"):
        container.exec_run(["true"])


def test_exec_detached(container):
    assert container.exec_run(["sh", "-c", "echo done > /flag"], detach=True) == (None, b"")
    script = "while ! test -s /flag; do sleep 0.02; done; cat /flag"
    assert container.exec_run(["sh", "-c", script])[1] == b"done\n"


def test_exec_leaves_nothing_behind_when_it_was_waited_for(engine, container):
    process = container.exec_start(["sh", "-c", "exit 3"])
    assert process.wait() == process.wait() == 3
    bundle = os.listdir(f"{engine.exec_root}/tasks/{container.id}")
    assert sorted(bundle) == ["config.json", "exit.tmp"]  # the container's own


def test_exec_with_stdin(container):
    reader, writer = os.pipe()
    out_reader, out_writer = os.pipe()
    process = container.exec_start(
        ["cat"], stdin=True, attach=Attach(stdin_fd=reader, stdout_fd=out_writer)
    )
    os.close(reader)
    os.close(out_writer)
    os.write(writer, b"through the pipe\n")
    os.close(writer)
    with open(out_reader, "rb") as out:
        assert out.read() == b"through the pipe\n"
    assert process.wait() == 0


def test_exec_ends_with_its_container(container):
    process = container.exec_start(SLEEP)
    container.kill()
    assert process.wait() == 137


def test_many_execs_at_once(container):
    results: list[tuple[int, bytes]] = []

    def work(n: int) -> None:
        for _ in range(5):
            results.append(container.exec_run(["sh", "-c", f"echo {n}; exit {n}"]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((n, f"{n}\n".encode()) for n in range(4) for _ in range(5))


def test_logs(engine):
    container = engine.containers.create("host", ["sh", "-c", "echo one; echo two >&2; echo three"])
    container.start()
    container.wait()
    assert sorted(container.logs().split()) == [b"one", b"three", b"two"]
    assert container.logs(stderr=False) == b"one\nthree\n"
    assert container.logs(stdout=False) == b"two\n"
    assert len(container.logs(tail=2).split()) == 2  # of both streams together, as in Docker
    stamp = container.logs(tail=1, timestamps=True).split()[0].decode()
    assert stamp.startswith(time.strftime("%Y-", time.gmtime())) and stamp.endswith("Z")


def test_logs_follow_until_the_end(engine):
    script = "for i in 1 2 3; do echo $i; sleep 0.1; done"
    container = engine.containers.run("host", ["sh", "-c", script], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"


def test_run_raises_for_another_exit_code(engine):
    with pytest.raises(ContainerError) as caught:
        engine.containers.run("host", ["sh", "-c", "echo bad >&2; exit 9"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (9, b"bad\n")
    assert engine.containers.list(all=True) == []


def test_attached_terminal_of_a_container(engine):
    container = engine.containers.create(
        "host", ["sh", "-c", "stty size; read line; echo got $line"], tty=True, stdin_open=True
    )
    in_reader, in_writer = os.pipe()
    out_reader, out_writer = os.pipe()
    container.start(Attach(stdin_fd=in_reader, stdout_fd=out_writer))
    os.close(in_reader)
    os.close(out_writer)
    os.write(in_writer, b"word\n")
    with open(out_reader, "rb") as out:
        assert b"got word" in out.read()
    os.close(in_writer)
    assert container.wait()["StatusCode"] == 0


def test_program_of_another_user_may_reopen_its_output(run):
    assert run(["sh", "-c", "echo again > /dev/stdout"], user="nobody") == "again\n"
