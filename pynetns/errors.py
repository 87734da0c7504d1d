"""The whole exception tree. Each class carries its HTTP status; exit codes live in cli/main.py.

Owns: the kinds of failure a caller can tell apart. Knows nothing of what failed.
The kinds are moby's errdefs (api/errdefs), the statuses those of the Docker Engine API.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar


class PynetnsError(Exception):
    """Root of the tree. `status` is the HTTP status the Engine API answers with."""

    status = 500


class InvalidParameter(PynetnsError):
    """A value the caller gave is not acceptable; the message names the option and what it takes."""

    status = 400


class NotFound(PynetnsError):
    """No such container, image, network or file."""

    status = 404


class NotModified(PynetnsError):
    """The object is already in the state asked for (start of a running container)."""

    status = 304


class Conflict(PynetnsError):
    """The present state of an object stands in the way."""

    status = 409


class NotSupported(PynetnsError):
    """What was asked for does not exist for this object (reading the log of driver none)."""

    status = 501


class Unavailable(PynetnsError):
    """This machine cannot do it now; the message names the remedy."""

    status = 503


class System(PynetnsError):
    """The engine or the kernel failed in a way the caller could not prevent."""

    status = 500


class StateDamaged(System):
    """A state file is unreadable or from a newer version. It is never overwritten."""


class KernelError(System):
    """A system call failed. `errno`, `step` (what was tried) and `detail` say which."""

    def __init__(self, err: int, step: str, detail: str = "") -> None:
        self.errno, self.step, self.detail = err, step, detail
        self.index = -1  # the plan operation that failed, where one did
        where = f"{step} {detail}".strip()
        super().__init__(f"{where}: {os.strerror(err)}")

    @property
    def name(self) -> str:
        """The symbolic errno, e.g. ``ENOENT``."""
        return errno.errorcode.get(self.errno, str(self.errno))


class StartFailed(PynetnsError):
    """The container's program could not be executed; `exit_code` is Docker's (127, 126 or 128).

    127: program not found. 126: not executable. 128: anything before it was tried (a user nobody
    knows, a bad working directory); of an exec that is 126 too, as in Docker.
    Source: moby translateContainerdStartErr and ContainerExecStart, seed section 1.2.
    """

    status = 400

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


_P = ParamSpec("_P")
_R = TypeVar("_R")

# What to do about a shortage: appended to the system's own word for it.
_REMEDIES = {
    errno.EMFILE: "raise this program's limit on open files (ulimit -n), or close some",
    errno.ENFILE: "raise fs.file-max (sysctl), the machine's limit on open files",
    errno.ENOSPC: "free some space (or inodes) on its file system",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EROFS: "remount its file system read-write",
    errno.ENOMEM: "free some memory",
}


def remedy_of(err: int | None) -> str:
    """ ": what to do" about a shortage or a read-only file system; "" for any other errno."""
    remedy = _REMEDIES.get(err or 0)
    return f": {remedy}" if remedy else ""


def shortage(error: BaseException | None, what: str = "") -> Unavailable | None:
    """A raw OSError or KernelError about a shortage as what the caller can act on; None for any
    other error. `what`: named where the error names no file."""
    if not isinstance(error, OSError | KernelError) or error.errno not in _REMEDIES:
        return None
    if isinstance(error, KernelError):
        return Unavailable(f"{error}{remedy_of(error.errno)}")
    where = error.filename or what
    return Unavailable(f"{f'{where}: ' if where else ''}{error.strerror}{remedy_of(error.errno)}")


def clear_errors(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A verb that raises Unavailable, with the remedy, where the system ran short of something."""

    @wraps(function)
    def verb(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except (OSError, System) as error:
            known = shortage(error) or shortage(error.__cause__)
            if known is None:
                raise
            raise known from error

    return verb
