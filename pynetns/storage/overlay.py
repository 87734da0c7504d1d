"""The image `host`: this machine's own root file system as a read-only lower layer.

Owns: the mask over it and the mounted base at `<exec_root>/image/host`. Overlayfs refuses an upper
directory that lies beneath its own lower (ELOOP), and the engine's root usually lies on "/": so the
union of mask and "/" is mounted once, and containers stack on that mount. Two is also the deepest
stack the kernel allows. Where the engine's root is on another file system no base is needed.

The mask hides, by whiteouts, the engine's own directories, and replaces what must not be seen of a
live system (/dev, /run, /tmp, mount points of pseudo file systems) by empty opaque directories.
https://docs.kernel.org/filesystems/overlayfs.html, "whiteouts and opaque directories".

A file that is replaced on the host while the base is mounted may be seen in its old version.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import KernelError, System, Unavailable
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
_REMEDY = "give --rootfs DIR, or import an image"


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """One path of the mask: an empty directory with `mode`, or a whiteout where `mode` is None."""

    path: str
    mode: int | None


def mask_entries(mounts: Iterable[tuple[str, str]], hidden: Iterable[str]) -> list[MaskEntry]:
    """What to mask, parents first; pure.

    `mounts` are (mount point, type) pairs, `hidden` absolute paths that must not exist inside.
    """
    entries = {path: MaskEntry(path, mode) for path, mode in _EMPTY}
    for point, kind in sorted(mounts):
        if kind in _PSEUDO and point != "/" and not _below(point, entries):
            entries[point] = MaskEntry(point, 0o755)
    for path in sorted(hidden):
        if not _below(path, entries):
            entries[path] = MaskEntry(path, None)
    return sorted(entries.values(), key=lambda entry: entry.path)


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


def host_path(exec_root: str) -> str:
    """The lower layer by which a container names image `host`."""
    return f"{exec_root}/image/host"


class HostBase:
    """Makes and finds the base of image `host` for one engine; any number of processes may."""

    def __init__(self, kernel: Kernel, root: str, exec_root: str) -> None:
        self._kernel = kernel
        self._root = root
        self._exec_root = exec_root
        self.path = host_path(exec_root)
        self._mask = f"{exec_root}/image/mask"

    def lowers(self) -> tuple[str, ...]:
        """The lower layers of image `host`, made when they are not there.

        Raises Unavailable where this machine's root cannot be a lower layer.
        """
        if self._needs_base():
            if not self._mounted():
                with self._locked():
                    self._mount()
            return (self.path,)
        if not os.path.isdir(self._mask):
            with self._locked():
                if not os.path.isdir(self._mask):
                    self._make_mask()
        return (self._mask, "/")

    def _needs_base(self) -> bool:
        """Whether the layers lie on the file system of "/".

        A btrfs subvolume has a device number of its own, which no mount shows: still the same one.
        """
        device = os.stat(self._root).st_dev
        if device == os.stat("/").st_dev:
            return True
        number = f" {os.major(device)}:{os.minor(device)} "
        return number not in _mountinfo()

    def umount(self) -> None:
        """Remove the base; containers that use it keep it. Absent is fine."""
        self._kernel.umount(self.path)

    def _mounted(self) -> bool:
        try:
            return os.stat(self.path).st_dev != os.stat(f"{self._exec_root}/image").st_dev
        except FileNotFoundError:
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        directory = f"{self._exec_root}/image"
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _mount(self) -> None:
        if self._mounted():
            return
        mounts = read_mounts(_mountinfo())
        if dict(mounts).get("/") == "overlay":
            raise Unavailable(
                "image host: / is an overlay itself, containers cannot be stacked on it "
                f"with their layers inside: {_REMEDY}, or put the root on another file system"
            )
        self._make_mask()
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        try:
            fd = self._kernel.overlay_mount((self._mask, "/"), readonly=True)
        except KernelError as error:
            raise Unavailable(
                f"image host: / cannot be a lower layer ({error}): {_REMEDY}"
            ) from error
        try:
            self._kernel.mount_attach(fd, self.path)
        finally:
            os.close(fd)

    def _make_mask(self) -> None:
        """Whole or not at all: it is made beside its place. Under the lock."""
        fresh = f"{self._mask}.new"
        remove_tree(fresh)
        remove_tree(self._mask)
        hidden = (os.path.realpath(self._root), os.path.realpath(self._exec_root))
        write_mask(fresh, mask_entries(read_mounts(_mountinfo()), hidden))
        os.rename(fresh, self._mask)


def write_mask(directory: str, entries: Sequence[MaskEntry]) -> None:
    """Make a mask layer. Directories on the way look as on the host: the topmost layer's count."""
    try:
        os.mkdir(directory)
        shutil.copystat("/", directory)
        for entry in entries:
            _copy_parents(directory, entry.path)
            target = f"{directory}{entry.path}"
            if entry.mode is None:
                os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
            else:
                os.mkdir(target)
                os.chmod(target, entry.mode)
                os.setxattr(target, _OPAQUE, b"y")
    except OSError as error:
        remove_tree(directory)
        raise System(f"image host: mask {directory}: {error.strerror}") from error


def _copy_parents(directory: str, path: str) -> None:
    for parent in _parents(path):
        target = f"{directory}{parent}"
        if os.path.lexists(target):
            continue
        os.mkdir(target)
        status = os.stat(parent)
        os.chown(target, status.st_uid, status.st_gid)
        shutil.copystat(parent, target)


def _parents(path: str) -> Iterator[str]:
    """Of "/a/b/c": "/a", "/a/b"."""
    parts = path.split("/")
    for end in range(2, len(parts)):
        yield "/".join(parts[:end])


def _mountinfo() -> str:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
