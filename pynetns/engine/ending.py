"""The end of a container: noticed, recorded, its resources given back.

Nobody watches in the background: the shim writes how a task ended, and whoever next waits for, reads
or changes the container settles it here. State is written before resources are freed, so that a
crash in between leaves only what recover.py finds and removes.

A process that lives is never taken for dead. Where no shim runs any more, it is looked at, signalled
and waited for by its own descriptor; where a shim runs that cannot be asked, nothing is concluded.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import Unavailable
from ..forks import Descriptors
from ..kernel import pidfd as pidfds
from ..kernel.process import Recorded, recorded
from ..model.state import State, rfc3339
from ..runtime.shim.protocol import Exit
from ..runtime.task import delete_bundle, is_shared, read_exit, task_directory, write_exit
from ..trace import step
from .bundles import ensure_bundle, keep_exit, put_back
from .lock import container_lock

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services

log = logging.getLogger("pynetns")

LOST = 255  # exit code of a container whose end nobody saw, as dockerd after its own crash


def settle_exit(engine: Services, row: ContainerRow) -> ContainerRow:
    """With the container's lock held: if its process has ended, record that and free what it had.

    Returns the row as it is afterwards. Where the store cannot be written (a full disk), the row
    tells of the end all the same; its record stays, and the next one who looks tries again.
    Unavailable when the end cannot be told from a life, because the shim cannot be asked.
    """
    if not row.state.running:
        return row
    ended = find_exit(engine, row)
    if ended is None:
        return row
    with step("settle_exit"):
        state = exited_state(row.state, ended, engine.cgroups.oom_killed(row.id))
        if row.summary is not None and row.summary.auto_remove:
            state = state.become("removing")  # in the same write: no crash makes us forget it
        settled = row._replace(state=state, network=row.network.clean_operational_data())
        try:
            engine.store.atomically(lambda: record_exit(engine, settled))
        except Unavailable as error:
            log.info("container %s has ended, which cannot be recorded : %s", row.name, error)
            return settled
        release_resources(engine, row.id)
    return settled


def record_exit(engine: Services, row: ContainerRow) -> None:
    """State, network settings and event of an end; the event names the run."""
    engine.store.set_run(row.id, row.state, row.network)
    attributes = {
        "name": row.name,
        "exitCode": str(row.state.exit_code),
        "run": str(row.state.run),
    }
    engine.store.add_event("container", "die", row.id, attributes)


def note(engine: Services, row: ContainerRow, action: str, **attributes: str) -> None:
    """Add an event about what has been done already: that it cannot be written undoes nothing."""
    try:
        engine.store.add_event("container", action, row.id, {"name": row.name, **attributes})
    except Unavailable as error:
        log.info("container %s : event %s is not recorded : %s", row.name, action, error)


def exited_state(state: State, ended: Exit, oom_killed: bool) -> State:
    """The state after an end; pure."""
    return state.become(
        "exited",
        pid=0,
        start_ticks=0,
        exit_code=ended.code,
        oom_killed=oom_killed,
        finished_at=rfc3339(ended.finished),
    )


def release_resources(engine: Services, container_id: str) -> None:
    """Give back everything a run holds in the kernel and in the exec root; each part idempotent."""
    # a namespace that others use lives on: its link must not keep the address
    shared = is_shared(engine.exec_root, container_id)
    engine.network.sandbox_destroy(container_id, links=shared)
    engine.cgroups.remove(container_id)
    engine.rootfs.release_shm(container_id)
    delete_bundle(engine.exec_root, container_id)


def find_exit(engine: Services, row: ContainerRow) -> Exit | None:
    """How the container's process ended; None while it lives. Unavailable when its process is gone,
    but the shim, which knows how it ended, cannot be asked."""
    directory = task_directory(engine.exec_root, row.id)
    ended = read_exit(directory)
    if ended is not None:
        return ended
    if row.state.boot_id != engine.kernel.boot_id():
        return Exit(LOST, time.time_ns())
    if engine.kernel.process_lives(recorded(row.state)):
        return None
    if not os.path.isdir(directory) and put_back(engine, row.id):
        ended = read_exit(directory)  # the shim could not record it, and does now
        if ended is not None:
            return ended
    if engine.shim.tasks().get(row.id) == row.state.pid:
        return None  # the process is gone, its record is being written; or it is out of sight
    return read_exit(directory) or Exit(LOST, time.time_ns())


def is_ending(engine: Services, state: State) -> bool:
    """Whether the process of the state is gone or on its way out: such a process is still there, but
    its namespaces take nobody in any more."""
    return engine.kernel.process_is_ending(recorded(state))


def send_signal(engine: Services, row: ContainerRow, number: int) -> bool:
    """Signal the first process of the run that the row tells of, by the shim or without it; False
    when that has ended, whatever runs by now."""
    try:
        if engine.shim.signal(row.id, number, pid=row.state.pid):
            return True
    except Unavailable as error:
        log.warning("container %s is signalled without its shim : %s", row.name, error)
    with Descriptors() as fds:
        try:
            fds.append(engine.kernel.process_open(recorded(row.state)))
        except ProcessLookupError:
            return False
        sent = engine.kernel.pidfd_send_signal(fds[0], number)
    if number == signal.SIGKILL:
        engine.cgroups.kill_all(row.id)
    return sent


def await_end(
    engine: Services, row: ContainerRow, timeout: float | None = None, *, locked: bool = False
) -> Exit | None:
    """Wait until the process of the row's run has ended, by the shim or without it. None when it is
    to be found on record. `locked`: whether the caller holds the container's lock. TimeoutError
    after `timeout` seconds."""
    started = time.monotonic()
    ensure_bundle(engine, row)
    try:
        ended = engine.shim.wait(row.id, timeout, pid=row.state.pid)
    except Unavailable as error:
        log.warning("container %s is waited for without its shim : %s", row.name, error)
        ended = None
    if ended is not None:
        keep_exit(engine, row, ended)
        return ended
    left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
    return await_orphan(engine, row, left, locked)


def await_orphan(
    engine: Services, row: ContainerRow, timeout: float | None, locked: bool
) -> Exit | None:
    """Wait for a process that has lost its shim, and write the record which that would have
    written, as far as the kernel tells how the process ended."""
    with Descriptors() as fds:
        try:
            fds.append(engine.kernel.process_open(recorded(row.state)))
        except ProcessLookupError:
            return None
        if not pidfds.ended(fds[0], timeout):
            raise TimeoutError
        code = engine.kernel.pidfd_exit_code(fds[0], row.state.pid, row.state.start_ticks)
    ended = Exit(LOST if code is None else code, time.time_ns())
    with nullcontext() if locked else container_lock(engine.exec_root, row.id):
        now = engine.store.container(row.id)
        if now is None or not now.state.running or now.state.run != row.state.run:
            return None  # settled: the bundle is another run's, or gone
        directory = task_directory(engine.exec_root, row.id)
        if row.id not in engine.shim.tasks():
            write_exit(directory, ended)
        return read_exit(directory)


def has_ended(engine: Services, row: ContainerRow) -> bool:
    """Cheap look: is there an exit record, or no such process?"""
    return process_has_ended(engine, row.id, row.state)


def process_has_ended(engine: Services, container_id: str, process: Recorded) -> bool:
    """The same for a container's process by itself."""
    directory = task_directory(engine.exec_root, container_id)
    return (
        process.boot_id != engine.kernel.boot_id()
        or os.path.exists(f"{directory}/exit")
        or not engine.kernel.process_lives(recorded(process))
    )


def recorded_exit_code(engine: Services, container_id: str, run: int) -> int:
    """The exit code of an earlier run, or of a container that is gone, from its `die` event; LOST
    without one."""
    for event in engine.store.events_of(container_id, "die"):
        if event.attributes.get("run", str(run)) == str(run):
            return int(event.attributes["exitCode"])
    return LOST


def end_task(engine: Services, container_id: str) -> None:
    """End a program whose start did not become the container's state; fine when there is none."""
    if engine.shim.signal(container_id, signal.SIGKILL):
        engine.shim.wait(container_id)
