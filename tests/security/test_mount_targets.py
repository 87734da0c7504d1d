"""Where a mount, a directory or a device node is made: inside, whatever the image or a volume holds.

CVE-2021-30465, CVE-2024-45310, CVE-2019-19921, CVE-2023-27561 and kin: targets that are links,
also links that another container exchanges while containers start. Images in which the runtime's own
mount points are links or of the wrong type.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .attack import UP
from .conftest import stop_and_read, wait_for_line
from .images import SOME_DESCRIPTORS
from .test_masked_paths import INTEGRITY, kernel_faults

RACE_SECONDS = 2.5  # for each of the four
OWN_PATHS = (
    "proc", "sys", "dev", "etc", "etc/hosts", "etc/resolv.conf", "etc/hostname",
    "dev/pts", "dev/shm", "dev/mqueue", "sys/fs/cgroup",
)  # fmt: skip


def links_to(victim) -> dict[str, str]:
    """Ways to point out of the root, by name."""
    return {
        "an absolute link": str(victim.path / "directory"),
        "a link by ..": f"{UP}{victim.path}/directory",
        "a link through /proc/self/root": f"/proc/self/root/{UP}{victim.path}/directory",
        "a link through /proc/1/cwd": f"/proc/1/cwd/{UP}{victim.path}/directory",
        "a magic link": victim.from_descriptor(8, "directory"),
        "a dangling magic link": victim.from_descriptor(8, "made"),
        "a link to /proc/self": "/proc/self",
        "a loop": "loop",
    }


def replace(path: Path, kind: str, target: str) -> None:
    """Put something else where the runtime expects a directory or a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a file":
        path.write_text("of the image")
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if kind == "a loop" else target)


@pytest.mark.parametrize("name", OWN_PATHS)
def test_image_replaces_a_path_of_the_runtime(attack, attempt, workshop, victim, name):
    """Started or refused: nothing of the host is touched, and what starts is intact."""
    this = attack("hostile image", f"/{name} is a link (of 8 kinds), a file, a directory or a pipe")
    kinds = {**links_to(victim), "a file": "", "a directory": "", "a pipe": ""}
    found = []
    for kind, target in kinds.items():
        root = workshop.tree()
        replace(root / name, kind, target)
        outcome = attempt(root, INTEGRITY)
        faults = outcome.lines("FAULT")
        if faults or victim.changes():
            found.append(f"{kind}: {faults} {victim.changes()}")
    this.verdict(found, found)


def test_host_files_are_never_written_through_links(attack, attempt, workshop, victim):
    """/etc/hosts and its kind are bind mounts: a write inside reaches what was mounted, only."""
    this = attack("hostile image", "/etc/hosts, resolv.conf, hostname are links; written inside")
    root = workshop.tree()
    for name in ("hosts", "resolv.conf", "hostname"):
        (root / "etc" / name).symlink_to(f"{UP}{victim.path}/secret")
    files = "/etc/hosts /etc/resolv.conf /etc/hostname"
    outcome = attempt(root, ["sh", "-c", f"cat {files}; for f in {files}; do echo x > $f; done"])
    this.verdict(victim.SECRET in str(outcome) or victim.changes(), outcome)


@pytest.mark.parametrize("links", [1, 2])
def test_volume_target_is_a_link_to_a_kernel_path(attack, attempt, workshop, tmp_path, links):
    """What counts is where the target is after resolution, not how it is spelt."""
    verdicts = []
    volume = tmp_path / "volume"
    volume.mkdir()
    for target in ("/dev", "/proc", "/sys", "/proc/sys", "/sys/fs/cgroup", "/dev/pts", "/dev/shm"):
        for suffix in ("", "/made"):
            root = workshop.tree()
            (root / "one").symlink_to("/two" if links == 2 else target)
            (root / "two").symlink_to(target.lstrip("/"))
            this = attack(
                "CVE-2023-27561", f"a volume on /link{suffix}, {links} link(s) to {target}"
            )
            outcome = attempt(root, INTEGRITY, volumes=[f"{volume}:/one{suffix}"])
            faults = [
                f for f in outcome.lines("FAULT") if "unexpected mount" not in f or "/dev" not in f
            ]
            verdicts.append((this, faults, outcome))
    attack.judge(*verdicts)


def test_names_that_only_begin_like_kernel_paths(attempt, workshop, tmp_path):
    """/devdata is not /dev: links there are the image's own affair."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the volume")
    root = workshop.tree()
    (root / "srv").mkdir()
    for name in ("devdata", "process", "system"):
        (root / name).symlink_to("srv")
        outcome = attempt(root, ["cat", "/srv/file"], volumes=[f"{volume}:/{name}"])
        assert "of the volume" in outcome, f"{name}: {outcome}"


def options_at(tmp_path: Path, target: str) -> dict[str, dict]:
    """Options that make directories, files or nodes at `target`."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (tmp_path / "file").touch()
    return {
        "WORKDIR": {"working_dir": target},
        "-v directory": {"volumes": [f"{source}:{target}"]},
        "-v file": {"volumes": [f"{tmp_path}/file:{target}"]},
        "--tmpfs": {"tmpfs": {target: ""}},
        "--device": {"devices": [f"/dev/null:{target}"]},
        "--mount": {"mounts": [f"type=bind,source={source},target={target}"]},
    }


SOME_KINDS = ("WORKDIR", "-v directory", "--device")


