"""A network and a mount namespace for the whole test run: what others do on this machine fails no test.

Links, addresses, rules and mounts that a run makes are seen by nobody else and go with it, also when
it is killed. Cgroups and process ids are the machine's.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000

# sysfs shows the network namespace of whoever mounted it: of a new one only the network's part is used
_SHOW_OUR_LINKS = """
mount -t sysfs sysfs "$1"
mount --bind "$1/class/net" /sys/class/net
mount --bind "$1/devices/virtual/net" /sys/devices/virtual/net
umount -l "$1"
ip link set lo up
"""


def enter() -> None:
    """Move this process, and those that it starts from here on, into namespaces of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) < 0:
        raise OSError(ctypes.get_errno(), "unshare for the tests")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    scratch = tempfile.mkdtemp(prefix="pynetns-tests-")
    try:
        subprocess.run(["sh", "-ec", _SHOW_OUR_LINKS, "sh", scratch], check=True)
    finally:
        os.rmdir(scratch)
