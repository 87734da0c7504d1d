"""Finding a container by what a user typed: full id, name, unique id prefix.

Owns: the order of the look-up and its errors. moby Daemon.GetContainer, seed section 1.1.
"""

from __future__ import annotations

from ..errors import InvalidParameter, NotFound
from ..store import Store

_MAX_NAMED = 5


def get_container_id(store: Store, prefix_or_name: str) -> str:
    """The full id. An exact id wins over a name, a name over a prefix.

    Raises InvalidParameter (empty; ambiguous, naming the candidates) or NotFound.
    """
    wanted = prefix_or_name
    if not wanted or wanted == "/":
        raise InvalidParameter("container name or id: must not be empty")
    if len(wanted) == 64 and store.container(wanted) is not None:
        return wanted
    if not wanted.isascii():  # no name is, and not every text could be looked up
        raise NotFound(f"No such container: {wanted}")
    by_name = store.container_by_name(wanted.removeprefix("/"))
    if by_name is not None:
        return by_name.id
    found = _ids_by_prefix(store, wanted)
    if not found:
        raise NotFound(f"No such container: {wanted}")
    if len(found) > 1:
        named = ", ".join(i[:12] for i in found[:_MAX_NAMED])
        more = " and more" if len(found) > _MAX_NAMED else ""
        raise InvalidParameter(f"multiple containers match the id prefix {wanted}: {named}{more}")
    return found[0]


def _ids_by_prefix(store: Store, prefix: str) -> list[str]:
    if len(prefix) > 64 or prefix.strip("0123456789abcdef"):
        return []
    return store.ids_by_prefix(prefix, limit=_MAX_NAMED + 1)
