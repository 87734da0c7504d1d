"""Who a program is: users, groups, and the files of a hostile image that name them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pynetns.errors import PynetnsError

from .conftest import Memory, Outcome, exec_outcome

MEMORY = 64 << 20  # bytes; more than any sensible /etc/passwd needs


def identity(outcome) -> list[int]:
    """[uid, euid, suid, gid, egid, sgid, groups…], [] when the program did not run."""
    for line in outcome.lines("uid "):
        return [int(word) for word in line.split() if word.isdigit()]
    return []


@pytest.fixture
def as_user(attempt, running):
    """Run a command with -u, by run or by exec in a fresh container."""

    def as_user_(how: str, root: Path, command: list[str], user: str, **options):
        if how == "run":
            return attempt(root, command, user=user, **options)
        try:
            container = running(root, ["/attack", "sleep"], **options)
        except PynetnsError as error:
            return Outcome("", str(error))
        outcome = exec_outcome(container, command, user=user)
        container.remove(force=True)
        return outcome

    return as_user_


@pytest.mark.parametrize("how", ["run", "exec"])
def test_ids_and_groups(attack, as_user, workshop, how):
    """Real, effective and saved, and no group that was not asked for."""
    root, verdicts = workshop.tree(), []
    for user, expected in (
        ("", [0] * 6),
        ("0:0", [0] * 6),
        ("1000:1000", [1000] * 6),
        ("app", [1000] * 6),
        ("1000:0", [1000] * 3 + [0] * 3),
    ):
        this = attack("left-over ids", f"{how} -u {user or '(default)'}: another id or group")
        outcome = as_user(how, root, ["/attack", "ids"], user)
        found = identity(outcome)
        assert len(found) >= 6, outcome
        got = found[:6] != expected or set(found[6:]) - {expected[3]}
        verdicts.append((this, got, outcome))
    attack.judge(*verdicts)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_program_that_only_root_may_run(attack, attempt, as_user, workshop, how):
    """The kernel checks with the effective capabilities of the moment of execve."""
    root = workshop.tree()
    (root / "private").mkdir()
    (root / "private/tool").write_bytes(workshop.attack.read_bytes())
    (root / "private/tool").chmod(0o700)
    (root / "only").mkdir(mode=0o700)
    os.link(workshop.attack, root / "only/tool")
    this = attack(
        "exec -u", f"{how} -u 1000 of a file of mode 0700 of root, and in a directory of it"
    )
    this.control("x" in attempt(root, ["/private/tool", "say", "x"]), "as root")
    found = []
    for program in ("/private/tool", "/only/tool"):
        command = [program, "say", "GOT IN"]
        outcome = as_user(how, root, command, "1000")
        found += [str(outcome)] if "GOT IN" in outcome else []
    this.verdict(found, found)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_set_uid_program(attack, attempt, as_user, workshop, how):
    root = workshop.tree()
    (root / "setuid").write_bytes(workshop.attack.read_bytes())
    (root / "setuid").chmod(0o4755)
    this = attack("no-new-privileges", f"{how} -u 1000: a set-uid program of root becomes root")
    command = ["/setuid", "ids"]
    this.control(identity(attempt(root, command, user="1000"))[1:2] == [0], "without the option")
    outcome = as_user(how, root, command, "1000", security_opt=["no-new-privileges"])
    this.verdict(identity(outcome)[:3] != [1000] * 3, outcome)


HOSTILE_LINES = (
    ("1001:x:0:0::/root:/bin/sh", "1001"),
    ("1001:x:0:0::/root:/bin/sh", "1001:1001"),
    ("app:x:-1:0::/:/bin/sh", "app"),
    ("app:x:4294967295:4294967295::/:/bin/sh", "app"),
    ("app:x:4294967296:4294967296::/:/bin/sh", "app"),
    ("app:x:-4294967296:0::/:/bin/sh", "app"),
    ("app:x::::/bin/sh", "app"),
    ("app:x: 0:0::/:/bin/sh", "app"),
    ("app:x:0x0:0x0::/:/bin/sh", "app"),
    ("app\0:x:0:0::/:/bin/sh", "app"),
    ("app:x:\u0661\u0662:0::/:/bin/sh", "app"),
)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_hostile_passwd_line(attack, as_user, workshop, how):
    """The image may say who `app` is, but not that a number means another, nor root by nonsense."""
    verdicts = []
    for line, user in HOSTILE_LINES:
        root = workshop.tree()
        (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{line}\n")
        this = attack("CVE-2016-3697", f"{how} -u {user} where /etc/passwd says {line!a}")
        outcome = as_user(how, root, ["/attack", "ids"], user)
        expected = identity(outcome)[:3] == [1001] * 3 if user != "app" else outcome.refused
        verdicts.append((this, not expected, outcome))
    attack.judge(*verdicts)


def hostile_file(path: Path, kind: str, victim) -> None:
    path.unlink()
    if kind == "a gigabyte":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif kind == "a million lines":
        path.write_text("x:x:1:1::/:/bin/sh\n" * 50_000)
    elif kind == "one long line":
        path.write_text("app:x:1000:1000:" + "x" * 1_000_000)
    elif kind == "NUL bytes":
        path.write_bytes(b"root:x:0:0\0:/root:/bin/sh\n\0\0\0\napp:x:10\x0000:1000::/:/bin/sh\n")
    elif kind == "not UTF-8":
        path.write_bytes(b"\xff\xfe:x:0:0::/:/bin/sh\n\x80app:x:1000:1000::/:/bin/sh\n")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "a link to the host":
        path.symlink_to(f"../../../../../../../..{victim.path}/passwd")
    elif kind == "a magic link":
        path.symlink_to(f"/proc/self/root{victim.path}/passwd")
    else:
        path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_hostile_user_files(attack, attempt, as_user, workshop, victim, name):
    """Read in bounded memory, never from outside the root, and a start does not hang on them."""
    (victim.path / "passwd").write_text("app:x:0:0::/:/bin/sh\n")
    verdicts = []
    for kind in (
        "a gigabyte", "a million lines", "one long line", "NUL bytes", "not UTF-8", "a pipe",
        "a directory", "a device", "a link to the host", "a magic link", "a loop",
    ):  # fmt: skip
        root = workshop.tree()
        hostile_file(root / "etc" / name, kind, victim)
        this = attack("user files", f"/etc/{name} is {kind}; run and exec -u app, -g app")
        memory = Memory()
        memory.reset()
        outcomes = [attempt(root, ["/attack", "ids"], user="app:app")]
        outcomes.append(attempt(root, ["/attack", "ids"], user="1000", group_add=["app"]))
        outcomes.append(as_user("exec", root, ["/attack", "ids"], "app:app"))
        grown = memory.grown()
        bad = [  # root, or nothing at all
            str(outcome)
            for outcome in outcomes
            if 0 in identity(outcome)[:3] or not (identity(outcome) or outcome.refused)
        ]
        verdicts.append((this, bad or grown > MEMORY, f"{bad} {grown} bytes"))
    attack.judge(*verdicts)


def test_hostile_name_files(attack, attempt, running, workshop):
    """/etc/hosts and its kind are the engine's files in the container's hands: written inside, read
    outside at the next start."""
    names = "/etc/hosts /etc/resolv.conf /etc/hostname"
    this = attack(
        "user files", "hosts, resolv.conf, hostname blown up to a gigabyte, then a restart"
    )
    container = running(
        workshop.tree(), ["sh", "-c", f"/bin/busybox truncate -s 1G {names}; ls -l {names}"]
    )
    container.wait(timeout=20)
    this.control("1073741824" in container.logs().decode(), "inside")
    memory = Memory()
    memory.reset()
    outcome = ""
    try:
        container.start()
        container.wait(timeout=20)
    except PynetnsError as error:
        outcome = str(error)
    this.verdict(memory.grown() > MEMORY, f"{memory.grown()} bytes {outcome}")
