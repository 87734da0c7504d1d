"""Typed wrapper of csrc/overlay.c and csrc/mount.c: detached mounts, handed over as descriptors."""

from __future__ import annotations

from collections.abc import Sequence

from .lib import call, ffi, lib, out_fd, path

AT_FDCWD = -100
MOUNT_ATTR_RDONLY = 1
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20


def overlay_mount(
    lowers: Sequence[str],
    upper: str = "",
    work: str = "",
    *,
    readonly: bool = False,
    append: bool = True,
) -> int:
    """A detached overlay mount of `lowers` (1 to 500, top first) below `upper`; its descriptor.

    `append`: may name one layer after the other, which Linux 6.7 and later can; without that, and
    where all names together are too long, a mount namespace of a thread's own is used (some ms).
    KernelError; its detail names the directory at fault where that can be told.
    """
    keep = [ffi.new("char[]", path(lower)) for lower in lowers]
    array = ffi.new("char *[]", keep)
    flags = (lib.PN_OVERLAY_READONLY if readonly else 0) | (
        0 if append else lib.PN_OVERLAY_NO_APPEND
    )
    return out_fd(lib.pn_overlay_mount, array, len(keep), path(upper), path(work), flags)


def tree_clone(
    where: str,
    *,
    dirfd: int = AT_FDCWD,
    recursive: bool = True,
    attr_set: int = 0,
    propagation: int = 0,
) -> int:
    """A detached copy of the mount tree (or file) at `where`; its descriptor."""
    return out_fd(lib.pn_tree_clone, dirfd, path(where), recursive, attr_set, propagation)


def proc_clone(mount_namespace: int) -> int:
    """A detached copy of /proc in the mount namespace of that descriptor, without what is mounted on
    it; its descriptor. KernelError EXDEV when what is there is no procfs."""
    return out_fd(lib.pn_proc_clone, mount_namespace)


def mount_attach(fd: int, where: str) -> None:
    """Attach a detached mount at `where`."""
    call(lib.pn_mount_attach, fd, path(where))


def tmpfs_mount(where: str, options: str) -> None:
    """Mount a private tmpfs, e.g. with options ``mode=700,size=64m``."""
    call(lib.pn_tmpfs_mount, path(where), options.encode())


def umount(where: str) -> None:
    """Lazy unmount; fine when there is nothing mounted."""
    call(lib.pn_umount, path(where))


def open_in_root(root: int, where: str, flags: int) -> int:
    """openat2 below directory `root`, symlinks resolved inside it, no magic links."""
    return out_fd(lib.pn_open_in_root, root, path(where), flags)
