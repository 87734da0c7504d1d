"""Linux capabilities by name: the table, Docker's default set, and --cap-add/--cap-drop.

Owns: names, masks and the tweak rules. Knows nothing of processes or of how a set is applied.
Source: capability.h of the kernel; moby oci/caps; START_FLOW row S15.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from ...errors import InvalidParameter
from ...model.suggest import did_you_mean

_PREFIX = "CAP_"
_IN_KERNEL_ORDER = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"""
_IN_DOCKER_ORDER = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"""

NAMES: tuple[str, ...] = tuple(_PREFIX + name for name in _IN_KERNEL_ORDER.split())
"""Index is the kernel's number."""

NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}

DEFAULT: tuple[str, ...] = tuple(_PREFIX + name for name in _IN_DOCKER_ORDER.split())
"""What an ordinary container gets."""

_ALL = "ALL"


def to_mask(names: Iterable[str]) -> int:
    """The bits of a set, as capset(2) takes them."""
    return _mask_of(names if isinstance(names, tuple) else tuple(names))


@lru_cache(maxsize=64)
def _mask_of(names: tuple[str, ...]) -> int:
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[name]
    return mask


def from_mask(mask: int) -> tuple[str, ...]:
    """The inverse of `to_mask`, in the kernel's order; bits newer than the table are left out."""
    return tuple(name for number, name in enumerate(NAMES) if mask >> number & 1)


@lru_cache(maxsize=1)
def machine_capabilities() -> tuple[str, ...]:
    """What this process can hand on: its bounding set (proc(5), CapBnd)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                return from_mask(int(line.split()[1], 16))
    return ()


def normalize(names: Iterable[str], option: str) -> tuple[str, ...]:
    """Names as users write them ("net_admin", "CAP_NET_ADMIN", "all") as the kernel spells them.

    Raises InvalidParameter naming `option` for a name that no kernel has.
    """
    result = []
    for name in names:
        upper = name.strip().upper()
        if upper in (_ALL, "CAP_ALL"):
            result.append(_ALL)
            continue
        full = upper if upper.startswith(_PREFIX) else _PREFIX + upper
        if full not in NUMBERS:
            known = ", ".join(known.removeprefix(_PREFIX) for known in NAMES)
            near = did_you_mean(full.removeprefix(_PREFIX), known.split(", "))
            raise InvalidParameter(
                f"{option}: unknown capability {name!r}{near}; known: ALL, {known}"
            )
        result.append(full)
    return tuple(result)


def tweak_capabilities(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    privileged: bool = False,
    have: tuple[str, ...] | None = None,
) -> tuple[str, ...]:
    """The capability set of a container. moby caps.TweakCapabilities.

    `have` is what the machine can give (None: ask it). "ALL" and privileged mean all of that; a
    capability asked for by name must be among it, while one of the default set that is not is left
    out. What is both added and dropped is added. Raises InvalidParameter.
    """
    add, drop = tuple(add), tuple(drop)
    if have is None:
        have = machine_capabilities()
    wanted = normalize(add, "--cap-add")
    unwanted = normalize(drop, "--cap-drop")
    _check_available(wanted, have)
    if privileged:
        return have
    if _ALL in wanted:
        return tuple(name for name in have if name not in unwanted)
    if _ALL in unwanted:
        return tuple(dict.fromkeys(wanted))
    kept = (name for name in DEFAULT if name in have and name not in unwanted)
    return tuple(dict.fromkeys((*kept, *wanted)))


def _check_available(wanted: Iterable[str], have: tuple[str, ...]) -> None:
    missing = [name for name in wanted if name != _ALL and name not in have]
    if missing:
        raise InvalidParameter(
            f"--cap-add: this machine cannot give {', '.join(missing)}; "
            f"it has {', '.join(name.removeprefix(_PREFIX) for name in have)}"
        )
