"""The running containers whose namespaces a start joins: network, ipc and pid mode "container:<id>".

Owns: their look-up, one per start, and the agreement between who joins and an owner that ends: under the
owner's lock, by which its end is settled too, it is seen to run and its network is marked as shared. So
an end finds the mark, or the one who joins finds the end. Whoever joins holds its own lock meanwhile;
owners run, and a lock of one that runs is held by nobody who waits for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Conflict, KernelError, StartFailed
from ..kernel.process import ProcessIdentity, recorded
from ..network.request import Networked
from ..runtime.task import mark_shared
from .ending import has_ended
from .lock import container_lock
from .lookup import get_container_id
from .record import ContainerRecord, container_directory
from .recover import release_unowned

if TYPE_CHECKING:
    from .services import Services
    from .starting import Starting

_JOIN = "container:"


@dataclass(frozen=True, slots=True)
class Joined:
    """A container whose namespace another one takes, as it ran when it was looked up."""

    id: str
    process: ProcessIdentity
    sandbox_key: str
    record: ContainerRecord


def join_containers(engine: Services, container: Starting) -> dict[str, Joined]:
    """The containers that the modes name, by the namespace's type. Conflict when one does not run."""
    host_config = container.record.host_config
    modes = {
        "network": host_config.network_mode,
        "ipc": host_config.ipc_mode,
        "pid": host_config.pid_mode,
    }
    names = {
        kind: mode.removeprefix(_JOIN) for kind, mode in modes.items() if mode.startswith(_JOIN)
    }
    if not names:
        return {}
    ids = {name: get_container_id(engine.store, name) for name in dict.fromkeys(names.values())}
    for kind, name in names.items():
        if ids[name] == container.id:
            raise Conflict(f"cannot join own {kind}")
    found = {
        other: join_container(engine, other, [k for k, name in names.items() if ids[name] == other])
        for other in dict.fromkeys(ids.values())
    }
    return {kind: found[ids[name]] for kind, name in names.items()}


def join_container(engine: Services, other: str, kinds: Iterable[str]) -> Joined:
    """One of them, seen to run; its network is shared from here on."""
    with container_lock(engine.exec_root, other):
        row = engine.store.container(other)
        if row is None:
            release_unowned(engine, other)
        if row is None or not row.state.running or has_ended(engine, row):
            what = "network" if "network" in kinds else "the namespace"
            raise Conflict(f"cannot join {what} of a non running container: {other}")
        record = engine.record(other)
        if "network" in kinds:
            mark_shared(engine.exec_root, other)
        return Joined(other, recorded(row.state), row.network.sandbox_key, record)


@contextmanager
def owners_running(engine: Services, joined: Mapping[str, Joined]) -> Iterator[None]:
    """Around all that opens what is theirs: it was, if they run still at the end. Conflict when one
    has ended: what it shared may have been taken down before it was opened, which fails or not."""
    try:
        yield
    except (KernelError, OSError, StartFailed):
        check_joined(engine, joined)
        raise
    check_joined(engine, joined)


def check_joined(engine: Services, joined: Mapping[str, Joined]) -> None:
    """Conflict when one of them has ended."""
    for kind, owner in joined.items():
        if not engine.kernel.process_lives(owner.process):
            raise Conflict(f"cannot join the {kind} of a container that is not running: {owner.id}")


def networked(engine: Services, joined: Mapping[str, Joined]) -> Networked | None:
    """The container whose network is shared, with its name files. moby getNetworkedContainer."""
    owner = joined.get("network")
    if owner is None:
        return None
    directory = container_directory(engine.root, owner.id)
    return Networked(
        container_id=owner.id,
        process=owner.process,
        sandbox_key=owner.sandbox_key,
        hostname=owner.record.hostname,
        domainname=owner.record.config.domainname,
        hosts_path=f"{directory}/hosts",
        resolv_conf_path=f"{directory}/resolv.conf",
        hostname_path=f"{directory}/hostname",
    )
