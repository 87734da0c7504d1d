"""The looks that the doctor's checks are made of: files, system calls, sockets, links.

Owns: all I/O of the doctor, so that the checks can be tried on a machine that is only described. No
method changes anything, and none raises for what is missing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from ..errors import PynetnsError

# New system calls have one number on all architectures.
SYSCALLS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "mount_setattr": 442,
}
_NETLINK_NETFILTER = 12
_NFT_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1


class Machine:
    """This machine."""

    root = ""
    exec_root = ""

    def read(self, path: str) -> str | None:
        """The text of a file, stripped; None when there is none to be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def configuration_error(self) -> str:
        """What is wrong with the configuration files of the root; "" when nothing is."""
        try:
            from ..engine.settings import load_settings

            load_settings(self.root)
        except (ImportError, PynetnsError) as error:
            return str(error)
        return ""

    def bridge(self) -> str:
        """The bridge of the root's containers, as configured."""
        try:
            from ..engine.services import default_bridge
            from ..engine.settings import load_settings

            return load_settings(self.root).bridge or default_bridge(os.path.realpath(self.root))
        except (ImportError, PynetnsError):
            return "pynetns0"

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def executable(self, path: str) -> bool:
        return os.access(path, os.X_OK)

    def uid(self) -> int:
        return os.geteuid()

    def release(self) -> str:
        """The kernel's release, "6.1.0-18-amd64"."""
        return os.uname().release

    def free_bytes(self, path: str) -> int | None:
        """Bytes that root may still write below `path`, or below what exists of it."""
        try:
            found = os.statvfs(self.existing(path))
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def existing(self, path: str) -> str:
        """`path`, or the nearest directory above it that exists."""
        path = os.path.realpath(path)
        while not os.path.exists(path) and path != "/":
            path = os.path.dirname(path)
        return path

    def file_system(self, path: str) -> tuple[str, str]:
        """(mount point, file system type) of where `path` is or would be made."""
        path = self.existing(path)
        found = ("/", "")
        for line in (self.read("/proc/self/mountinfo") or "").splitlines():
            left, _, right = line.partition(" - ")
            point = left.split()[4].encode().decode("unicode_escape")
            inside = point == "/" or path == point or path.startswith(f"{point}/")
            if inside and len(point) >= len(found[0]):  # the later of equals lies on top
                found = (point, right.split()[0])
        return found

    def syscall_error(self, name: str) -> int:
        """The errno of a system call given nothing but nonsense; ENOSYS: the kernel has it not."""
        libc = ctypes.CDLL(None, use_errno=True)
        ctypes.set_errno(0)
        # descriptors of -1, null pointers, flags or sizes that no call accepts
        minus, null = ctypes.c_long(-1), ctypes.c_void_p(0)
        arguments = {
            "open_tree": (minus, null, minus),
            "move_mount": (minus, null, minus, null, minus),
            "fsopen": (null, minus),
            "fsconfig": (minus, minus, null, null, minus),
            "fsmount": (minus, minus, minus),
            "pidfd_open": (minus, minus),
            "clone3": (null, ctypes.c_long(0)),
            "openat2": (minus, null, null, ctypes.c_long(0)),
            "mount_setattr": (minus, null, minus, null, ctypes.c_long(0)),
        }[name]
        result = libc.syscall(ctypes.c_long(SYSCALLS[name]), *arguments)
        return ctypes.get_errno() if result < 0 else 0

    def nftables_error(self) -> int:
        """0 when the kernel answers the question for the rule set's generation, else the errno."""
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
                sock.bind((0, 0))
                family = struct.pack("=BBH", socket.AF_INET, 0, 0)
                head = struct.pack("=IHHII", 20, _NFT_GETGEN, _NLM_F_REQUEST, 1, 0)
                sock.send(head + family)
                answer = sock.recv(4096)
        except OSError as error:
            return error.errno or errno.EIO
        kind = struct.unpack_from("=H", answer, 4)[0]
        return -int(struct.unpack_from("=i", answer, 16)[0]) if kind == _NLMSG_ERROR else 0

    def shims(self) -> list[int]:
        """The processes that are shims of the exec root."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            words = (self.read(f"/proc/{name}/cmdline") or "").split("\0")
            if words[:2] == ["pynetns-shim", self.exec_root]:
                found.append(int(name))
        return found

    def core_error(self) -> str:
        """Why the compiled module or the shim cannot be used, "" when they can."""
        try:
            from ..kernel.lib import shim_path
        except ImportError as error:
            return str(error)
        path = shim_path()
        return "" if self.executable(path) else f"{path} is missing or not executable"

    def link_error(self, kind: str) -> str:
        """Why a link of `kind` ("bridge", "veth") cannot be made, tried in a namespace of its
        own; "" when it can."""
        from ..errors import KernelError

        try:
            from ..kernel.netns import netns_create
            from ..kernel.rtnetlink import bridge_create, veth_create
        except ImportError as error:
            return str(error)
        try:
            fds = netns_create()
        except KernelError as error:
            return str(error)
        try:
            if kind == "bridge":
                bridge_create(fds[1], "probe0", alias="", mtu=1500, address="192.0.2.1", prefix=24)
            else:
                veth_create(fds[1], "probe1", "probe2")
        except KernelError as error:
            return str(error)
        finally:
            for fd in fds:
                os.close(fd)
        return ""

    def libseccomp_error(self) -> str:
        """Why libseccomp cannot be loaded, "" when it can."""
        try:
            import pyseccomp  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            return str(error)
        return ""
