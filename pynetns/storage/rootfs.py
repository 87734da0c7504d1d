"""A container's root file system: its writable layer and the overlay mount of a start.

Owns: the layer's life (create to remove), the mount handed to a start as a descriptor, and the
/dev/shm that containers share. The mount needs no unmounting: it lives as long as somebody uses it.
moby conditionalMountOnStart, seed section 1.2; Container.ShmPath, section 1.2.2.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from ..errors import InvalidParameter, KernelError, Unavailable
from ..files import make_directories
from ..kernel import Kernel
from .host_image import HostMask, is_overlay
from .layers import create_layer_directory, layer_directory, remove_layer_directory

DEFAULT_SHM_SIZE = 64 << 20


class RootfsStore:
    """The containers' root file systems below one root."""

    def __init__(self, kernel: Kernel, root: str, exec_root: str) -> None:
        self._kernel = kernel
        self._root = root
        self._exec_root = exec_root
        self._mask = HostMask(kernel, root, exec_root)

    # ---- layer ----

    def check_directory(self, path: str) -> None:
        """Whether `--rootfs path` can be a lower layer. InvalidParameter says why not."""
        if not path.startswith("/"):
            raise InvalidParameter(f"--rootfs {path}: must be an absolute path")
        if not os.path.isdir(path):
            raise InvalidParameter(f"--rootfs {path}: no such directory")
        real = os.path.realpath(path)
        if f"{self._root}/".startswith(f"{real.rstrip('/')}/"):
            raise InvalidParameter(
                f"--rootfs {path}: holds the engine's own root {self._root}; "
                "use image `host` for this machine's files"
            )

    def create_layer(self, container_id: str) -> None:
        """Make the writable layer. Seed: at create."""
        create_layer_directory(self._root, container_id)

    def remove_layer(self, container_id: str) -> None:
        """Remove the writable layer and what else the container has here. Absent is fine."""
        self.release_shm(container_id)
        remove_layer_directory(self._root, container_id)

    # ---- mount ----

    def mount(self, container_id: str, lowers: Sequence[str]) -> int:
        """The container's root as a detached overlay mount; its descriptor is the caller's.

        Raises Unavailable where the layers cannot be stacked on this machine, KernelError else.
        """
        layer = layer_directory(self._root, container_id)
        if lowers[0] == self._mask.path:
            self._mask.ensure()
        try:
            return self._kernel.overlay_mount(lowers, f"{layer}/diff", f"{layer}/work")
        except KernelError as error:
            raise explain(error, lowers) from error

    # ---- /dev/shm of an IPC mode other than private ----

    def shm_path(self, container_id: str, ipc_mode: str, size: int = DEFAULT_SHM_SIZE) -> str:
        """The directory behind the container's /dev/shm, "" when nobody shares it.

        A shareable one is mounted here, with `size` in bytes; "container:<id>" takes a full id.
        """
        if ipc_mode == "host":
            return "/dev/shm"
        if ipc_mode.startswith("container:"):
            return self._shm_directory(ipc_mode.removeprefix("container:"))
        if ipc_mode != "shareable":
            return ""
        path = self._shm_directory(container_id)
        make_directories(path, 0o700, 0o700)
        if not self._kernel.is_mounted(path):
            self._kernel.tmpfs_mount(path, f"mode=1777,size={size}")
        return path

    def release_shm(self, container_id: str) -> None:
        """Give a shareable /dev/shm back; containers that use it keep it. Absent is fine."""
        path = self._shm_directory(container_id)
        if os.path.isdir(path):
            self._kernel.umount(path)
            os.rmdir(path)

    def _shm_directory(self, container_id: str) -> str:
        return f"{self._exec_root}/shm/{container_id}"


def explain(error: KernelError, lowers: Sequence[str]) -> Exception:
    """What a failed overlay mount means to the user, where there is something to be said."""
    if "not supported as upperdir" in error.detail:
        return Unavailable(
            f"--root: overlayfs cannot write to its file system ({error.detail}): "
            "choose one on another, e.g. ext4 or xfs"
        )
    stacked = [lower for lower in lowers if is_overlay(lower)]
    if error.errno == errno.EINVAL and stacked:
        return Unavailable(
            f"{stacked[0]}: is on an overlay of overlays, and the kernel stacks no deeper: "
            "import it as an image instead"
        )
    return error
