"""Single values as a user types them: sizes, numbers, signals, names, addresses.

Owns: the spelling of one value and the sentence that refuses it. Each function takes the value as
text or as the Python value it stands for, and the option to name in the error. Pure; what a value
may be on this machine is checked elsewhere. Source: docker/go-units, moby opts/ and signal package.
"""

from __future__ import annotations

from typing import Any

from ..errors import InvalidParameter

_MAX_INT64 = (1 << 63) - 1
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
# "64m", "64mb" and "64MiB" are the same, as in go-units RAMInBytes.
_SUFFIXES = {"": 0} | {
    spelling: shift
    for unit, shift in _UNITS.items()
    for spelling in ((unit,) if unit == "b" else (unit, f"{unit}b", f"{unit}i", f"{unit}ib"))
}
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_REST = _NAME_START | frozenset("_.-")
_BOOLEANS = {
    "1": True, "t": True, "true": True, "0": False, "f": False, "false": False,
}  # fmt: skip
MAX_SIGNAL = 64


def refuse(option: str, value: object, accepted: str) -> InvalidParameter:
    """The one sentence for a bad value: the option, what was given, what is accepted."""
    return InvalidParameter(f"{option} {value!r} : must be {accepted}")


def parse_size(value: Any, option: str = "--memory", *, unlimited: bool = False) -> int:
    """Bytes of "64m", "1.5g", 4096; 1024-based. With `unlimited` -1 is accepted too."""
    accepted = "a size such as 4096, 512k, 64m or 1.5g" + (", or -1" if unlimited else "")
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        if not isinstance(value, str):
            raise refuse(option, value, accepted)
        if unlimited and value.strip() == "-1":
            return -1
        text = value.strip().lower()
        number = text.rstrip("bikmgtp ")
        shift = _SUFFIXES.get(text[len(number) :].strip())
        whole, point, fraction = number.partition(".")
        digits = whole + fraction
        if shift is None or not (
            digits.isascii() and digits.isdecimal() and whole and len(digits) < 40
        ):
            raise refuse(option, value, accepted)
        if point and not fraction:
            raise refuse(option, value, accepted)
        size = (int(digits) << shift) // 10 ** len(fraction)
    if not (-1 if unlimited else 0) <= size <= _MAX_INT64:
        raise refuse(option, value, accepted)
    return size


def parse_swap(value: Any, option: str = "--memory-swap") -> int:
    """Bytes of memory and swap together; -1 is unlimited."""
    return parse_size(value, option, unlimited=True)


def parse_integer(
    value: Any,
    option: str,
    low: int = -_MAX_INT64,
    high: int = _MAX_INT64,
    what: str = "a whole number",
) -> int:
    """A whole number in [low, high]; `what` it counts, for the message."""
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        digits = value.removeprefix("-").removeprefix("+")
        if digits.isascii() and digits.isdecimal() and len(digits) < 20:
            number = int(value)
    if number is None or not low <= number <= high:
        bounds = "" if low == -_MAX_INT64 else f" of at least {low}"
        bounds = f" from {low} to {high}" if high != _MAX_INT64 else bounds
        raise refuse(option, value, f"{what}{bounds}")
    return number


def parse_cpus(value: Any, option: str = "--cpus") -> int:
    """A number of CPUs, "1.5", as billionths of one."""
    accepted = "a number of CPUs such as 0.5 or 2"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refuse(option, value, accepted)
    try:
        cpus = float(str(value).replace("_", "x"))  # float() would take "1_0"
    except ValueError:
        raise refuse(option, value, accepted) from None
    if not 0 <= cpus <= 1 << 20:  # refuses "nan" and "inf" too
        raise refuse(option, value, accepted)
    return round(cpus * 1e9)


def parse_boolean(value: Any, option: str) -> bool:
    """A truth value: a bool, or the words that Docker's flags take."""
    if isinstance(value, bool):
        return value
    if value is None:
        return False
    known = _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if known is None:
        raise refuse(option, value, "true or false")
    return known


