"""Mounts of a fake machine, and the files that only root makes.

Owns: which directories count as mounted, and what lies over what in a container's root. Nothing is
mounted: a root is its writable layer, looked through to those below; a tmpfs a plain directory that is
emptied at its end. Nodes, owners and extended attributes are noted, and otherwise empty files.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import KernelError
from ..kernel import mount


class FakeMounts:
    """The mount part of FakeKernel. `mounts`: where -> options."""

    def __init__(self) -> None:
        self.mounts: dict[str, str] = {}
        self._roots: dict[tuple[int, int], tuple[str, ...]] = {}

    def called(self, name: str, *args: Any) -> None:
        """See FakeKernel."""
        raise NotImplementedError

    def unmount_all(self) -> None:
        """Nothing is mounted any more."""
        for where in list(self.mounts):
            self._unmount(where)

    def overlay_mount(
        self,
        lowers: Sequence[str],
        upper: str = "",
        work: str = "",
        *,
        readonly: bool = False,
        append: bool = True,
    ) -> int:
        self.called("overlay_mount", tuple(lowers), upper, work)
        layers = (*filter(None, [upper]), *lowers)
        for directory in (*layers, *filter(None, [work])):
            if not os.path.isdir(directory):
                raise KernelError(errno.ENOENT, "overlay", directory)
        return self.open_root(layers)

    def open_root(self, layers: tuple[str, ...]) -> int:
        """A descriptor of the root that `layers` make, top first; the caller's."""
        fd = os.open(layers[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._roots[_place(fd)] = layers
        return fd

    def root_of(self, fd: int) -> tuple[str, ...]:
        """The layers of the root that a descriptor means, top first; () for none."""
        return self._roots.get(_place(fd), ())

    def tree_clone(
        self,
        where: str,
        *,
        dirfd: int = mount.AT_FDCWD,
        recursive: bool = True,
        attr_set: int = 0,
        propagation: int = 0,
    ) -> int:
        self.called("tree_clone", where)
        try:
            within = dirfd if dirfd != mount.AT_FDCWD else None
            return os.open(where or ".", os.O_PATH | os.O_CLOEXEC, dir_fd=within)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "open_tree", where) from error

    def proc_clone(self, mount_namespace: int) -> int:
        self.called("proc_clone")
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def tmpfs_mount(self, where: str, options: str) -> None:
        self.called("tmpfs_mount", where, options)
        if not os.path.isdir(where):
            raise KernelError(errno.ENOENT, "tmpfs", where)
        self.mounts[where] = options

    def umount(self, where: str) -> None:
        self.called("umount", where)
        self._unmount(where)

    def _unmount(self, where: str) -> None:
        """What was in the tmpfs is gone with it; it is a plain directory here."""
        if self.mounts.pop(where, None) is not None:
            for entry in os.scandir(where):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def is_mounted(self, where: str) -> bool:
        return where in self.mounts

    def open_in_root(self, root: int, where: str, flags: int) -> int:
        self.called("open_in_root", where)
        layers = self.root_of(root)
        missing = KernelError(errno.ENOENT, "openat2", where)
        for layer in layers or (f"/proc/self/fd/{root}",):
            fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return mount.open_in_root(fd, where, flags)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
            finally:
                os.close(fd)
        raise missing

    def mknod(self, path: str, mode: int, device: int = 0) -> None:
        self.called("mknod", path, mode, device)
        Path(path).touch(exist_ok=False)  # a node takes root: an empty file stands for it

    def chown(self, path: str, uid: int, gid: int) -> None:
        self.called("chown", path, uid, gid)

    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self.called("setxattr", path, name, value)

    # ---- cgroups ----

    def bpf_device_load(self, insns: bytes) -> int:
        self.called("bpf_device_load", insns)
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def bpf_device_attach(self, cgroup: int, prog: int, flags: int) -> None:
        self.called("bpf_device_attach", flags)


def _place(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
