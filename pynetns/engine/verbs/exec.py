"""One more process in a running container. moby daemon/exec.go; Docker Engine API `Exec`.

Owns: exec ids, the process block made from the container's own spec, and waiting for the end. An
exec is a task of the shim like a container, its output goes straight to whoever asked for it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import Conflict, KernelError, NotFound, StartFailed, clear_errors
from ...forks import Descriptors
from ...kernel import frame
from ...kernel.process import ProcessIdentity, process_root, recorded
from ...runtime.plan.render import Handles, render_exec_plan
from ...runtime.security.capabilities import machine_capabilities
from ...runtime.security.seccomp import load_filter
from ...runtime.spec.user import User, get_user
from ...runtime.task import Attach, Task, delete_bundle, read_exit, task_directory
from ...trace import step
from ..container_spec import environment_with, read_user_files
from ..ending import is_ending, note
from ..recover import refresh

if TYPE_CHECKING:
    from ...store import ContainerRow
    from ..services import Services


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """What to run. `user` and `working_dir` "" are the container's own; `winsize` rows, columns."""

    cmd: Sequence[str]
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    winsize: tuple[int, int] = (0, 0)


class Exec:
    """A running exec. `direct`: the program itself holds the pipes it was given, not the shim."""

    def __init__(
        self, engine: Services, container_id: str, exec_id: str, pid: int, *, direct: bool = False
    ) -> None:
        self._engine = engine
        self._container_id = container_id
        self.id = exec_id
        self.pid = pid
        self._direct = direct
        self._key = f"{container_id}/{exec_id}"
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code (137 when the container went down with it)."""
        if self._code is None:
            directory = task_directory(self._engine.exec_root, self._key)
            ended = self._engine.shim.wait(self.id, timeout) or read_exit(directory)
            self._code = ended.code if ended is not None else 137
            delete_bundle(self._engine.exec_root, self._key)
        return self._code

    @contextmanager
    def ending(self) -> Iterator[int]:
        """A descriptor that becomes readable when it has ended, for whoever reads its pipes: they
        may be held open by its background jobs. -1 where the shim ends them (a terminal)."""
        connection = self._engine.shim.waiter(self.id) if self._direct else None
        if connection is None:
            yield -1
            return
        with connection:
            yield connection.fileno()

    def signal(self, signal: int) -> bool:
        """Send it a signal; False when it has ended."""
        return self._engine.shim.signal(self.id, signal)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self._engine.shim.resize(self.id, rows, columns)


@clear_errors
def container_exec(engine: Services, container_id: str, config: ExecConfig, attach: Attach) -> Exec:
    """Start a process in the container; returns when it has been executed.

    Raises Conflict (not running, paused, ends meanwhile), StartFailed with exit code 126 or 127.
    """
    with step("container_exec"), ExitStack() as scope:
        row = engine.store.container(container_id)
        if row is None:
            raise NotFound(f"No such container: {container_id}")
        row = refresh(engine, row)
        if row.state.paused:
            raise Conflict(f"Container {row.name} is paused, unpause the container before exec")
        if not row.state.running:
            raise Conflict(f"Container {row.name} is not running")
        owner = recorded(row.state)
        exec_id = secrets.token_hex(32)
        with ending_is_conflict(row):
            spec = read_spec(engine, container_id)
            process = exec_process(engine, container_id, spec, owner, config)
            joining = Joining(container_id, exec_id, spec, process, owner, config, attach)
            pid = start_exec(engine, joining, scope)
        note(engine, row, "exec_start", execID=exec_id)
        return Exec(engine, container_id, exec_id, pid, direct=not config.tty)


@contextmanager
def ending_is_conflict(row: ContainerRow) -> Iterator[None]:
    """Whatever fails inside because the container ends at that moment is a Conflict that says so:
    its namespaces, its cgroup, its directories go one after the other."""
    try:
        yield
    except (KernelError, OSError, StartFailed) as error:
        if is_ending(row.state):
            raise Conflict(f"Container {row.name} is not running") from error
        if isinstance(error, StartFailed) and error.exit_code != 127:
            raise StartFailed(str(error), 126) from error  # an exec has no other, as in Docker
        raise


def read_spec(engine: Services, container_id: str) -> dict[str, Any]:
    """The spec the container runs by: that of its bundle."""
    path = f"{task_directory(engine.exec_root, container_id)}/config.json"
    try:
        with open(path, encoding="utf-8") as file:
            spec: dict[str, Any] = json.load(file)
    except FileNotFoundError as error:
        raise Conflict(f"Container {container_id} is not running") from error
    return spec


def exec_process(
    engine: Services,
    container_id: str,
    spec: Mapping[str, Any],
    owner: ProcessIdentity,
    config: ExecConfig,
) -> dict[str, Any]:
    """The OCI process block: the container's, with what the exec changes. moby execSetPlatformOpt."""
    process = dict(spec["process"])
    process["args"] = list(config.cmd)
    process["terminal"] = config.tty
    base = process["env"]
    if config.working_dir:
        process["cwd"] = config.working_dir
    if config.user:
        record = engine.record(container_id)
        user = exec_user(engine, owner, config.user, record.host_config.group_add)
        process["user"] = {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": list(user.additional_gids),
        }
        if not any(entry.startswith("HOME=") for entry in record.config.env):
            base = [
                *(entry for entry in base if not entry.startswith("HOME=")),
                f"HOME={user.home}",
            ]
    process["env"] = environment_with(base, config.env, tty=config.tty)
    process["capabilities"] = exec_capabilities(process, config.privileged)
    return process


