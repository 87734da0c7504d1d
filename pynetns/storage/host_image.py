"""The image `host`: this machine's own root file system as a read-only lower layer.

Owns: the mask over it at `<exec_root>/image/mask`, made on first use. It hides, by whiteouts, the
engine's own directories, and replaces what must not be seen of a live system (/dev, /run, /tmp,
mount points of pseudo file systems) by empty opaque directories. What is mounted below "/" is not
seen either, only the directory beneath.

The mask must not lie on the file system of "/": overlayfs refuses a lower layer inside another one
(ELOOP). A writable layer may (Linux 5.13), as long as no path leads to it: it is behind a whiteout.
https://docs.kernel.org/filesystems/overlayfs.html, "whiteouts and opaque directories".
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import System
from ..files import make_directories
from ..kernel import Kernel
from .layers import remove_tree

_OPAQUE = "trusted.overlay.opaque"
# What every container sees empty. /run/lock is where the symlink /var/lock leads on Debian.
_EMPTY = (
    ("/dev", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/run/lock", 0o1777),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
)
_PSEUDO_NAMES = """
autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs
mqueue nsfs proc pstore ramfs rpc_pipefs securityfs selinuxfs smackfs sysfs tmpfs tracefs
"""
_PSEUDO = frozenset(_PSEUDO_NAMES.split())


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One path of the mask: an empty directory with `mode`, or a whiteout where `mode` is None."""

    path: str
    mode: int | None


def mask_entries(points: Iterable[str], hidden: Iterable[str]) -> list[MaskEntry]:
    """What to mask, parents first; pure.

    `points` are directories to show empty, `hidden` paths that must not exist inside.
    """
    entries = {path: MaskEntry(path, mode) for path, mode in _EMPTY}
    for point in sorted(points):
        if not _below(point, entries):
            entries[point] = MaskEntry(point, 0o755)
    for path in sorted(hidden):
        if not _below(path, entries):
            entries[path] = MaskEntry(path, None)
    return sorted(entries.values(), key=lambda entry: entry.path)


def _covering(path: str) -> str:
    """What hides `path` in every mask: the empty directory that it is below, else itself."""
    above = [empty for empty, _ in _EMPTY if path.startswith(f"{empty}/")]
    return above[0] if above else path


def _below(path: str, entries: Iterable[str]) -> bool:
    return any(path == entry or path.startswith(f"{entry}/") for entry in entries)


def read_mounts(text: str) -> list[tuple[str, str]]:
    """(mount point, file system type) of each line of a mountinfo file. proc(5)."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(" ")
        mounts.append((_unescape(fields[4]), fields[fields.index("-") + 1]))
    return mounts


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


class HostMask:
    """The mask of one engine; any number of processes may make it at the same moment."""

    def __init__(self, kernel: Kernel, root: str, exec_root: str) -> None:
        self._kernel = kernel
        self._hidden = (root, exec_root)
        self._place = f"{exec_root}/image"
        self.path = f"{exec_root}/image/mask"
        self.lowers = (self.path, "/")  # of a container of image `host`
        self._hiding = [f"{self.path}{_covering(hidden)}" for hidden in self._hidden]
        self._whole = False  # though it has not all of these

    def ensure(self) -> None:
        """Make the mask when it is not there, and again what somebody has deleted of it: a container
        would see the engine's own directories. Raises System."""
        if self._whole or all(os.path.lexists(path) for path in self._hiding):
            return
        with self._locked():
            if not os.path.isdir(self.path):
                self._make()
            else:
                add_entries(self._kernel, self.path, self._entries())
                # what hides them is something else: a file system is mounted above
                self._whole = not all(os.path.lexists(path) for path in self._hiding)

    def remove(self) -> None:
        """Remove the mask; the next start makes it again. No container of `host` may be running."""
        with self._locked():
            remove_tree(self.path)

    def _make(self) -> None:
        """Whole or not at all: it is made beside its place."""
        fresh = f"{self.path}.new"
        remove_tree(fresh)
        write_mask(self._kernel, fresh, self._entries())
        os.rename(fresh, self.path)

    def _entries(self) -> list[MaskEntry]:
        hidden = [os.path.realpath(path) for path in self._hidden]
        points = [
            point
            for point, kind in read_mounts(_mountinfo())
            if kind in _PSEUDO and point != "/" and os.path.isdir(point)  # a file may be one too
        ]
        return mask_entries(points, hidden)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_directories(self._place, 0o700)
        fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def write_mask(kernel: Kernel, directory: str, entries: Sequence[MaskEntry]) -> None:
    """Make a mask layer. Directories on the way look as on the host: the topmost layer's count."""
    try:
        os.mkdir(directory)
        shutil.copystat("/", directory)
        add_entries(kernel, directory, entries)
    except (OSError, System) as error:
        remove_tree(directory)
        if isinstance(error, System):
            raise
        raise System(f"image host: mask {directory}: {error.strerror}") from error


def add_entries(kernel: Kernel, directory: str, entries: Sequence[MaskEntry]) -> None:
    """Make those entries of a mask layer that are not there. System."""
    try:
        for entry in entries:
            target = f"{directory}{entry.path}"
            if os.path.lexists(target):
                continue
            _copy_parents(kernel, directory, entry.path)
            if entry.mode is None:
                kernel.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
            else:
                os.mkdir(target)
                os.chmod(target, entry.mode)
                kernel.setxattr(target, _OPAQUE, b"y")
    except OSError as error:
        raise System(f"image host: mask {directory}: {error.strerror}") from error


def _copy_parents(kernel: Kernel, directory: str, path: str) -> None:
    for parent in _parents(path):
        target = f"{directory}{parent}"
        if os.path.lexists(target):
            continue
        os.mkdir(target)
        status = os.stat(parent)
        kernel.chown(target, status.st_uid, status.st_gid)
        shutil.copystat(parent, target)


def _parents(path: str) -> Iterator[str]:
    """Of "/a/b/c": "/a", "/a/b"."""
    parts = path.split("/")
    for end in range(2, len(parts)):
        yield "/".join(parts[:end])


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def is_overlay(path: str) -> bool:
    """Whether `path` lies on an overlay."""
    real = os.path.realpath(path)
    covering = [
        (len(point), kind)
        for point, kind in read_mounts(_mountinfo())
        if f"{real}/".startswith(f"{point.rstrip('/')}/")
    ]
    longest = max(length for length, _ in covering)
    return [kind for length, kind in covering if length == longest][-1] == "overlay"
