"""Compiled filters on disk.

Owns: the format of a file, when one is believed, and how many are kept. What is in a filter's name
(profile, kernel, versions) is seccomp.py's.

A file is the program after its SHA-256 digest. The digest finds what a crash or a bad disk left;
against a person there are only the directory's mode and the file's owner, as for the rest of the root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat

from ...files import make_directories
from ...forks import Descriptors

_DIGEST = hashlib.sha256().digest_size
_INSTRUCTION = 8  # bytes of a struct sock_filter
_LARGEST = _DIGEST + 4096 * _INSTRUCTION  # BPF_MAXINSNS
_KEPT = 256
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def read_compiled(path: str) -> bytes:
    """The program, b"" where there is none or none to be believed: another owner than ours,
    writable by others, not a regular file, cut short, or not what its digest says."""
    try:
        with Descriptors() as fds:
            fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
            info = os.fstat(fds[0])
            if (
                not stat.S_ISREG(info.st_mode)
                or info.st_uid != os.geteuid()
                or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            ):
                return b""
            content = os.read(fds[0], _LARGEST + 1)
    except OSError:
        return b""
    digest, program = content[:_DIGEST], content[_DIGEST:]
    if not program or len(content) > _LARGEST or len(program) % _INSTRUCTION:
        return b""
    return program if hashlib.sha256(program).digest() == digest else b""


def keep_compiled(directory: str, name: str, program: bytes) -> None:
    """Writes the file whole or not at all; a full or read-only disk is no error. Of more than 256
    filters the oldest go: profiles and kernels change."""
    import tempfile  # slow to import, and a miss is rare

    temporary = ""
    try:
        make_directories(directory, 0o700)
        fd, temporary = tempfile.mkstemp(dir=directory, prefix=".new-")
        with open(fd, "wb") as file:
            file.write(hashlib.sha256(program).digest() + program)
        os.replace(temporary, f"{directory}/{name}")
        _forget_oldest(directory)
    except OSError as error:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if error.errno not in _NO_SPACE:
            raise


def _forget_oldest(directory: str) -> None:
    with os.scandir(directory) as entries:
        names = [entry.path for entry in entries if entry.name.endswith(".bpf")]
    if len(names) <= _KEPT:
        return
    aged = []
    for path in names:
        with contextlib.suppress(FileNotFoundError):
            aged.append((os.stat(path, follow_symlinks=False).st_mtime_ns, path))
    for _, path in sorted(aged)[: len(names) - _KEPT]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
