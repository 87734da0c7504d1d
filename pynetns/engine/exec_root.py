"""Which exec root belongs to which root: one to one, on record on both sides.

Owns: the mount of the exec root, its file `owner`, and the root's memory of it (in the store). The
exec root is where running containers are reached: their shim, their locks, how they ended. Whoever
opens a root with another one, or from a mount namespace in which it is an empty directory, would take
every running container for dead: that is refused, and nothing is touched. A reboot voids the record;
so does the end of the last container once the first exec root is gone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Unavailable
from ..files import set_mode
from ..kernel.process import boot_id, process_lives
from ..locks import take_directory

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..store import ContainerRow, Store

_KEY = "exec_root"  # in the store's facts


class Owner(NamedTuple):
    """Whose an exec root is: the file `owner` in it. `token` names this very mount."""

    root: str
    engine_id: str
    token: str


class Memory(NamedTuple):
    """Which exec root a root uses, since which boot."""

    path: str
    boot_id: str
    token: str


def claim_exec_root(store: Store, kernel: Kernel, root: str, exec_root: str) -> None:
    """Make `exec_root` this root's own, and mount it, unless it is both already.

    Raises Unavailable, naming the other: it belongs to another root, or this root uses another.
    """
    owner = read_owner(exec_root)
    if owner is not None and recall(store.meta_at_open) == Memory(
        exec_root, boot_id(), owner.token
    ):
        return
    with take_directory(root), take_directory(exec_root):
        owner = read_owner(exec_root)
        if owner is not None and owner.engine_id != store.engine_id:
            check_owner(exec_root, owner, root)
            owner = None
        memory = recall(store.meta())
        token = owner.token if owner is not None else secrets.token_hex(16)
        wanted = Memory(exec_root, boot_id(), token)
        if memory is not None and memory.boot_id == boot_id() and memory != wanted:
            check_memory(store.containers(), memory, exec_root, root)
        if not os.path.ismount(exec_root):
            # a private tmpfs: fast, voided by a reboot, and its mounts propagate nowhere
            kernel.tmpfs_mount(exec_root, "mode=700")
        if owner is None:
            write_owner(exec_root, Owner(root, store.engine_id, token))
        if memory != wanted and not _read_only(root):  # nothing can start there anyway
            store.set_meta(_KEY, json.dumps(wanted))


def check_owner(exec_root: str, owner: Owner, root: str) -> None:
    """Unavailable when the exec root belongs to another root that may still need it."""
    if owner.root == root:
        return  # this root was removed and made again
    if os.path.exists(f"{owner.root}/pynetns.db") or _entries(f"{exec_root}/tasks"):
        raise Unavailable(
            f"--exec-root {exec_root} : belongs to root {owner.root}: "
            f"give root {root} an exec root of its own (--exec-root, PYNETNS_EXEC_ROOT)"
        )


def check_memory(rows: list[ContainerRow], memory: Memory, exec_root: str, root: str) -> None:
    """Unavailable when the root's containers are to be reached by another exec root."""
    living = next((row for row in rows if row.state.running and process_lives(row.state)), None)
    there = read_owner(memory.path)
    if there is not None and there.token == memory.token:
        raise Unavailable(
            f"--exec-root {exec_root} : root {root} uses exec root {memory.path}: give that one "
            "(--exec-root, PYNETNS_EXEC_ROOT; sudo drops variables), "
            f"or unmount it once none of its containers runs (umount {memory.path})"
        )
    if living is not None:
        raise Unavailable(
            f"--exec-root {exec_root} : container {living.name} of root {root} runs (pid "
            f"{living.state.pid}), and its exec root {memory.path} is not to be seen from here: it "
            "is mounted in another mount namespace (a private /run or /tmp, unshare -m). Work from "
            f"there, or end the container (kill {living.state.pid}) first; nothing was touched"
        )


def read_owner(exec_root: str) -> Owner | None:
    """Whose the exec root is; None when it is nobody's (yet). OSError when it cannot be told."""
    try:
        with open(f"{exec_root}/owner", encoding="utf-8", errors="surrogateescape") as file:
            return Owner(**json.loads(file.read()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def write_owner(exec_root: str, owner: Owner) -> None:
    """Beside, then in place."""
    fresh = f"{exec_root}/owner.new"
    with open(fresh, "w", encoding="utf-8", errors="surrogateescape") as file:
        set_mode(file.fileno(), 0o600)
        file.write(json.dumps(owner._asdict()))
    os.rename(fresh, f"{exec_root}/owner")


def recall(facts: Mapping[str, str]) -> Memory | None:
    """The exec root that the root remembers; None before the first one."""
    try:
        return Memory(*json.loads(facts[_KEY]))
    except (KeyError, ValueError, TypeError):
        return None


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _read_only(directory: str) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
