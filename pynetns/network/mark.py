"""The mark by which kernel objects are known as ours.

Owns: how it is written into a bridge's alias and a rule's comment. It names the engine (a root's
store) and the place of the root, so that what a root left that was removed is known by the next root at
that place, and by nobody else: another root, and one of the same path on another file system (a private
mount) or below another `/` (chroot), have other marks. Knows nothing of what is marked.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

_ALIAS = "pynetns:"


class Mark(NamedTuple):
    """Whose something is. `place` is "" in what versions made that did not write it."""

    engine_id: str
    place: str

    def alias(self) -> str:
        """As the alias of a link."""
        return f"{_ALIAS}{self.engine_id}:{self.place}"

    def owns(self, other: Mark | None) -> bool:
        """Whether what is marked so is this engine's."""
        return other is not None and other.engine_id == self.engine_id

    def inherits(self, other: Mark | None) -> bool:
        """Whether what is marked so was an engine's whose root was here before, and is gone."""
        return other is not None and other.place == self.place and not self.owns(other)


def mark_of(engine_id: str, root: str) -> Mark:
    """The mark of the engine of a root directory. OSError when it is not there."""
    top = os.stat("/")
    place = f"{top.st_dev}:{top.st_ino}:{os.stat(root).st_dev}:{os.path.realpath(root)}"
    return Mark(engine_id, hashlib.sha256(os.fsencode(place)).hexdigest()[:16])


def parse_alias(alias: str) -> Mark | None:
    """The mark in a link's alias; None when it has none of ours."""
    if not alias.startswith(_ALIAS):
        return None
    engine_id, _, place = alias.removeprefix(_ALIAS).partition(":")
    return Mark(engine_id, place) if engine_id else None