def exec_user(
    engine: Services, owner: ProcessIdentity, user: str, group_add: Sequence[str]
) -> User:
    """The user in the container's own files, with the groups that the container adds."""
    with Descriptors() as fds:
        fds.append(process_root(owner))
        return get_user(*read_user_files(engine.kernel, fds[0]), user, group_add)


def exec_capabilities(process: Mapping[str, Any], privileged: bool) -> dict[str, Any]:
    """The container's bounding set (all that there is when `privileged`); only root has it in
    effect: what root alone may read or execute is out of reach for any other user."""
    if privileged:
        bounding = list(machine_capabilities())
    else:
        bounding = list((process.get("capabilities") or {}).get("bounding") or ())
    own = bounding if process["user"]["uid"] == 0 else []
    return {"bounding": bounding, "effective": own, "permitted": own}


@dataclass(frozen=True, slots=True)
class Joining:
    """An exec about to start."""

    container_id: str
    exec_id: str
    spec: dict[str, Any]
    process: dict[str, Any]
    owner: ProcessIdentity
    config: ExecConfig
    attach: Attach


def start_exec(engine: Services, joining: Joining, scope: ExitStack) -> int:
    """Its pid, once it has been executed. A container that may have no process more is no obstacle:
    then it starts outside and moves in."""
    handles = open_exec_handles(engine, joining, scope)
    directory = f"{task_directory(engine.exec_root, joining.container_id)}/{joining.exec_id}"
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError as error:
        raise Conflict(f"Container {joining.container_id} is not running") from error
    try:
        return execute(engine, joining, handles, directory, scope)
    except BaseException:  # nobody will wait for it
        delete_bundle(engine.exec_root, f"{joining.container_id}/{joining.exec_id}")
        raise


def execute(
    engine: Services, joining: Joining, handles: Handles, directory: str, scope: ExitStack
) -> int:
    try:
        return exec_task(engine, joining, handles, directory).start()
    except StartFailed as error:
        if not is_crowded(error):
            raise
    crowded = replace(handles, cgroup_joins=moving_in(handles, scope))
    return exec_task(engine, joining, crowded, directory, crowded=True).start()


def is_crowded(error: StartFailed) -> bool:
    """Whether the container's pids limit was in the way of the very first step."""
    cause = error.__cause__
    return (
        isinstance(cause, KernelError)
        and cause.errno == errno.EAGAIN
        and cause.step in ("clone", "fork")
    )


def moving_in(handles: Handles, scope: ExitStack) -> Sequence[int]:
    """The files through which a process moves into each of the container's cgroups."""
    if handles.cgroup < 0:
        return handles.cgroup_joins
    fds = scope.enter_context(Descriptors())
    fds.append(os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=handles.cgroup))
    return (*fds, *handles.cgroup_joins)


def open_exec_handles(engine: Services, joining: Joining, scope: ExitStack) -> Handles:
    """What the joining process needs of the outside."""
    fds = scope.enter_context(Descriptors())
    fds.append(joining.owner.open())
    fds.append(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    cgroup = engine.cgroups.open(joining.container_id)
    scope.callback(cgroup.close)
    return Handles(
        rootfs=-1, cgroup=cgroup.v2_fd, cgroup_joins=cgroup.join_fds, pidfd=fds[0], proc=fds[1]
    )


def exec_task(
    engine: Services, joining: Joining, handles: Handles, directory: str, *, crowded: bool = False
) -> Task:
    """The task, created."""
    config, spec = joining.config, joining.spec
    seccomp = b""
    if spec["linux"].get("seccomp") and not config.privileged:
        seccomp = load_filter(spec["linux"]["seccomp"], f"{engine.root}/seccomp")
    plan = render_exec_plan(
        spec, joining.process, handles, seccomp, config.winsize, crowded=crowded
    )
    flags = frame.SPAWN_TTY if config.tty else frame.SPAWN_DIRECT
    if config.stdin:
        flags |= frame.SPAWN_STDIN | frame.SPAWN_STDIN_ONCE
    task = Task(
        shim=engine.shim,
        key=joining.exec_id,
        directory=directory,
        flags=flags,
        attach=joining.attach,
    )
    task.create(plan)
    return task


__all__ = ["Exec", "ExecConfig", "container_exec"]
