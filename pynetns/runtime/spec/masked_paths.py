"""What a container may not see of this machine in /proc and /sys, and what it may not write there.

Owns: the lists, and the look at the machine for those that depend on it. How a path is masked is
the child's. Source: moby daemon/pkg/oci/defaults.go (defaultLinuxMaskedPaths, v28.2 and v29).

Paths that a machine has not cost the child one call each and stay in the list: a module that is
loaded later makes them appear.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",  # GHSA-6fw5-f8r9-fgfm: thermal events tell what the neighbours compute
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",  # GHSA-jq35-85cj-fj4p: so does the energy used
    "/sys/firmware",
)
"""On every machine."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CPUS = "/sys/devices/system/cpu"


@lru_cache(maxsize=1)
def machine_masked_paths() -> tuple[str, ...]:
    """MASKED_PATHS and the thermal throttling of each CPU that has it; looked up once per process.
    moby defaultLinuxMaskedPaths."""
    return MASKED_PATHS + thermal_paths(_CPUS)


def thermal_paths(cpus: str) -> tuple[str, ...]:
    """`thermal_throttle` of the possible CPUs below `cpus` (/sys/devices/system/cpu), where it is.
    Without such a directory, none."""
    try:
        with open(f"{cpus}/possible", encoding="ascii") as file:
            numbers = tuple(_cpu_list(file.read()))
    except (OSError, ValueError):
        return ()
    paths = (f"{cpus}/cpu{number}/thermal_throttle" for number in numbers)
    return tuple(path for path in paths if os.path.exists(path))


def _cpu_list(text: str) -> Iterator[int]:
    """The numbers of "0-3,8". Kernel doc: cputopology.rst."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
