"""As whom a container's program runs and what it may do: user, capabilities, system calls.

Owns: reading the user files of a root that nobody vouches for, and what the engine keeps of compiled
filters. moby getUser, WithCapabilities, WithSeccomp; seed section 1.2.2.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidParameter, KernelError
from ..forks import Descriptors
from ..kernel import Kernel
from ..runtime.security.capabilities import tweak_capabilities
from ..runtime.security.seccomp import container_seccomp, load_filter, seccomp_json
from ..runtime.spec.user import User, get_user

if TYPE_CHECKING:
    from ..model.config import HostConfig
    from .services import Services

_MAX_USER_FILE = 1 << 20


def container_capabilities(host_config: HostConfig) -> tuple[str, ...]:
    """The capabilities of a container; the usual case is a constant."""
    if not (host_config.cap_add or host_config.cap_drop or host_config.privileged):
        return tweak_capabilities()
    return tweak_capabilities(host_config.cap_add, host_config.cap_drop, host_config.privileged)


def seccomp_of(
    engine: Services, host_config: HostConfig, capabilities: Sequence[str]
) -> tuple[dict[str, Any] | None, str, bytes]:
    """(the spec's block, its JSON text, the compiled filter); remembered where they are made."""
    block = container_seccomp(host_config.security_opt, tuple(capabilities), host_config.privileged)
    if block is None:
        return None, "", b""
    return block, seccomp_json(block), load_filter(block, f"{engine.root}/seccomp")


def find_user(kernel: Kernel, rootfs: int, user: str, group_add: Sequence[str]) -> User:
    """Resolve a user in the container's own files."""
    return get_user(*read_user_files(kernel, rootfs), user, group_add)


def read_user_files(kernel: Kernel, root: int) -> tuple[str, str]:
    """The text of /etc/passwd and /etc/group below `root`; absent ones are empty."""
    return _read_below(kernel, root, "etc/passwd"), _read_below(kernel, root, "etc/group")


def _read_below(kernel: Kernel, root: int, path: str) -> str:
    """A small regular file inside the container's root, where no symlink leads outside.

    O_NONBLOCK: an image may hold a pipe of that name, on which opening would wait for ever.
    """
    with Descriptors() as fds:
        try:
            fds.append(kernel.open_in_root(root, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except KernelError as error:
            if error.name in ("ENOENT", "ENOTDIR", "ELOOP"):
                return ""
            raise
        info = os.fstat(fds[0])
        if not stat.S_ISREG(info.st_mode) or info.st_size > _MAX_USER_FILE:
            raise InvalidParameter(f"/{path} of the image: not a regular file below 1 MiB")
        return os.fsdecode(os.read(fds[0], info.st_size))
