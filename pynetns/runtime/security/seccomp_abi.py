"""Which system call ABIs the running kernel has beside its own.

Owns: the look into the kernel's configuration. What follows for a filter is seccomp_rules.py's: a
missing ABI's calls are refused in one step instead of call by call. So a wrong answer here can
only refuse too much, or make a filter larger than it need be.

Asked only when a filter is compiled. What it says depends on the kernel's build alone, which is part
of a compiled filter's key: hence no look at boot parameters. Trying a call of the other ABI would be
surer, but a filter around ourselves (a systemd service with SystemCallArchitectures=native) kills
for that. Source: arch/x86/Kconfig, arch/arm64/Kconfig.
"""

from __future__ import annotations

import gzip
import re

from .seccomp_rules import ARM, FAMILIES, X32, X86

_OPTIONS = {
    X86: ("CONFIG_IA32_EMULATION",),
    X32: ("CONFIG_X86_X32_ABI", "CONFIG_X86_X32"),  # since and before 5.18
    ARM: ("CONFIG_COMPAT",),
}
_PLACES = (
    "/proc/config.gz",
    "/boot/config-{release}",
    "/lib/modules/{release}/config",
    "/lib/modules/{release}/build/.config",
)


def runnable_abis(native: str, release: str, places: tuple[str, ...] = _PLACES) -> tuple[str, ...]:
    """The architectures in libseccomp's words, `native` first. `release` is uname's; of the
    `places` where a kernel's configuration lies the first readable one counts. Without any: all
    that such a kernel may have."""
    family = FAMILIES.get(native, (native,))
    text = _kernel_config(release, places)
    if text is None:
        return family
    enabled = set(re.findall(r"^(CONFIG_\w+)=y$", text, re.MULTILINE))
    return tuple(
        abi for abi in family if abi not in _OPTIONS or not enabled.isdisjoint(_OPTIONS[abi])
    )


def _kernel_config(release: str, places: tuple[str, ...]) -> str | None:
    for place in places:
        path = place.format(release=release)
        try:
            with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
                text = file.read().decode(errors="replace")
        except (OSError, EOFError):
            continue
        if "CONFIG_SECCOMP_FILTER=y" in text:  # a whole configuration, and of such a kernel
            return text
    return None
