"""Directories and files with the mode that is meant, whatever the umask of whoever calls.

Owns: making them so, and judging whether a directory is safe to keep state in. Knows nothing of what
is kept there. The umask belongs to the whole process, other threads included: it is never changed
here, a mode it has narrowed is put right afterwards. umask(2), mkdir(2).
"""

from __future__ import annotations

import os
import stat

from .errors import Unavailable

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_directory(path: str, mode: int) -> None:
    """mkdir(2) with exactly the permissions `mode`. OSError, FileExistsError among them."""
    os.mkdir(path, mode)
    if os.stat(path).st_mode & 0o777 != mode & 0o777:
        os.chmod(path, mode)


def make_directories(path: str, mode: int, parents: int = 0o755) -> None:
    """mkdir -p: what is missing is made, `path` with `mode`, those above it with `parents`. What
    exists stays as it is. OSError, also where something of that name is no directory."""
    try:
        make_directory(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        make_directories(os.path.dirname(path), parents, parents)
        make_directories(path, mode, parents)


def set_mode(fd: int, mode: int) -> None:
    """Give a file that was just made through `fd` exactly the permissions `mode`."""
    if os.fstat(fd).st_mode & 0o777 != mode:
        os.fchmod(fd, mode)


def sync_directory(path: str) -> None:
    """The names in a directory to the disk: fsync(2) of it. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_state_directory(option: str, path: str, top: str = "/") -> None:
    """Refuse a directory whose content others could replace: it and every directory above it, up to
    `top`, must belong to us or to root, and be writable by nobody else (or sticky, as /tmp is).
    `path` has no symlinks and exists. Unavailable names the directory and the remedy."""
    while True:
        status = os.lstat(path)
        if status.st_uid not in (0, os.geteuid()):
            raise Unavailable(
                f"{option} : {path} belongs to uid {status.st_uid}, who could replace what is kept "
                f"there: choose another, or chown root {path}"
            )
        writers = status.st_mode & _OTHERS_WRITE
        if status.st_gid == 0:
            writers &= ~stat.S_IWGRP
        if writers and not status.st_mode & stat.S_ISVTX:
            raise Unavailable(
                f"{option} : others can write to {path} (mode {status.st_mode & 0o7777:04o}) and "
                f"replace what is kept there: chmod go-w {path}"
            )
        if path in (top, "/"):
            return
        path = os.path.dirname(path)


__all__ = [
    "check_state_directory",
    "make_directories",
    "make_directory",
    "set_mode",
    "sync_directory",
]
