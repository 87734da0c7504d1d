"""The only importer of the compiled module: one call convention, one place that raises.

Owns: `call`, which turns a filled pn_error into KernelError. Every csrc unit has its typed wrapper in
a module of the same name beside this one; upper layers see only `pynetns.kernel.Kernel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pynetns._core import ffi, lib

from ..errors import KernelError

__all__ = ["call", "ffi", "lib", "out_fd", "path", "shim_path", "step_name"]


def step_name(step: int) -> str:
    """The name of a C step or plan operation, as it appears in messages and traces."""
    return str(ffi.string(lib.pn_step_name(step)).decode())


def raise_error(error: Any) -> None:
    """Raise the KernelError that a filled `struct pn_error` describes."""
    detail = ffi.string(error.detail).decode("utf-8", "replace")
    failure = KernelError(error.errnum, step_name(error.step), detail)
    failure.index = error.index
    raise failure


def call(function: Callable[..., int], *args: Any) -> int:
    """Call `function(*args, reterr)`; its result, or KernelError. The GIL is released meanwhile."""
    error = ffi.new("struct pn_error *")
    result = function(*args, error)
    if result < 0:
        raise_error(error)
    return result


def path(value: str | os.PathLike[str]) -> bytes:
    """A path as C takes it. ValueError when it holds a NUL."""
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"path with a NUL byte: {value!r}")
    return encoded


def out_fd(function: Callable[..., int], *args: Any) -> int:
    """Call `function(*args, ret_fd, reterr)` and return the descriptor it handed out."""
    fd = ffi.new("int *", -1)
    try:
        call(function, *args, fd)
        return int(fd[0])
    except BaseException:  # a signal handler's, after the call
        if fd[0] >= 0:
            os.close(fd[0])
        raise


def shim_path() -> str:
    """Where the package keeps the shim executable."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "pynetns-shim")
