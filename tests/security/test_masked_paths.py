"""What hides the kernel's files from a container, and every way to make it hide something else.

CVE-2025-31133: the null device that masks a path, replaced. CVE-2025-52565: the terminal that becomes
/dev/console, replaced. CVE-2025-52881 (and CVE-2019-19921, CVE-2019-16884): writes to /proc
redirected to another file. Each by a volume over /dev or /proc that the attacker has prepared, or
that another container keeps changing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pynetns.runtime.spec.create import MASKED_PATHS, READONLY_PATHS

from .conftest import stop_and_read, wait_for_line
from .images import SOME_DESCRIPTORS

MASKS = [f"m{path}" for path in MASKED_PATHS]
PATHS = [*MASKS, *(f"r{path}" for path in READONLY_PATHS)]
SHOW_MASKS = ["/attack", "integrity", *MASKS]
INTEGRITY = ["/attack", "integrity", *PATHS]
DOCKER_MASKS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
# Readable and telling, but no path that a start writes to.
KERNEL_FILE = "/proc/sys/kernel/core_pattern"
RACES = 30


def device_directory(path: Path) -> Path:
    """A /dev as an attacker prepares it: everything where it belongs."""
    path.mkdir()
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(path / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    os.mknod(path / "tty", stat.S_IFCHR | 0o666, os.makedev(5, 0))
    for name in ("pts", "shm", "mqueue"):
        (path / name).mkdir()
    return path


def unmasked(outcome) -> list[str]:
    """Masked paths that show or accept something."""
    return [line for line in outcome.lines("FAULT") if "masked" in line]


def test_the_check_sees_an_unmasked_path(attempt, workshop):
    """Positive control of all below: without masks the same check finds faults."""
    outcome = attempt(workshop.tree(), INTEGRITY, security_opt=["systempaths=unconfined"])
    assert "NOT INTACT" in outcome
    assert unmasked(outcome) and any("is writable" in line for line in outcome.lines("FAULT"))


def test_all_that_docker_masks_is_masked(attack, attempt, workshop):
    """A list of the test's own: moby daemon/pkg/oci/defaults.go, v28.2 and v29."""
    this = attack("masked paths", "each path that Docker masks, whatever the product's list says")
    outcome = attempt(workshop.tree(), ["/attack", "integrity", *(f"m{p}" for p in DOCKER_MASKS)])
    this.verdict(unmasked(outcome), outcome)


def test_default_container_is_intact(attack, attempt, workshop):
    this = attack("masked paths", "each masked and read-only path of a default container")
    outcome = attempt(workshop.tree(), INTEGRITY)
    this.verdict("INTACT" not in outcome or outcome.lines("FAULT"), outcome)


@pytest.mark.parametrize("host", [True, False], ids=["host", "rootfs"])
def test_walk_of_writable_kernel_files(attack, attempt, workshop, tmp_path, host):
    """Every file of /proc/sys and /sys, opened for writing."""
    name = "image host" if host else "a rootfs"
    this = attack("kernel files", f"every file of /proc/sys and /sys opened for writing ({name})")
    root = "host" if host else workshop.tree()
    extra = {"volumes": [f"{workshop.attack}:/attack:ro"]} if host else {}
    command = ["/attack", "walk", "/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"]
    control = attempt(root, command, privileged=True, **extra)
    this.control(control.lines("OPENED"), "in a privileged container")
    outcome = attempt(root, command, **extra)
    assert int(outcome.lines("walked")[0].split()[1]) > 100
    this.verdict(outcome.lines("OPENED"), outcome)


def replace_null(null: Path, how: str) -> None:
    null.unlink()
    if how == "a link":
        null.symlink_to(KERNEL_FILE)
    elif how == "a file":
        null.write_text("not null")
    elif how == "another device":
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif how == "a directory":
        null.mkdir()


def test_null_device_replaced_in_a_volume(attack, attempt, workshop, tmp_path):
    root, verdicts = workshop.tree(), []
    for how in ("absent", "a link", "a file", "another device", "a directory"):
        devices = device_directory(tmp_path / how)
        replace_null(devices / "null", how)
        this = attack("CVE-2025-31133", f"a volume on /dev in which null is {how}")
        outcome = attempt(root, SHOW_MASKS, volumes=[f"{devices}:/dev"])
        verdicts.append((this, unmasked(outcome), outcome))
    attack.judge(*verdicts)


def test_null_device_racing(attack, attempt, running, workshop, tmp_path):
    """Another container exchanges /dev/null for a link to a kernel file while containers start."""
    root, devices = workshop.tree(), device_directory(tmp_path / "dev")
    (devices / "other").symlink_to(KERNEL_FILE)
    this = attack(
        "CVE-2025-31133", f"null exchanged for a link by another container, {RACES} starts"
    )
    swapper = running(
        root, ["/attack", "swap", "/shared/null", "/shared/other"], volumes=[f"{devices}:/shared"]
    )
    wait_for_line(swapper, "swapping")
    outcomes = [attempt(root, SHOW_MASKS, volumes=[f"{devices}:/dev"]) for _ in range(RACES)]
    swaps = stop_and_read(swapper).split("swapped ")[1]
    this.control(int(swaps) > RACES, "as a race: nothing was exchanged")
    found = [str(outcome) for outcome in outcomes if unmasked(outcome)]
    this.verdict(found, found[:3])


