"""CVE-2024-21626 in all its forms: a descriptor of the runtime as the way to the host.

Program, interpreter, PATH, working directory: whatever an image or `exec` may name is named through
/proc/self/fd/N, for every N that the shim may hold. CVE-2019-5736 follows from it: a program of the
host that runs over a hostile image can be overwritten.
"""

from __future__ import annotations

import shutil

import pytest

from .attack import UP
from .conftest import exec_outcome
from .images import DESCRIPTORS, SOME_DESCRIPTORS

CVE = "CVE-2024-21626"
RAN = ("HOST PROGRAM RAN", "took over")


def ran(text: object) -> bool:
    """Did a program of the host run?"""
    return any(mark in str(text) for mark in RAN)


@pytest.fixture
def bare_descriptor(victim):
    """What `bare` opens as descriptor 8: any directory of the host."""
    directory = victim.path.parent / "somewhere"
    directory.mkdir()
    return directory


def test_program_path_through_a_descriptor(attack, attempt, workshop, victim, bare_descriptor):
    root = workshop.tree(preload=True)
    this = attack(CVE, "entrypoint /proc/self/fd/N/../..: a program of the host, then overwritten")
    control = workshop.run_bare(
        root, bare_descriptor, "/", "/bin", victim.from_descriptor(8, "program")
    )
    this.control(
        "took over" in control and "OVERWROTE" in control, "in a runtime that keeps it open"
    )
    shutil.copy(workshop.program, victim.program)
    found = []
    for number in DESCRIPTORS:
        outcome = attempt(root, [victim.from_descriptor(number, "program")])
        found += [f"{number}: {outcome}"] if ran(outcome) else []
    this.verdict(found or victim.changes(), found + victim.changes())


def test_program_by_a_link_of_the_image(attack, attempt, workshop, victim):
    root = workshop.tree(preload=True)
    this = attack(CVE, "entrypoint /bin/server, a link to /proc/self/fd/N/../..")
    found = []
    for number in DESCRIPTORS:
        server = root / "bin" / f"server{number}"
        server.symlink_to(victim.from_descriptor(number, "program"))
        outcome = attempt(root, [f"/bin/server{number}"])
        found += [f"{number}: {outcome}"] if ran(outcome) else []
    this.verdict(found or victim.changes(), found + victim.changes())


@pytest.mark.parametrize("how", ["run", "exec"])
def test_path_that_lists_descriptors(
    attack, attempt, running, workshop, victim, bare_descriptor, how
):
    root = workshop.tree(preload=True)
    path = ":".join(victim.from_descriptor(number) for number in range(3, 250))
    this = attack(CVE, f"{how} with a PATH of descriptors: no number to be guessed")
    this.control(
        ran(workshop.run_bare(root, bare_descriptor, "/", path, "program")),
        "in a runtime that keeps one open",
    )
    shutil.copy(workshop.program, victim.program)
    if how == "run":
        outcome = attempt(root, ["program"], environment={"PATH": path})
    else:
        container = running(root, ["/attack", "sleep"])
        outcome = exec_outcome(container, ["program"], environment={"PATH": path})
    this.verdict(ran(outcome) or victim.changes(), outcome)


def test_exec_of_a_path_through_a_descriptor(attack, running, workshop, victim):
    root = workshop.tree(preload=True)
    for number in DESCRIPTORS:
        (root / "bin" / f"tool{number}").symlink_to(victim.from_descriptor(number, "program"))
    this = attack(CVE, "exec of /bin/tool, a link to /proc/self/fd/N/../.., then overwritten")
    container = running(root, ["/attack", "sleep"])
    outcomes = [exec_outcome(container, [f"/bin/tool{number}"]) for number in DESCRIPTORS]
    found = [str(outcome) for outcome in outcomes if ran(outcome)]
    this.verdict(found or victim.changes(), found + victim.changes())


