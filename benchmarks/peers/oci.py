"""What runc and crun have in common: a bundle made beforehand, one command that starts it.

The bundle has Docker's default namespaces, mounts, masks and capabilities, but less is done than by
the floor: no veth, address or route (the network namespace is empty), no overlay (the root file
system is the directory itself), no seccomp filter, no log. The command's own start is included:
that is how these programs are used.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness import BUILD

from . import Peer, Times
from .process import LineProcess

_CAPS = """CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"""
_MOUNTS = (
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=67108864"),
)
_MASKED = """/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list
    /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware"""
_READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


class OciRuntime(Peer):
    """`program run --detach`; subclasses name the program."""

    does = "the whole command; no veth, no overlay, no seccomp filter, no log"
    launcher_options: tuple[str, ...] = ()

    _launcher: LineProcess | None = None

    def available(self) -> str | None:
        if shutil.which(self.name) is None:
            return f"{self.name} is not installed (Debian: benchmarks/setup.sh --peers)"
        return None

    def prepare(self) -> None:
        self._home = self.work.directory(self.name)
        command: list[str | Path] = [BUILD / "launch", *self.launcher_options]
        self._launcher = LineProcess(command, self._home / "log")
        self._live: set[int] = set()

    def create(self, i: int) -> None:
        bundle = self.work.directory(self.name, "bundles", str(i))
        (bundle / "config.json").write_text(json.dumps(self._spec(i)))
        self._live.add(i)

    def start(self, i: int) -> Times:
        bundle = self._home / "bundles" / str(i)
        called, returned = self._run("run", "--detach", "--bundle", str(bundle), self._id(i))
        return Times(called, returned)

    def remove(self, i: int) -> None:
        self._run("delete", "--force", self._id(i))
        shutil.rmtree(self._home / "bundles" / str(i))
        self._live.discard(i)

    def close(self) -> None:
        if self._launcher is not None:
            for i in list(self._live):
                self.remove(i)
            self._launcher.close()

    def _id(self, i: int) -> str:
        return f"{self.work.name}-{self.name}-{i}"

    def _run(self, *words: str) -> tuple[int, int]:
        assert self._launcher is not None
        line = "\t".join((self.name, "--root", str(self._home / "state"), *words))
        called, returned, status = self._launcher.ask(line)
        if status != "0":
            raise RuntimeError(f"{self.name} {words[0]}: {self._launcher.errors() or status}")
        return int(called), int(returned)

    def _spec(self, i: int) -> dict[str, Any]:
        capabilities = [f"CAP_{name}" for name in _CAPS.split()]
        kinds = ("bounding", "effective", "permitted")
        mounts = [
            {"destination": place, "type": kind, "source": source, "options": options.split()}
            for place, kind, source, options in _MOUNTS
        ]
        for place, source in self._binds().items():
            options = ["rbind", "rprivate"]
            mounts.append(
                {"destination": place, "type": "bind", "source": source, "options": options}
            )
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": self.work.plain_command(),
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {kind: capabilities for kind in kinds},
                "oomScoreAdj": 0,
            },
            "root": {"path": str(self.work.plain)},
            "hostname": self.name,
            "mounts": mounts,
            "linux": {
                "cgroupsPath": f"/{self.work.name}/{self.name}-{i}",
                "namespaces": [{"type": t} for t in ("mount", "network", "uts", "pid", "ipc")],
                "maskedPaths": _MASKED.split(),
                "readonlyPaths": _READONLY.split(),
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }

    def _binds(self) -> dict[str, str]:
        binds = {"/mark": str(self.work.mark)}
        for name in ("hosts", "hostname", "resolv.conf"):
            source = Path(self._home / name)
            source.touch()
            binds[f"/etc/{name}"] = str(source)
        return binds