def replace_terminal(devices: Path, victim, what: str) -> str:
    """Prepare `devices` for one attack; what it is mounted on."""
    if what.startswith("console"):
        host = victim.from_descriptor(int(what.split()[-1]), "made-by-console")
        (devices / "console").symlink_to(KERNEL_FILE if what == "console 0" else host)
        return "/dev"
    for number in range(4):
        (devices / "pts" / str(number)).symlink_to("/proc/sysrq-trigger")
    if what == "pts, ptmx a pipe":
        os.mkfifo(devices / "pts/ptmx")
    elif what == "pts, ptmx a secret":
        (devices / "pts/ptmx").symlink_to(victim.from_descriptor(8, "secret"))
    else:
        (devices / "pts/ptmx").symlink_to("/dev/other-pts/ptmx")
    return "/dev/pts"


def test_console_of_a_volume(attack, attempt, workshop, victim, tmp_path):
    """A terminal's file replaced: the bind mount of /dev/console lands on, or shows, something else."""
    root, verdicts = workshop.tree(), []
    consoles = [f"console {number}" for number in (0, *SOME_DESCRIPTORS)]
    for what in ("pts", "pts, ptmx a pipe", "pts, ptmx a secret", *consoles):
        devices = device_directory(tmp_path / what)
        target = replace_terminal(devices, victim, what)
        source = devices / "pts" if target == "/dev/pts" else devices
        if what in ("pts", "pts, ptmx a pipe", "pts, ptmx a secret", "console 0"):
            name = what.replace(" 0", ", a link to a kernel file")
            this = attack("CVE-2025-52565", f"-t with a volume on {target} that replaces {name}")
        elif what == consoles[1]:
            name = "console, a link to /proc/self/fd/N/../.."
            this = attack("CVE-2025-52565", f"-t with a volume on {target} that replaces {name}")
        outcome = attempt(root, INTEGRITY, tty=True, volumes=[f"{source}:{target}"])
        verdicts.append((this, kernel_faults(outcome) or victim.changes(), victim.changes()))
    attack.judge(*verdicts)


def kernel_faults(outcome) -> list[str]:
    """Faults of /proc and /sys, not those of a /dev that a user's volume replaces."""
    return [
        line for line in outcome.lines("FAULT") if line.split()[1].startswith(("/proc", "/sys"))
    ]


def test_console_racing(attack, attempt, running, workshop, victim, tmp_path):
    root, devices = workshop.tree(), device_directory(tmp_path / "dev")
    (devices / "console").write_text("")
    (devices / "other").symlink_to(victim.from_descriptor(8, "made-by-console"))
    this = attack("CVE-2025-52565", f"console exchanged for a link while {RACES} terminals start")
    swapper = running(
        root,
        ["/attack", "swap", "/shared/console", "/shared/other"],
        volumes=[f"{devices}:/shared"],
    )
    wait_for_line(swapper, "swapping")
    outcomes = [
        attempt(root, INTEGRITY, tty=True, volumes=[f"{devices}:/dev"]) for _ in range(RACES)
    ]
    this.control("swapped" in stop_and_read(swapper), "as a race")
    found = [line for outcome in outcomes for line in kernel_faults(outcome)]
    this.verdict(found or victim.changes(), found[:3] + victim.changes())


REDIRECTED = (
    "sys/net/ipv4/ip_forward", "net/ipv4/ip_forward", "self/oom_score_adj", "oom_score_adj",
    "self/attr/exec", "attr/exec", "exec", "thread-self/attr/exec",
)  # fmt: skip


def false_proc(volume: Path) -> list[Path]:
    """Files where a runtime writes below /proc, as seen from /proc and from directories in it."""
    for name in REDIRECTED:
        path = volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("untouched")
    return [volume / name for name in REDIRECTED]


def test_false_proc(attack, attempt, workshop, victim, tmp_path):
    """A volume poses as (part of) /proc, so that the runtime's own writes go where it says."""
    verdicts = []
    for target in ("/proc", "/proc/sys", "/proc/self", "/proc/self/attr", "/proc/1"):
        for via in ("", ", by a link of the image", ", by two links"):
            root = workshop.tree()
            volume = tmp_path / f"{target.replace('/', '-')}{via}"
            files = false_proc(volume)
            (root / "alias").symlink_to("other" if "two" in via else target)
            (root / "other").symlink_to(target)
            this = attack("CVE-2025-52881", f"a false {target} as a volume{via}")
            outcome = attempt(
                root,
                INTEGRITY,
                volumes=[f"{volume}:{'/alias' if via else target}"],
                sysctls={"net.ipv4.ip_forward": "1"},
                oom_score_adj=7,
            )
            written = [str(path) for path in files if path.read_text() != "untouched"]
            got = written or kernel_faults(outcome) or victim.changes()
            verdicts.append((this, got, f"{written} {outcome}"))
    attack.judge(*verdicts)


def test_redirected_sysctl(attack, attempt, workshop, victim, tmp_path):
    """The file that --sysctl writes is a link; its directory is the volume of another."""
    root, verdicts = workshop.tree(), []
    before = Path(KERNEL_FILE).read_text()
    for number, to in enumerate(("/proc/sysrq-trigger", KERNEL_FILE, "the host")):
        volume = tmp_path / f"volume{number}"
        volume.mkdir()
        link = victim.from_descriptor(8, "secret") if to == "the host" else to
        (volume / "ip_forward").symlink_to(link)
        this = attack("CVE-2025-52881", f"--sysctl through a link to {to} in a volume over it")
        outcome = attempt(
            root,
            INTEGRITY,
            volumes=[f"{volume}:/proc/sys/net/ipv4"],
            sysctls={"net.ipv4.ip_forward": "1"},
        )
        changed = victim.changes()
        if Path(KERNEL_FILE).read_text() != before:
            Path(KERNEL_FILE).write_text(before)
            changed.append(KERNEL_FILE)
        verdicts.append((this, changed or kernel_faults(outcome), f"{changed} {outcome}"))
    attack.judge(*verdicts)
