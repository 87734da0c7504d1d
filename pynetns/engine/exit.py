"""The end of a container: noticed, recorded, its resources given back.

Nobody watches in the background: the shim writes how a task ended, and whoever next waits for, reads
or changes the container settles it here. State is written before resources are freed, so that a
crash in between leaves only what restore.py finds and removes.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..model.state import State, rfc3339
from ..runtime.shim import Exit
from ..runtime.task import delete_bundle, is_shared, read_exit, task_directory
from ..trace import step
from .lock import container_lock, remove_lock, try_container_lock

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .core import Engine

_PF_EXITING = 0x4  # include/linux/sched.h, in the flags of /proc/pid/stat
LOST = 255  # exit code of a container whose end nobody saw, as dockerd after its own crash


def settle_exit(engine: Engine, row: ContainerRow) -> ContainerRow:
    """With the container's lock held: if its process has ended, record that and free what it had.

    Returns the row as it is afterwards.
    """
    if not row.state.running:
        return row
    ended = find_exit(engine, row)
    if ended is None:
        return row
    with step("settle_exit"):
        state = exited_state(row.state, ended, engine.cgroups.oom_killed(row.id))
        with engine.store.transaction():
            engine.store.set_state(row.id, state)
            engine.store.set_network(row.id, row.network.clean_operational_data())
            engine.store.add_event(
                "container", "die", row.id, {"name": row.name, "exitCode": str(ended.code)}
            )
        release_resources(engine, row.id)
    settled = engine.store.container(row.id)
    assert settled is not None
    return settled


def exited_state(state: State, ended: Exit, oom_killed: bool) -> State:
    """The state after an end; pure."""
    return replace(
        state,
        status="exited",
        pid=0,
        start_ticks=0,
        exit_code=ended.code,
        oom_killed=oom_killed,
        finished_at=rfc3339(ended.finished),
    )


def release_resources(engine: Engine, container_id: str) -> None:
    """Give back everything a run holds in the kernel and in the exec root; each part idempotent."""
    # a namespace that others use lives on: its link must not keep the address
    shared = is_shared(engine.exec_root, container_id)
    engine.network.sandbox_destroy(container_id, links=shared)
    engine.cgroups.remove(container_id)
    engine.rootfs.release_shm(container_id)
    delete_bundle(engine.exec_root, container_id)


def find_exit(engine: Engine, row: ContainerRow) -> Exit | None:
    """How the container's process ended; None while it lives."""
    from .core import BOOT_ID

    directory = task_directory(engine.exec_root, row.id)
    ended = read_exit(directory)
    if ended is not None:
        return ended
    if row.state.boot_id != BOOT_ID:
        return Exit(LOST, time.time_ns())
    if process_lives(row.state) and row.id in engine.shim.tasks():
        return None
    ended = read_exit(directory)  # it may have ended while we looked
    if ended is not None:
        return ended
    if row.id in engine.shim.tasks():
        return None  # the process is gone, its record is being written
    end_orphan(engine, row)
    return Exit(LOST, time.time_ns())


def process_lives(state: State) -> bool:
    """Whether the very process of the state is there: same pid, same start time."""
    from .start import start_ticks

    if state.pid <= 0:
        return False
    ticks = start_ticks(state.pid)
    return ticks != 0 and state.start_ticks in (0, ticks)


def is_ending(state: State) -> bool:
    """Whether the very process of the state is gone or on its way out: such a process is still
    there, but its namespaces take nobody in any more. proc(5), /proc/pid/stat: state, flags."""
    if not process_lives(state):
        return True
    try:
        with open(f"/proc/{state.pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _PF_EXITING)


def end_orphan(engine: Engine, row: ContainerRow) -> None:
    """The shim was killed: its containers have lost their parent, log and exit code. End them."""
    import signal

    state = row.state
    try:
        pidfd = os.pidfd_open(state.pid)
    except (ProcessLookupError, OSError):
        return
    try:
        if state.start_ticks and process_lives(state):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            wait_for_pidfd(pidfd)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    engine.cgroups.kill_all(row.id)


def wait_for_pidfd(pidfd: int) -> None:
    """Wait until the process behind `pidfd` has ended."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()


def refresh(engine: Engine, row: ContainerRow) -> ContainerRow:
    """For readers: settle an end that has its record, unless somebody else holds the container.

    Never waits for a lock; a container that is being changed is shown as the store has it.
    """
    if not row.state.running:
        return row
    if not has_ended(engine, row):
        return row
    with try_container_lock(engine.exec_root, row.id) as held:
        if not held:
            return row
        current = engine.store.container(row.id)
        if current is None:
            return row
        row = settle_exit(engine, current)
    remove_if_wanted(engine, row)
    return row


def has_ended(engine: Engine, row: ContainerRow) -> bool:
    """Cheap look: is there an exit record, or no such process, or no shim any more?"""
    from .core import BOOT_ID

    directory = task_directory(engine.exec_root, row.id)
    return (
        row.state.boot_id != BOOT_ID
        or os.path.exists(f"{directory}/exit")
        or not process_lives(row.state)
        or not engine.shim.alive()
    )


def settle_now(engine: Engine, container_id: str) -> ContainerRow | None:
    """Take the lock, settle, then auto-remove where wanted; the row as settled.

    None when the container was removed by somebody else before.
    """
    with container_lock(engine.exec_root, container_id):
        row = engine.store.container(container_id)
        if row is None:
            remove_lock(engine.exec_root, container_id)
            return None
        row = settle_exit(engine, row)
    remove_if_wanted(engine, row)
    return row


def recorded_exit_code(engine: Engine, container_id: str) -> int:
    """The last exit code of a container that is gone, from its `die` event; LOST without one."""
    for event in reversed(engine.store.events()):
        if event.actor_id == container_id and event.action == "die":
            return int(event.attributes["exitCode"])
    return LOST


def remove_if_wanted(engine: Engine, row: ContainerRow) -> bool:
    """Remove an ended container that was created with auto-remove."""
    if row.state.running or not row.state.started_before:
        return False
    if not engine.record(row.id).host_config.auto_remove:
        return False
    from .remove import container_remove

    with suppress(NotFound):  # somebody else was faster
        container_remove(engine, row.id, force=True)
    return True
