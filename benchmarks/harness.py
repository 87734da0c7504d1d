"""What all benchmarks share: a place to run in, the observer of the end mark, quantiles, facts.

Owns: the private namespaces, the work directory with its root file system and FIFO, the watcher
process. Knows nothing of any contender. Every contender runs in the same fresh network and mount
namespace, so that nothing of the machine is changed and none has a longer mount table than another.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
sys.path.append(str(HERE.parent))  # a source tree need not be installed to be measured

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_ROOT_DIRS = ("proc", "dev", "sys", "etc", "tmp", "run", "mnt", "mark")
_NAME_FILES = ("hosts", "hostname", "resolv.conf")
CGROUPS = Path("/sys/fs/cgroup")


def run(*command: str | Path) -> None:
    """Run a command; its error output becomes the exception's text."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip() or done.returncode}")


def isolate() -> None:
    """Move this process into a network and mount namespace of its own, with a /run of its own.

    /sys is mounted anew, because it shows the network namespace of its mounter; the cgroup
    hierarchies are carried over.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) < 0:
        raise SystemExit(f"unshare: {os.strerror(ctypes.get_errno())} (must run as root)")
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    os.mkdir("/run/cgroup")
    run("mount", "--rbind", CGROUPS, "/run/cgroup")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    run("mount", "--rbind", "/run/cgroup", CGROUPS)
    run("umount", "-R", "/run/cgroup")
    run("ip", "link", "set", "lo", "up")


@dataclass(frozen=True)
class Workspace:
    """Directories of one run, all below `path`.

    rootfs: "plain" (an almost empty directory) or "host" (the machine's own files, as one more
    overlay below the containers'). mark_destination: where the mark directory appears inside.
    program and fifo: paths inside.
    """

    path: Path
    rootfs: str
    stay: bool

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def plain(self) -> Path:
        return self.path / "rootfs"

    @property
    def mark(self) -> Path:
        return self.path / "mark"

    @property
    def mark_destination(self) -> str:
        # the host has /mnt; making a mount point would be work that the others do not have
        return "/mnt" if self.rootfs == "host" else "/mark"

    @property
    def program(self) -> str:
        return "/mnt/probe" if self.rootfs == "host" else "/probe"

    @property
    def fifo(self) -> str:
        return f"{self.mark_destination}/fifo"

    def command(self) -> list[str]:
        """argv of the container's program."""
        return [self.program, *(["-w"] if self.stay else []), self.fifo]

    def plain_command(self) -> list[str]:
        """The same, for contenders that always take the plain root file system."""
        return ["/probe", *(["-w"] if self.stay else []), "/mark/fifo"]

    def directory(self, *parts: str) -> Path:
        """A subdirectory, made if missing."""
        path = self.path.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def cgroup_v2(self) -> Path:
        """The v2 hierarchy's mount point."""
        return CGROUPS if (CGROUPS / "cgroup.procs").exists() else CGROUPS / "unified"


def open_workspace(rootfs: str = "plain", stay: bool = False, base: str = "/tmp") -> Workspace:
    """Make the directories, the root file system and the FIFO. `close_workspace` removes them."""
    if not (BUILD / "floor").exists():
        run(HERE / "setup.sh")
    work = Workspace(Path(tempfile.mkdtemp(prefix="pnbench-", dir=base)), rootfs, stay)
    work.path.chmod(0o755)
    for name in _ROOT_DIRS:
        work.directory("rootfs", name)
    for name in _NAME_FILES:
        (work.plain / "etc" / name).touch()
    work.mark.mkdir()
    for place in (work.plain, work.mark):
        shutil.copy(BUILD / "probe", place / "probe")
    os.mkfifo(work.mark / "fifo")
    return work


def close_workspace(work: Workspace) -> None:
    """Remove the mounts of the run, its cgroups and its directories."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{work.path}/"):
            run("umount", "-l", place)
    for hierarchy in (CGROUPS, *CGROUPS.iterdir()):
        remove_cgroup(hierarchy / work.name)
    shutil.rmtree(work.path)


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup, those below it and what still runs in them; an absent one is fine."""
    if (path / "cgroup.kill").exists():
        (path / "cgroup.kill").write_text("1")
        while "populated 1" in (path / "cgroup.events").read_text():
            time.sleep(0.01)
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)


class Watcher:
    """The process that notes when a container's program writes its first byte."""

    def __init__(self, fifo: Path) -> None:
        self._process = subprocess.Popen(
            [BUILD / "watch", fifo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._line(5)

    def first_byte(self, timeout: float = 30) -> int:
        """CLOCK_MONOTONIC ns of the next byte; TimeoutError after `timeout` seconds without."""
        return int(self._line(timeout))

    def _line(self, timeout: float) -> bytes:
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            raise TimeoutError("the container's program has written nothing")
        return out.readline()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def quantiles(values_ns: Sequence[int]) -> dict[str, float]:
    """n, and p50, p90, p99, min in microseconds."""
    ordered = sorted(values_ns)
    count = len(ordered)

    def at(share: float) -> float:
        return round(ordered[min(count - 1, int(count * share))] / 1000, 1)

    return {"n": count, "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "min": at(0)}


def touch_memory(gib: float) -> None:
    """Make the hypervisor back that much memory, or the first containers pay for it."""
    size = int(gib * (1 << 30))
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


def settle(seconds: float) -> None:
    """An idle gap, so that one contender's teardown in the kernel is not another's start."""
    time.sleep(seconds)


# ---- facts ----

_VERSIONS = {
    "dockerd": ("dockerd", "--version"),
    "containerd": ("containerd", "--version"),
    "runc": ("runc", "--version"),
    "crun": ("crun", "--version"),
    "bwrap": ("bwrap", "--version"),
    "gcc": ("gcc", "--version"),
}


def file_system_of(path: str) -> str:
    """The type of the file system that holds `path`."""
    command = ("findmnt", "--noheadings", "--output", "FSTYPE", "--target", path)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment() -> dict[str, Any]:
    """Kernel, processors, memory, cgroup layout and versions: what a figure depends on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "cgroups": "v2" if (CGROUPS / "cgroup.procs").exists() else "hybrid or v1",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "versions": dict(_versions()),
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def _versions() -> Iterator[tuple[str, str]]:
    for name, command in _VERSIONS.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True)
            yield name, done.stdout.partition("\n")[0].strip()


def header(bench: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The first fields of a result: what was measured, how, when and where."""
    return {
        "bench": bench,
        "command": " ".join(("python", f"benchmarks/bench_{bench}.py", *arguments)),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": environment(),
    }


def resident_kib(pid: int) -> int:
    """VmRSS of a process, 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line[:6] == "VmRSS:"), 0)


def processes_named(comms: str) -> set[int]:
    """Process ids whose command name is one of `comms`, "a, b" (the kernel keeps 15 characters)."""
    names = {comm[:15] for comm in comms.split(", ")}
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name = Path(f"/proc/{entry}/comm").read_text().rstrip("\n")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name in names:
                found.add(int(entry))
    return found
