"""Which uid, gid, groups and home a container's --user means.

Owns: the passwd/group look-up, a pure function on the files' text. Knows nothing of where the files
are or how credentials are set. Source: moby daemon getUser; passwd(5), group(5).

The files are the image's, so they are distrusted: digits are an id and never looked up as a name
(an entry "1001:x:0:0" must not make user 1001 root), and an entry whose ids are no ids is refused
rather than read as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...errors import StartFailed

MAX_ID = (1 << 31) - 1
_MAX_DIGITS = 10
_EXIT_CODE = 128  # of the start; `run` answers 125: the program was never tried


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
    supplementary groups. Raises StartFailed for an unknown name, for a number out of
    0..2147483647 and for an entry that is used and has no valid ids. moby getUser.
    """
    wanted_user, _, wanted_group = spec.partition(":")
    name, uid, gid, home = _find_user(passwd_text, wanted_user)
    groups: list[int] = []
    if wanted_group:
        gid = _find_group(group_text, wanted_group)
    elif name:
        groups = list(_memberships(group_text, name))
    groups += [_find_group(group_text, extra) for extra in group_add]
    return User(uid, gid, tuple(g for g in dict.fromkeys(groups) if g != gid), home)


def _find_user(passwd_text: str, wanted: str) -> tuple[str, int, int, str]:
    """(name, uid, gid, home); name is "" without an entry."""
    number = _id("user", wanted) if wanted else 0
    # one of these is in the line that is looked for: this runs at every start
    start, field = (f"{wanted}:", "\n") if number is None else ("\n", f":{number}:")
    for line in passwd_text.split("\n"):
        if not (line.startswith(start) or field in line):
            continue
        fields = line.split(":")
        if len(fields) < 4 or (fields[2] != str(number) if number is not None else False):
            continue
        where = f"the image's passwd entry of {fields[0] or number}"
        home = fields[5] if len(fields) > 5 else ""
        if "\0" in home:
            raise StartFailed(f"{where}: its home directory holds a NUL byte", _EXIT_CODE)
        return fields[0], _entry_id(where, fields[2]), _entry_id(where, fields[3]), home or "/"
    if number is None:
        raise StartFailed(
            f"unable to find user {wanted}: no matching entries in passwd file: --user takes a name "
            "that the image's /etc/passwd has, or a number",
            _EXIT_CODE,
        )
    return "", number, 0, "/"


def _find_group(group_text: str, wanted: str) -> int:
    number = _id("group", wanted)
    if number is not None:
        return number
    for line in group_text.split("\n"):
        fields = line.split(":")
        if fields[0] == wanted and len(fields) >= 3:
            return _entry_id(f"the image's group entry of {wanted}", fields[2])
    raise StartFailed(
        f"unable to find group {wanted}: no matching entries in group file: --user and --group-add "
        "take a name that the image's /etc/group has, or a number",
        _EXIT_CODE,
    )


def _memberships(group_text: str, name: str) -> Iterator[int]:
    """The groups that list `name` as a member; nobody asked for them by name, so that an entry
    without a valid id is passed over."""
    for line in group_text.split("\n"):
        if name not in line:
            continue
        fields = line.split(":")
        if len(fields) > 3 and name in fields[3].split(","):
            gid = _valid(fields[2])
            if gid is not None:
                yield gid


def _id(kind: str, text: str) -> int | None:
    """The id that `text` says, None where it is a name. StartFailed for one out of range."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = _valid(text)
    if number is None:
        raise StartFailed(
            f"{kind} {text[:40]}: uids and gids must be in range 0-{MAX_ID}", _EXIT_CODE
        )
    return number


def _entry_id(where: str, text: str) -> int:
    number = _valid(text)
    if number is None:
        raise StartFailed(
            f"{where}: {text[:40]!r} is no id; uids and gids must be in range 0-{MAX_ID}",
            _EXIT_CODE,
        )
    return number


def _valid(text: str) -> int | None:
    """An id of 0..2147483647, None for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > _MAX_DIGITS:
        return None
    number = int(text)
    return number if number <= MAX_ID else None
