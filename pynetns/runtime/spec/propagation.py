"""Whether a bind mount can have the propagation that is asked for.

Owns: reading the source's mount from mountinfo and the sentence that refuses. Pure but for resolving
the source. A private source with "rslave" would start and then never see what is mounted later:
silently without effect. Source: moby daemon/oci_linux.go ensureShared, ensureSharedOrSlave; proc(5),
mountinfo; mount_namespaces(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ...errors import InvalidParameter
from ...model.config import Mount

# propagation -> the optional fields of mountinfo of which the source's mount needs one
NEEDS = {
    "shared": ("shared",),
    "rshared": ("shared",),
    "slave": ("shared", "master"),
    "rslave": ("shared", "master"),
}
_ESCAPE = re.compile(r"\\([0-7]{3})")


def check_propagation(mounts: Iterable[Mount]) -> None:
    """Raise InvalidParameter for the first bind whose source cannot propagate as asked; its source
    must exist."""
    wanted = [m for m in mounts if m.type == "bind" and m.propagation in NEEDS]
    if not wanted:
        return
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        table = file.read()
    for mount in wanted:
        point, fields = source_mount(table, os.path.realpath(mount.source))
        needs = NEEDS[mount.propagation]
        if not fields.intersection(needs):
            kind = "shared" if len(needs) == 1 else "shared or slave"
            raise InvalidParameter(
                f"--volume {mount.source}:{mount.target}:{mount.propagation} : path {mount.source} "
                f"is mounted on {point} but it is not a {kind} mount: make it one "
                f"(mount --make-rshared {point}) or leave out {mount.propagation}"
            )


def source_mount(mountinfo: str, path: str) -> tuple[str, frozenset[str]]:
    """(mount point, names of its optional fields) of the mount that `path` lies on. moby
    getSourceMount; of two at one place the later one is on top."""
    found, fields = "/", frozenset[str]()
    for line in mountinfo.splitlines():
        words = line.split(" ")
        if len(words) < 10:
            continue
        point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), words[4])
        below = path == point or path.startswith(f"{point.rstrip('/')}/")
        if below and len(point) >= len(found):
            optional = words[6 : words.index("-", 6)]
            found, fields = point, frozenset(word.partition(":")[0] for word in optional)
    return found, fields
