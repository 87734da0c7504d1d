"""What the engine does with plain system calls that only root may, or that tests must not really do.

Owns: files that take privileges (nodes, owners, extended attributes), mount points, bound sockets.
All raise OSError.
"""

from __future__ import annotations

import os
import socket

__all__ = ["chown", "is_mounted", "mknod", "port_bind", "privileged", "setxattr"]


def is_mounted(where: str) -> bool:
    """Whether a directory is a mount point. mountpoint(1)."""
    return os.path.ismount(where)


def privileged() -> bool:
    """Whether this process is root, which mounts and namespaces take."""
    return os.geteuid() == 0


def mknod(path: str, mode: int, device: int = 0) -> None:
    """A node; `mode` includes its type. mknod(2)."""
    os.mknod(path, mode, device)


def chown(path: str, uid: int, gid: int) -> None:
    """Give a file away. chown(2)."""
    os.chown(path, uid, gid)


def setxattr(path: str, name: str, value: bytes) -> None:
    """An extended attribute. setxattr(2)."""
    os.setxattr(path, name, value)


def port_bind(kind: int, address: str, port: int) -> socket.socket:
    """An IPv4 socket of `kind` (SOCK_STREAM, SOCK_DGRAM) bound to the port. Without SO_REUSEADDR, so
    that it conflicts with every other, on the wildcard address too. bind(2)."""
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock
