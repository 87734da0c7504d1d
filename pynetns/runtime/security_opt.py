"""--security-opt: the text of the options as values.

Owns: which options there are. What a profile holds is seccomp.py's.
Source: moby parseSecurityOpt; docker run --help.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..errors import InvalidParameter

UNCONFINED = "unconfined"
_ACCEPTED = (
    "no-new-privileges[=true|false], seccomp=unconfined, seccomp=<profile file or JSON>, "
    "systempaths=unconfined, apparmor=unconfined, label=disable"
)


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`seccomp`: "" for the default profile, "unconfined", a file's path, or a profile's JSON."""

    no_new_privileges: bool = False
    seccomp: str = ""
    system_paths_unconfined: bool = False


@lru_cache(maxsize=64)
def parse_security_opt(options: tuple[str, ...]) -> SecurityOptions:
    """The options' meaning; the last of a kind wins. Raises InvalidParameter for anything that this
    engine could not keep: it confines by neither AppArmor nor SELinux, so that only their absence
    may be asked for. moby parseSecurityOpt."""
    no_new_privileges = system_paths = False
    seccomp = ""
    for option in options:
        # Docker's old spelling had a colon.
        separator = "=" if "=" in option else ":"
        key, _, value = option.partition(separator)
        match key, value:
            case "no-new-privileges", "" | "true" | "1":
                no_new_privileges = True
            case "no-new-privileges", "false" | "0":
                no_new_privileges = False
            case "seccomp", _ if value:
                seccomp = value
            case ("systempaths", "unconfined"):
                system_paths = True
            case ("apparmor", "unconfined") | ("label", "disable"):
                pass
            case _:
                raise InvalidParameter(f"--security-opt: invalid {option!r}; accepted: {_ACCEPTED}")
    return SecurityOptions(no_new_privileges, seccomp, system_paths)