def parse_text(value: Any, option: str) -> str:
    """Text without NUL; None is empty."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise refuse(option, value, "text without NUL")
    return value


def parse_signal(value: Any, option: str = "--signal") -> int:
    """The number of "SIGTERM", "term", "15", 15, "RTMIN+3". moby signal.ParseSignal."""
    import signal

    accepted = f"a signal's name such as TERM or SIGKILL, or a number from 1 to {MAX_SIGNAL}"
    if _is_number(value):
        number = int(value)
    elif isinstance(value, str):
        name, plus, offset = value.upper().removeprefix("SIG").partition("+")
        found = getattr(signal, f"SIG{name}", None) if name.isalnum() else None
        if not isinstance(found, signal.Signals):
            raise refuse(option, value, accepted)
        number = int(found)
        if plus:
            if name != "RTMIN" or not offset.isdecimal():
                raise refuse(option, value, accepted)
            number += int(offset)
    else:
        raise refuse(option, value, accepted)
    if not 1 <= number <= MAX_SIGNAL:
        raise refuse(option, value, accepted)
    return number


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and len(value) < 20
    return isinstance(value, int) and not isinstance(value, bool)


def parse_stop_signal(value: Any, option: str = "--stop-signal") -> str:
    """The signal as given, known to be one; "" for the default."""
    if value is None or value == "":
        return ""
    parse_signal(value, option)
    return str(int(value)) if isinstance(value, int) else str(value)


def parse_stop_timeout(value: Any, option: str = "--stop-timeout") -> int | None:
    """Seconds, -1 to wait for ever, None for the default."""
    what = "a whole number of seconds, without a unit,"
    return None if value is None else parse_integer(value, option, -1, 1 << 31, what)


def parse_restart(value: Any, option: str = "--restart") -> None:
    """Only "no" is a policy that this engine has; docker-py's `{"Name": "no"}` is it too."""
    name = value.get("Name", "") if isinstance(value, dict) else value
    if name not in (None, "", "no"):
        raise InvalidParameter(
            f"{option} {name!r} : restart policies are not available yet, only 'no' is accepted"
        )


def validate_name(name: Any, option: str = "--name") -> str:
    """A container's name. moby names.RestrictedNamePattern."""
    if (
        isinstance(name, str)
        and len(name) >= 2
        and name[0] in _NAME_START
        and _NAME_REST.issuperset(name)
    ):
        return name
    raise refuse(
        option, name, "[a-zA-Z0-9][a-zA-Z0-9_.-]+: a letter or digit, then letters, digits, _ . -"
    )


def parse_mac(value: Any, option: str = "--mac-address") -> str:
    """A unicast MAC address, lower case with colons; "" for none."""
    if value is None or value == "":
        return ""
    pairs = value.lower().replace("-", ":").split(":") if isinstance(value, str) else ()
    hexadecimal = frozenset("0123456789abcdef")
    if len(pairs) != 6 or not all(len(p) == 2 and hexadecimal.issuperset(p) for p in pairs):
        raise refuse(option, value, "six pairs of hexadecimal digits such as 02:42:ac:11:00:02")
    if int(pairs[0], 16) & 1 or not any(int(p, 16) for p in pairs):
        raise refuse(option, value, "an address of one interface: not multicast, not all zero")
    return ":".join(pairs)


def is_ip(text: str, *, v6: bool = True) -> bool:
    """Whether `text` is an IPv4 (or, with `v6`, IPv6) address."""
    from socket import AF_INET, AF_INET6, inet_pton

    for family in (AF_INET, AF_INET6) if v6 else (AF_INET,):
        try:
            inet_pton(family, text)
            return True
        except (OSError, ValueError):  # ValueError: a NUL in it
            continue
    return False


def parse_ipv4(value: Any, option: str = "--ip") -> str:
    """An IPv4 address in dotted form; "" for none."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not is_ip(value, v6=False):
        raise refuse(option, value, "an IPv4 address such as 172.17.0.5")
    return value


def parse_address(value: Any, option: str = "--dns") -> str:
    """An IPv4 or IPv6 address."""
    if not isinstance(value, str) or not is_ip(value):
        raise refuse(option, value, "an IP address")
    return value


def parse_user(value: Any, option: str = "--user") -> str:
    """ "name|uid[:group|gid]", or a number; looked up in the container's own files at its start."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if (
        not isinstance(value, str)
        or value.count(":") > 1
        or value.startswith(":")
        or not value.isprintable()
        or " " in value
    ):
        raise refuse(option, value, "NAME|UID[:GROUP|GID]")
    return value


def parse_network_mode(value: Any, option: str = "--network") -> str:
    """bridge, none, host, container:NAME or a network's name; None and "" are "default"."""
    if value is None or value == "":
        return "default"
    if isinstance(value, str):
        kind, colon, name = value.partition(":")
        if not colon and _NAME_REST.issuperset(value):
            return value
        name = name.removeprefix("/")
        if kind == "container" and name and _NAME_REST.issuperset(name):
            return f"container:{name}"
    raise refuse(option, value, "bridge, none, host or container:NAME")