@pytest.mark.parametrize("way", ["descriptor", "link of the image", "link in a volume"])
def test_nothing_is_made_on_the_host(attack, attempt, workshop, victim, tmp_path, way):
    """mkdir -p of a target whose way leads through a magic link."""
    volume = tmp_path / "volume"
    volume.mkdir()
    root = workshop.tree()
    for number in SOME_DESCRIPTORS:
        (root / f"app{number}").symlink_to(victim.from_descriptor(number))
        (volume / f"app{number}").symlink_to(victim.from_descriptor(number))
    verdicts = []
    for kind in options_at(tmp_path, "/x") if way != "link in a volume" else SOME_KINDS:
        this = attack("CVE-2024-45310", f"{kind} whose way is a {way} to the host")
        found: list[str] = []
        for number in SOME_DESCRIPTORS:
            target = {
                "descriptor": victim.from_descriptor(number, f"made/{number}"),
                "link of the image": f"/app{number}/made/{number}",
                "link in a volume": f"/volume/app{number}/made/{number}",
            }[way]
            options = options_at(tmp_path, target)[kind]
            if way == "link in a volume":
                options["volumes"] = [f"{volume}:/volume", *options.get("volumes", [])]
            attempt(root, ["/attack", "say", "started"], **options)
            found = victim.changes()
            if found:
                break
        verdicts.append((this, found, found))
        shutil.rmtree(victim.path / "made", ignore_errors=True)
    attack.judge(*verdicts)


def test_device_over_a_link(attack, attempt, workshop, victim):
    this = attack("CVE-2024-45310", "--device …:/opt/d where /opt/d or /opt is a link to the host")
    found = []
    for number in SOME_DESCRIPTORS:
        for name in ("opt", "opt/d"):
            root = workshop.tree()
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).symlink_to(
                victim.from_descriptor(number, "node"[: 4 * (name == "opt/d")])
            )
            attempt(root, ["/attack", "say", "x"], devices=["/dev/null:/opt/d"])
            found += victim.changes()
    this.verdict(found, found)


class Race:
    """A container that exchanges `d` and `link` in a shared volume until told to stop."""

    def __init__(self, running, root: Path, volume: Path) -> None:
        self.container = running(
            root, ["/attack", "swap", "/v/d", "/v/link"], volumes=[f"{volume}:/v"]
        )
        wait_for_line(self.container, "swapping")

    def stop(self) -> int:
        """How many exchanges there were."""
        return int(stop_and_read(self.container).split("swapped ")[1])


def host_mounts() -> list[str]:
    return sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.mark.parametrize("to", ["/", "/proc", "the host by a descriptor", "the host by .."])
def test_race_of_mount_targets(attack, attempt, running, workshop, victim, tmp_path, to):
    """Volumes, tmpfs and devices below a directory that turns into a link and back."""
    root, volume, other = workshop.tree(), tmp_path / "volume", tmp_path / "other"
    for directory in (volume / "d", other):
        directory.mkdir(parents=True)
    (volume / "link").symlink_to(
        {
            "the host by a descriptor": victim.from_descriptor(8),
            "the host by ..": f"{UP}{victim.path}",
        }.get(to, to)
    )
    this = attack("CVE-2021-30465", f"mount targets below a directory that becomes a link to {to}")
    before = host_mounts()
    race = Race(running, root, volume)
    if to == "the host by ..":
        this.control(wins_against_plain_mkdir(volume, victim), "against a plain mkdir -p")
    found, starts = [], 0
    end = time.monotonic() + RACE_SECONDS
    while time.monotonic() < end or starts < 8:
        starts += 1
        outcome = attempt(
            root,
            INTEGRITY,
            volumes=[f"{volume}:/v", f"{other}:/v/d/sys", f"{other}:/v/d/made/deep"],
            tmpfs={"/v/d/self": ""},
            devices=["/dev/null:/v/d/node"],
        )
        found += kernel_faults(outcome)
    swaps = race.stop()
    this.control(swaps > 1000, f"as a race: {swaps} exchanges, {starts} starts")
    if host_mounts() != before:
        found.append("mounts of the host changed")
    this.verdict(found or victim.changes(), found[:5] + victim.changes())


def wins_against_plain_mkdir(volume: Path, victim) -> bool:
    """Positive control of the race: directories made by plain path calls end up on the host."""
    for number in range(20000):
        try:
            os.makedirs(volume / "d" / f"control{number}" / "x")
        except OSError:
            continue
        if victim.changes():
            for path in victim.path.glob("control*"):
                shutil.rmtree(path)
            return not victim.changes()
    return False


def test_two_containers_race_for_the_same_targets(attack, attempt, workshop, victim, tmp_path):
    """Two starts at once make the same directories of one shared volume, while it is emptied."""
    root, volume = workshop.tree(), tmp_path / "volume"
    volume.mkdir()
    this = attack(
        "CVE-2024-45310", "two starts make targets in a volume that a third keeps emptying"
    )
    stop, links = threading.Event(), []

    def empty() -> None:
        while not stop.is_set():
            shutil.rmtree(volume / "d", ignore_errors=True)
            try:
                os.symlink(victim.from_descriptor(8), volume / "d")
                links.append(volume)
                os.unlink(volume / "d")
            except OSError:
                continue

    def start(_) -> list[str]:
        volumes = [f"{volume}:/v", f"{tmp_path}:/v/d/deep/er"]
        return kernel_faults(attempt(root, INTEGRITY, volumes=volumes))

    thread = threading.Thread(target=empty)
    thread.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            found = [fault for faults in pool.map(start, range(20)) for fault in faults]
    finally:
        stop.set()
        thread.join()
    this.control(links, "no link was ever in the way")
    this.verdict(found or victim.changes(), found + victim.changes())
