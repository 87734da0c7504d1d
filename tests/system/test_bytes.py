"""Bytes that are not UTF-8, and more and longer arguments than usual: they go through, or the kernel
says why not."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from pynetns import errors

from .test_cli import command

pytestmark = pytest.mark.root
ODD = b"x\xff\xc3(y\xed\xa0\x80"
TEXT = os.fsdecode(ODD)


@pytest.fixture
def px(place):
    def run(*args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command(place, *args), capture_output=True, timeout=60)

    return run


def ok(result: subprocess.CompletedProcess[bytes]) -> bytes:
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout


RUN = ("run", "--rm", "--network", "none")


@pytest.mark.parametrize(
    ("options", "program", "expected"),
    [
        ([], ["printf", "%s", TEXT], ODD),
        (["-e", f"ODD={TEXT}"], ["printenv", "ODD"], ODD + b"\n"),
        (["-w", f"/{TEXT}"], ["pwd"], b"/" + ODD + b"\n"),
        (["--tmpfs", f"/{TEXT}"], ["sh", "-c", "ls -d /x*"], b"/" + ODD + b"\n"),
        (["--device", f"/dev/null:/dev/{TEXT}"], ["sh", "-c", "echo /dev/x*"], b"/dev/" + ODD + b"\n"),
        (["-l", f"{TEXT}={TEXT}"], ["echo", "fine"], b"fine\n"),
        (["--entrypoint", "printf"], [TEXT], ODD),
    ],
)  # fmt: skip
def test_bytes_go_through(px, options, program, expected):
    assert ok(px(*RUN, *options, "host", *program)) == expected


def test_a_volume_of_such_a_name(px, place):
    os.mkdir(os.fsencode(place.top) + b"/" + ODD)
    volume = f"{place.top}/{TEXT}:/m/{TEXT}"
    assert ok(px(*RUN, "-v", volume, "host", "ls", "/m")) == ODD + b"\n"
    made = f"{place.top}/made/{TEXT}:/m"
    assert ok(px(*RUN, "-v", made, "host", "sh", "-c", "echo > /m/here")) == b""
    assert os.path.exists(os.fsencode(place.top) + b"/made/" + ODD + b"/here")


def test_what_is_told_of_such_a_container(px):
    options = ["--name", "odd", "--network", "none", "-e", f"A={TEXT}", "-l", f"k={TEXT}"]
    ok(px("run", "-d", *options, "host", "sh", "-c", "sleep 1000", TEXT))
    document = json.loads(ok(px("inspect", "odd")).decode())[0]
    assert document["Args"][-1] == TEXT
    assert document["Config"]["Labels"] == {"k": TEXT}
    assert json.loads(ok(px("ps", "--format", "json")).decode())["Labels"] == f"k={TEXT}"
    assert ODD in ok(px("ps", "--no-trunc"))
    assert ok(px("ps", "-q", "-f", f"label=k={TEXT}")) != b""
    assert ok(px("exec", "odd", "printf", "%s", TEXT)) == ODD
    assert (
        ok(px("exec", "-e", f"Q={TEXT}", "odd", "printenv", "A", "Q")) == ODD + b"\n" + ODD + b"\n"
    )
    ok(px("stop", "-t", "0", "odd"))
    ok(px("start", "odd"))  # as it was read back


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["run", "--name", TEXT, "host", "true"], 125, "--name"),
        (["run", "-h", TEXT, "host", "true"], 125, "--hostname"),
        (["run", "--domainname", TEXT, "host", "true"], 125, "--domainname"),
        (["run", "-u", TEXT, "host", "true"], 125, "--user"),
        (["run", "--network", TEXT, "host", "true"], 125, "--network"),
        (["run", TEXT], 125, "No such image"),
        (["inspect", TEXT], 1, "No such object"),
        (["exec", TEXT, "true"], 1, "No such container"),
        (["rm", TEXT], 1, "No such container"),
        (["rmi", TEXT], 1, "No such image"),
        (["import", "/tmp", TEXT], 125, "invalid reference"),
        (["ps", "-f", f"name={TEXT}"], 0, ""),
        (["run", "--network", "none", "host", f"/{TEXT}"], 127, "no such file"),
    ],
)
def test_names_are_refused_by_name(px, args, code, word):
    result = px(*args)
    assert result.returncode == code
    assert word in result.stderr.decode()
    assert result.stderr.count(b"\n") == (0 if code == 0 else 1)
    assert b"internal error" not in result.stderr


def test_a_root_of_such_a_name(px, place):
    place.root += f"/{TEXT}"
    assert ok(px(*RUN, "host", "echo", "fine")) == b"fine\n"


def test_the_error_of_a_start_is_bounded(engine):
    long = "/" + "/".join(["n" * 200] * 15)
    container = engine.containers.create("host", [long + "/x" * 400], network="none")
    with pytest.raises(errors.StartFailed):
        container.start()
    assert 0 < len(container.attrs["State"]["Error"]) <= 4096
    with pytest.raises(errors.StartFailed) as caught:
        engine.containers.run("host", ["true"], user="n" * 100_000, network="none")
    assert "unable to find user" in str(caught.value)
    assert all(len(c.attrs["State"]["Error"]) <= 4096 for c in engine.containers.list(all=True))


def test_the_kernel_says_what_is_too_long(engine, px):
    """MAX_ARG_STRLEN is 32 pages; execve(2) E2BIG. Neither 126 nor 127 without the program: 126."""
    with pytest.raises(errors.StartFailed, match=r"(?i)argument list too long") as caught:
        engine.containers.run("host", ["true", "x" * 200_000], network="none")
    assert caught.value.exit_code == 126
    container = engine.containers.run("host", ["sleep", "1000"], detach=True, network="none")
    with pytest.raises(errors.StartFailed, match=r"(?i)argument list too long"):
        container.exec_run(["true", "x" * 200_000])
    assert container.exec_run(["printf", "%s", "x" * 100_000]) == (0, b"x" * 100_000)


def test_nul_is_refused_before_anything_is_made(engine):
    for command_, options in (
        (["true\0"], {}),
        (["true"], {"environment": ["A=\0"]}),
        (["true"], {"working_dir": "/a\0"}),
        (["true"], {"labels": {"a": "\0"}}),
        (["true"], {"volumes": ["/tmp:/a\0"]}),
        (["true"], {"user": "a\0"}),
    ):
        with pytest.raises(errors.InvalidParameter):
            engine.containers.create("host", command_, network="none", **options)
    assert engine.containers.list(all=True) == []
    container = engine.containers.run("host", ["sleep", "1000"], detach=True, network="none")
    for command_, options in (
        (["true\0"], {}),
        (["true"], {"environment": ["A=\0"]}),
        (["true"], {"workdir": "/a\0"}),
        (["true"], {"workdir": "relative"}),
        (["true"], {"user": "a\0"}),
    ):
        with pytest.raises(errors.InvalidParameter):
            container.exec_run(command_, **options)
    assert shlex.split("true") == ["true"] and container.exec_run("true")[0] == 0