@pytest.mark.parametrize("suffix", ["", f"{UP}", f"{UP}/VICTIM/made/here", f"{UP}/VICTIM"])
def test_workdir(attack, attempt, workshop, victim, bare_descriptor, suffix):
    """The directory is the host's, or directories are made there on the way."""
    root = workshop.tree()
    suffix = suffix.replace("/VICTIM", str(victim.path))
    shown = suffix.replace(str(victim.path), "/victim").replace(UP, "../..")
    this = attack(CVE, f"WORKDIR /proc/self/fd/N/{shown}")
    command = ["/attack", "open", "r", f"{UP}{victim.path}/secret"]
    control = workshop.run_bare(
        root, bare_descriptor, f"/proc/self/fd/8/{suffix}", "/bin", *command
    )
    this.control("OPENED" in control, "in a runtime that keeps it open")
    shutil.rmtree(victim.path / "made", ignore_errors=True)
    found = []
    for number in SOME_DESCRIPTORS:
        outcome = attempt(root, command, working_dir=f"/proc/self/fd/{number}/{suffix}")
        found += [f"{number}: {outcome}"] if "OPENED" in outcome else []
    this.verdict(found or victim.changes(), found + victim.changes())


def test_workdir_by_a_link_of_the_image(attack, attempt, workshop, victim):
    """`-w /app/data` is the user's own; that /app leads through a descriptor is the image's."""
    root = workshop.tree()
    this = attack(CVE, "WORKDIR /app/data, where /app is a link to /proc/self/fd/N/../..")
    command = ["/attack", "open", "r", f"{UP}{victim.path}/secret"]
    found = []
    for number in SOME_DESCRIPTORS:
        (root / f"app{number}").symlink_to(victim.from_descriptor(number))
        outcome = attempt(root, command, working_dir=f"/app{number}/data")
        found += [f"{number}: {outcome}"] if "OPENED" in outcome else []
    this.verdict(found or victim.changes(), found + victim.changes())


def test_exec_workdir(attack, running, workshop, victim):
    root = workshop.tree()
    this = attack(CVE, "exec -w /proc/self/fd/N/../.. and -w of a link to it")
    for number in DESCRIPTORS:
        (root / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
    container = running(root, ["/attack", "sleep"])
    command = ["/attack", "open", "r", f"{UP}{victim.path}/secret"]
    found = []
    for number in DESCRIPTORS:
        for directory in (
            f"/proc/self/fd/{number}",
            victim.from_descriptor(number),
            f"{victim.from_descriptor(number)}/made",
            f"/link{number}",
        ):
            outcome = exec_outcome(container, command, workdir=directory)
            found += [f"{directory}: {outcome}"] if "OPENED" in outcome else []
    this.verdict(found or victim.changes(), found + victim.changes())


@pytest.mark.parametrize("kind", ["#!", "ELF"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_interpreter(attack, attempt, running, workshop, victim, bare_descriptor, kind, how):
    """The kernel resolves an interpreter inside execve, when only close-on-exec protects."""
    root = workshop.tree(preload=True)
    this = attack(CVE, f"{how}: {kind} interpreter /proc/self/fd/N/../..")
    for number in SOME_DESCRIPTORS:
        target = victim.from_descriptor(number, "program" if kind == "#!" else "loader")
        name = root / f"script{number}"
        if kind == "#!":
            assert len(target) < 250
            name.write_text(f"#!{target}\n")
        else:
            name.write_bytes(elf_with_interpreter(workshop, target))
        name.chmod(0o755)
    control = workshop.run_bare(root, bare_descriptor, "/", "/bin", "/script8")
    this.control(ran(control), "in a runtime that keeps it open")
    shutil.copy(workshop.program, victim.program)
    if how == "run":
        outcomes = [attempt(root, [f"/script{number}"]) for number in SOME_DESCRIPTORS]
    else:
        container = running(root, ["/attack", "sleep"])
        outcomes = [exec_outcome(container, [f"/script{number}"]) for number in SOME_DESCRIPTORS]
    found = [str(outcome) for outcome in outcomes if ran(outcome)]
    this.verdict(found or victim.changes(), found + victim.changes())


def elf_with_interpreter(workshop, target: str) -> bytes:
    """A dynamic program whose PT_INTERP is `target`."""
    data = workshop.interpreted.read_bytes()
    place = b"/" + b"i" * 400
    assert data.count(place) == 1 and len(target) <= len(place)
    return data.replace(place, target.encode().ljust(len(place), b"\0"))
