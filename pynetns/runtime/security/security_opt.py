"""--security-opt: the text of the options as values.

Owns: which options there are. What a profile holds is seccomp_custom.py's.
Source: moby parseSecurityOpt; docker run --help.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...errors import InvalidParameter

UNCONFINED, BUILTIN = "unconfined", "builtin"
_ACCEPTED = (
    "no-new-privileges[=true|false], seccomp=builtin, seccomp=unconfined, "
    "seccomp=<profile file or JSON>, systempaths=unconfined, apparmor=unconfined, label=disable"
)
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""As Go's strconv.ParseBool."""
_LACKING = {
    "apparmor": "containers are not confined by AppArmor here; accepted: apparmor=unconfined",
    "label": "containers get no SELinux label here; accepted: label=disable",
    "credentialspec": "is for Windows containers",
    "writable-cgroups": "the cgroup view of a container is read-only; --privileged has a writable one",
}
"""What Docker knows and this engine could not keep."""


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`seccomp`: "" for the default, "builtin" for the default profile asked for by name,
    "unconfined", a file's path, or a profile's JSON."""

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
        key, value = split_option(option)
        if key == "no-new-privileges":
            no_new_privileges = _boolean(option, value)
        elif key == "seccomp" and value:
            seccomp = value
        elif (key, value) == ("systempaths", "unconfined"):
            system_paths = True
        elif (key, value) not in (("apparmor", "unconfined"), ("label", "disable")):
            raise _refused(option, key)
    return SecurityOptions(no_new_privileges, seccomp, system_paths)


def split_option(option: str) -> tuple[str, str]:
    """("seccomp", "/a:b") of "seccomp=/a:b"; Docker's old spelling had a colon. The value is "" for
    none."""
    key, _, value = option.partition("=" if "=" in option else ":")
    if ":" in key:  # the old spelling, of a value that holds "="
        key, _, value = option.partition(":")
    return key, value


def _boolean(option: str, value: str) -> bool:
    if option == "no-new-privileges":
        return True
    if value not in _BOOLEANS:
        raise _refused(option, "")
    return _BOOLEANS[value]


def _refused(option: str, key: str) -> InvalidParameter:
    why = _LACKING.get(key)
    return InvalidParameter(
        f"--security-opt {option}: {why}"
        if why
        else f"--security-opt: invalid {option!r}; accepted: {_ACCEPTED}"
    )
