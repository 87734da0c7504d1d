"""Which uid, gid, groups and home a container's --user means.

Owns: the passwd/group look-up, a pure function on the files' text. Knows nothing of where the files
are or how credentials are set. Source: moby daemon getUser; passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import StartFailed

MAX_ID = (1 << 31) - 1
_EXIT_CODE = 126


@dataclass(frozen=True, slots=True)
class User:
    """`groups` are the supplementary gids, without repetition and without `gid` itself."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"

    @property
    def additional_gids(self) -> tuple[int, ...]:
        """What setgroups(2) gets. The primary group is in it: what a file refuses to a group must
        not open to a member who changes it by setgid(2) (CVE-2022-36109)."""
        return (self.gid, *self.groups)


ROOT = User()


def get_user(passwd_text: str, group_text: str, spec: str, group_add: Iterable[str] = ()) -> User:
    """Resolves "", "name", "uid", "name:group" or "uid:gid" against passwd and group files' text.

    Numbers need no entry; "" is uid 0. Without an explicit group the user's memberships become
    supplementary groups. Raises StartFailed (exit code 126) for an unknown name or a number out of
    0..2147483647. moby getUser.
    """
    wanted_user, _, wanted_group = spec.partition(":")
    name, uid, gid, home = _find_user(passwd_text, wanted_user)
    groups: list[int] = []
    if wanted_group:
        gid = _find_group(group_text, wanted_group)
    elif name:
        lines = (line for line in group_text.split("\n") if name in line)
        groups = [gid for _, gid, members in _groups(lines) if name in members]
    groups += [_find_group(group_text, extra) for extra in group_add]
    return User(uid, gid, tuple(g for g in dict.fromkeys(groups) if g != gid), home)


def _find_user(passwd_text: str, wanted: str) -> tuple[str, int, int, str]:
    """(name, uid, gid, home); name is "" without an entry."""
    number = _number(wanted) if wanted else 0
    start, field = f"{wanted}:", f":{number}:"
    for line in passwd_text.split("\n"):
        if not (line.startswith(start) or field in line):
            continue  # most lines end here: this runs at every start
        fields = line.split(":")
        if len(fields) < 4 or not _is_number(fields[2]):
            continue
        uid = int(fields[2])
        if uid == number or (wanted and fields[0] == wanted):
            gid = int(fields[3]) if _is_number(fields[3]) else 0
            home = fields[5] if len(fields) > 5 else ""
            return fields[0], _in_range(uid), _in_range(gid), home or "/"
    if number is None:
        raise StartFailed(
            f"unable to find user {wanted}: no matching entries in passwd file", _EXIT_CODE
        )
    return "", _in_range(number), 0, "/"


def _find_group(group_text: str, wanted: str) -> int:
    number = _number(wanted)
    for name, gid, _ in _groups(group_text.split("\n")):
        if name == wanted or gid == number:
            return _in_range(gid)
    if number is None:
        raise StartFailed(
            f"unable to find group {wanted}: no matching entries in group file", _EXIT_CODE
        )
    return _in_range(number)


def _groups(lines: Iterable[str]) -> Iterator[tuple[str, int, list[str]]]:
    for line in lines:
        fields = line.split(":")
        if len(fields) >= 3 and _is_number(fields[2]):
            yield fields[0], int(fields[2]), fields[3].split(",") if len(fields) > 3 else []


def _is_number(text: str) -> bool:
    return len(text) < 20 and text.isascii() and text.isdecimal()


def _number(text: str) -> int | None:
    return int(text) if _is_number(text.removeprefix("-")) else None


def _in_range(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise StartFailed(f"--user: ids must be in the range 0-{MAX_ID}, not {number}", _EXIT_CODE)
    return number
