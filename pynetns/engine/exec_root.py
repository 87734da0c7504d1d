"""Which exec root belongs to which root: one to one, on record on both sides.

Owns: the mount of the exec root, its directories, its file `owner`, and the root's memory of it (in the
store). The exec root is where running containers are reached: their shim, their locks, how they ended.
Whoever opens a root with another one, or from a mount namespace in which it is an empty directory, would
take every running container for dead: that is refused, and nothing is touched. A reboot voids the record;
so does the end of the last container once the first exec root is gone.

One that is lost (unmounted, and seen by no process any more, or with its files deleted) is made again,
and adopt.py gives the containers that live on what they need there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Unavailable
from ..files import make_directories, set_mode
from ..kernel.process import recorded

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..store import ContainerRow, Store

log = logging.getLogger("pynetns")

PARTS = ("netns", "tasks", "locks", "image")
_KEY = "exec_root"  # in the store's facts


class Owner(NamedTuple):
    """Whose an exec root is: the file `owner` in it. `token` names this very mount."""

    root: str
    engine_id: str
    token: str


class Memory(NamedTuple):
    """Which exec root a root uses, since which boot. `device`: st_dev of its file system; 0 is not
    known (it was noted by an earlier version)."""

    path: str
    boot_id: str
    token: str
    device: int = 0


def claim_exec_root(store: Store, kernel: Kernel, root: str, exec_root: str) -> None:
    """Make `exec_root` this root's own, and mount it, unless it is both already.

    Raises Unavailable, naming the other: it belongs to another root, or this root uses another.
    """
    owner = read_owner(exec_root)
    memory = recall(store.meta_at_open)
    if owner is not None and memory and memory[:3] == (exec_root, kernel.boot_id(), owner.token):
        return
    with _locked(root), _locked(exec_root):
        owner = read_owner(exec_root)
        if owner is not None and owner.engine_id != store.engine_id:
            check_owner(exec_root, owner, root)
            owner = None
        memory = recall(store.meta())
        token = owner.token if owner is not None else secrets.token_hex(16)
        if memory and memory[:3] != (exec_root, kernel.boot_id(), token):
            check_memory(kernel, store.containers(running=True), memory, exec_root, root)
        if not kernel.is_mounted(exec_root):
            # a private tmpfs: fast, voided by a reboot, and its mounts propagate nowhere
            kernel.tmpfs_mount(exec_root, "mode=700")
        if owner is None:
            write_owner(exec_root, Owner(root, store.engine_id, token))
        wanted = Memory(exec_root, kernel.boot_id(), token, os.stat(exec_root).st_dev)
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


def check_memory(
    kernel: Kernel, rows: list[ContainerRow], memory: Memory, exec_root: str, root: str
) -> None:
    """Unavailable when the root's containers are to be reached by another exec root."""
    if memory.boot_id != kernel.boot_id():
        return  # nothing of it is left
    living = next((row for row in rows if kernel.process_lives(recorded(row.state))), None)
    there = read_owner(memory.path)
    if there is not None and there.token == memory.token:
        raise Unavailable(
            f"--exec-root {exec_root} : root {root} uses exec root {memory.path}: give that one "
            "(--exec-root, PYNETNS_EXEC_ROOT; sudo drops variables), "
            f"or unmount it once none of its containers runs (umount {memory.path})"
        )
    if living is None or (memory.path == exec_root and is_mounted(kernel, memory)):
        return  # in the latter case its file `owner` was deleted
    holder = find_holder(memory)
    if holder:
        raise Unavailable(
            f"--exec-root {exec_root} : container {living.name} of root {root} runs (pid "
            f"{living.state.pid}), and its exec root {memory.path} is not to be seen from here: it "
            f"is mounted in the mount namespace of process {holder} (a private /run or /tmp, unshare "
            f"-m). Work from there (nsenter -m -t {holder}), or end the container (kill "
            f"{living.state.pid}) first; nothing was touched"
        )
    log.warning(
        "exec root %s of root %s is mounted nowhere any more : %s takes its place, containers run on",
        memory.path,
        root,
        exec_root,
    )


def is_mounted(kernel: Kernel, memory: Memory) -> bool:
    """Whether the file system of the memory is mounted at its path, here."""
    if not kernel.is_mounted(memory.path):
        return False
    return memory.device in (0, os.stat(memory.path).st_dev)


def find_holder(memory: Memory) -> int:
    """A process in whose mount namespace the exec root of the memory is mounted; 0: there is none,
    so that nobody can come by it any more. Another one at the same path counts where it cannot be
    told from it. proc(5), /proc/pid/mountinfo."""
    seen = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            namespace = os.readlink(f"/proc/{name}/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            with open(
                f"/proc/{name}/mountinfo", encoding="utf-8", errors="surrogateescape"
            ) as file:
                if any(_is_mount_of(line, memory) for line in file):
                    return int(name)
        except OSError:
            continue  # it has ended
    return 0


def _is_mount_of(line: str, memory: Memory) -> bool:
    fields = line.split(" ")
    major, _, minor = fields[2].partition(":")
    device = os.makedev(int(major), int(minor))
    if memory.device:
        return device == memory.device and fields[3] == "/"
    path = memory.path.replace("\\", "\\134").replace(" ", "\\040")
    return fields[4] == path and " - tmpfs " in line


def make_parts(exec_root: str, is_mounted: Callable[[str], bool] = os.path.ismount) -> None:
    """Its directories, those that are missing. Unavailable where it is not mounted: what is made
    there would be below the next one."""
    missing = [name for name in PARTS if not os.path.isdir(f"{exec_root}/{name}")]
    if missing and not is_mounted(exec_root):
        raise Unavailable(
            f"--exec-root {exec_root} : is not mounted any more: open the engine anew (each command "
            "does), which mounts it again and takes over the containers that run"
        )
    for name in missing:
        make_directories(f"{exec_root}/{name}", 0o700)


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


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Alone with a directory. The one below a mount point, for whoever came before the mount."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child has a copy
        os.close(fd)
