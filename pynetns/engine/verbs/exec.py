"""One more process in a running container. moby daemon/exec.go; Docker Engine API `Exec`.

Owns: exec ids, the process block made from the container's own spec, and waiting for the end. An
exec is a task of the shim like a container, its output goes straight to whoever asked for it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import Conflict, KernelError, StartFailed, clear_errors
from ...kernel.process import ProcessIdentity, recorded
from ...runtime.entering import Entering, enter
from ...runtime.security.capabilities import machine_capabilities
from ...runtime.security.seccomp import load_filter
from ...runtime.spec.user import User, get_user
from ...runtime.task import Attach, read_exit, stdio_flags, task_directory
from ...trace import step
from ..adopt import ensure_spec
from ..container_spec import environment_with
from ..credentials import read_user_files
from ..ending import is_ending, note
from ..exec_record import ExecRecord, sweep_records
from ..recover import current

if TYPE_CHECKING:
    from ...store import ContainerRow
    from ..services import Services


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """What to run. `user` and `working_dir` "" are the container's own; `winsize` rows, columns.
    `detach`: nobody will ask how it ended, and it is not kept."""

    cmd: Sequence[str]
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    winsize: tuple[int, int] = (0, 0)
    detach: bool = False


class Exec:
    """A running exec. `direct`: the program itself holds the pipes it was given, not the shim."""

    def __init__(
        self,
        engine: Services,
        exec_id: str,
        pid: int,
        record: ExecRecord | None,
        *,
        direct: bool = False,
    ) -> None:
        self._engine = engine
        self.id = exec_id
        self.pid = pid
        self._record = record
        self._direct = direct
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code (137 when the container went down with it).

        TimeoutError after `timeout` seconds; Conflict for a detached one that has ended: its code
        is not kept.
        """
        if self._code is None:
            ended = self._engine.shim.wait(self.id, timeout)
            if self._record is None and ended is None:
                raise Conflict(f"exec {self.id[:12]} is detached: its exit code was not kept")
            if self._record is not None:
                ended = ended or read_exit(self._record.directory)
                self._record.remove()
            self._code = ended.code if ended is not None else 137
        return self._code

    @contextmanager
    def ending(self) -> Iterator[int]:
        """A descriptor that becomes readable when it has ended, for whoever reads its pipes: they
        may be held open by its background jobs. -1 where the shim ends them (a terminal)."""
        fd = self._engine.shim.waiter(self.id) if self._direct else -1
        try:
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    def signal(self, signal: int) -> bool:
        """Send it a signal; False when it has ended."""
        return self._engine.shim.signal(self.id, signal)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self._engine.shim.resize(self.id, rows, columns)


@clear_errors
def container_exec(engine: Services, container_id: str, config: ExecConfig, attach: Attach) -> Exec:
    """Start a process in the container; returns when it has been executed.

    Raises Conflict (not running, ends meanwhile), StartFailed with exit code 126 or 127.
    """
    with step("container_exec"), ExitStack() as scope:
        row = current(engine, container_id)
        if not row.state.running:
            raise Conflict(f"Container {row.name} is not running")
        owner = recorded(row.state)
        exec_id = secrets.token_hex(32)
        with ending_is_conflict(engine, row):
            spec = read_spec(engine, row)
            entering = enter_request(engine, container_id, exec_id, spec, owner, config, attach)
            pid, record = start_exec(engine, entering, scope, detach=config.detach)
        note(engine, row, "exec_start", execID=exec_id)
        return Exec(engine, exec_id, pid, record, direct=not config.tty)


@contextmanager
def ending_is_conflict(engine: Services, row: ContainerRow) -> Iterator[None]:
    """Whatever fails inside because the container ends at that moment is a Conflict that says so:
    its namespaces, its cgroup, its directories go one after the other."""
    try:
        yield
    except (KernelError, OSError, StartFailed, ValueError) as error:  # of a spec half written
        if is_ending(engine, row.state):
            raise Conflict(f"Container {row.name} is not running") from error
        if isinstance(error, StartFailed) and error.exit_code != 127:
            raise StartFailed(str(error), 126) from error  # an exec has no other, as in Docker
        raise


def read_spec(engine: Services, row: ContainerRow) -> dict[str, Any]:
    """The spec the container runs by: that of its bundle."""
    ensure_spec(engine, row)
    path = f"{task_directory(engine.exec_root, row.id)}/config.json"
    try:
        with open(path, encoding="utf-8") as file:
            spec: dict[str, Any] = json.load(file)
    except FileNotFoundError as error:
        raise Conflict(f"Container {row.name} is not running") from error
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
    root = engine.kernel.process_root(owner)
    try:
        return get_user(*read_user_files(engine.kernel, root), user, group_add)
    finally:
        os.close(root)


def exec_capabilities(process: Mapping[str, Any], privileged: bool) -> dict[str, Any]:
    """The container's bounding set (all that there is when `privileged`); only root has it in
    effect: what root alone may read or execute is out of reach for any other user."""
    if privileged:
        bounding = list(machine_capabilities())
    else:
        bounding = list((process.get("capabilities") or {}).get("bounding") or ())
    own = bounding if process["user"]["uid"] == 0 else []
    return {"bounding": bounding, "effective": own, "permitted": own}


def start_exec(
    engine: Services, entering: Entering, scope: ExitStack, *, detach: bool
) -> tuple[int, ExecRecord | None]:
    """Its pid, once it has been executed, and where its end will be on record."""
    sweep_records(engine.exec_root, entering.owner_key)
    if detach:
        return enter(engine, entering, scope), None
    record = ExecRecord(engine.exec_root, entering.owner_key, entering.key)
    try:
        return enter(engine, replace(entering, directory=record.directory), scope), record
    except BaseException:  # nobody will wait for it
        record.remove()
        raise


def enter_request(
    engine: Services,
    container_id: str,
    exec_id: str,
    spec: dict[str, Any],
    owner: ProcessIdentity,
    config: ExecConfig,
    attach: Attach,
) -> Entering:
    """What the runtime needs to know of an exec. moby ContainerExecStart."""
    seccomp = b""
    if spec["linux"].get("seccomp") and not config.privileged:
        seccomp = load_filter(spec["linux"]["seccomp"], f"{engine.root}/seccomp")
    return Entering(
        owner_key=container_id,
        key=exec_id,
        directory="",
        spec=spec,
        process=exec_process(engine, container_id, spec, owner, config),
        owner=owner,
        seccomp=seccomp,
        flags=stdio_flags(config.tty, config.stdin, once=config.stdin, direct=True),
        attach=replace(attach, winsize=config.winsize),
    )


__all__ = ["Exec", "ExecConfig", "container_exec"]
