"""The five verbs of the OCI runtime specification on a bundle, with no engine and no store.

Owns: what a container is to its runtime, `<root>/tasks/<id>/state.json`, and the order of its states.
Which of them holds is asked of the kernel: its very process lives or not, and waits at the pipe
exec.fifo or not. So nothing here can be stale, whoever was killed when. Containers live under the shim
of the root. What is accepted of a config.json is spec/bundle.py's; how a task is made creation.py's.
Source: OCI runtime spec, runtime.md; runc for what that leaves open. docs/oci-runtime.md.
"""

from __future__ import annotations

import os
import re
import signal as signals
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any

from ..errors import Conflict, InvalidParameter, Unavailable, clear_errors
from ..files import check_state_directory, make_directories
from ..kernel import Kernel, LinuxKernel
from ..kernel import pidfd as pidfds
from ..kernel.mount import MS_PRIVATE, MS_SLAVE
from ..kernel.process import ProcessIdentity
from ..model.state import rfc3339
from ..undo import Undo
from .cgroups import CgroupManager, clean_parent
from .cgroups.parents import check_unused
from .creation import Creation, check_not_ours, new_task, not_running, open_handles
from .handover import leave, prepared, resume
from .oci_state import ContainerState, StateDirectory
from .plan.render import render_plan
from .security.capabilities import machine_capabilities
from .security.seccomp import bundle_seccomp, load_filter
from .shim.client import Exit, ShimClient
from .spec.bundle import accept, joined_pid, load_bundle
from .spec.fields import named_by_field
from .task import (
    Attach,
    Task,
    delete_bundle,
    prepare_bundle_dir,
    read_exit,
    stdio_flags,
    task_directory,
    told_socket,
)

__all__ = ["Runtime"]

_ID = re.compile(r"[\w+.-]{1,71}", re.ASCII)  # runc's letters; the shim's length
_CREATING, _CREATED, _RUNNING, _STOPPED = "creating", "created", "running", "stopped"


class Runtime:
    """Containers whose state is in the directory `root`, which is made when it is missing.

    Any number of processes may use one root at once. `shim`: under which the containers live (one of
    the root, made when needed). `cgroup_parent`: below which those containers are that name no
    linux.cgroupsPath. Raises Unavailable. A context manager; containers go on after `close`.
    """

    def __init__(
        self,
        root: str,
        *,
        shim: ShimClient | None = None,
        cgroup_parent: str = "",
        kernel: Kernel | None = None,
    ) -> None:
        self.exec_root = os.path.realpath(root)
        self.kernel = kernel or LinuxKernel()
        parent = cgroup_parent or default_cgroup_parent(self.exec_root)
        self.cgroups = CgroupManager(self.kernel, parent)
        try:
            make_directories(f"{self.exec_root}/tasks", 0o700, 0o700)
        except OSError as error:
            raise Unavailable(f"{error.filename} : {error.strerror}") from error
        check_state_directory("root", f"{self.exec_root}/tasks")
        self._own_shim = shim is None
        self.shim = shim or ShimClient(self.exec_root, cgroup_procs=self.cgroups.open_shim_procs)

    # ---- the verbs ----

    @clear_errors
    def create(
        self,
        container_id: str,
        bundle: str,
        *,
        console_socket: str = "",
        stdio: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        """Make the container of the directory `bundle` (config.json and a root file system); returns
        when its process has prepared everything and waits for `start`.

        `stdio`: the program's, without a terminal; with one (process.terminal) its master is sent to
        whoever listens at the Unix socket `console_socket`, as runc does. Raises Conflict (the id or
        the cgroup is in use), InvalidParameter (a field, by its name), Unavailable, StartFailed; then
        nothing is left.
        """
        _check_id(container_id)
        bundle = os.path.realpath(bundle)
        spec = look_up(accept(load_bundle(bundle), bundle, machine_capabilities()))
        if bool(console_socket) != spec["process"]["terminal"]:
            raise InvalidParameter(
                "process.terminal: goes with a console socket, which its master is sent to"
            )
        with named_by_field(), Undo() as undo, undo, ExitStack() as scope:
            prepare_bundle_dir(self.exec_root, container_id, undo)
            place = scope.enter_context(self._place(container_id).locked())
            cgroup = self._cgroup_path(container_id, spec["linux"]["cgroupsPath"])
            state = ContainerState(
                id=container_id,
                oci_version=spec["ociVersion"],
                bundle=bundle,
                rootfs=spec["root"]["path"],
                created=rfc3339(time.time_ns()),
                annotations=spec["annotations"],
                program=spec["process"]["args"][0],
                cgroup=cgroup,
                joins=bool(joined_pid(spec["linux"]["namespaces"])),
            )
            place.write(state)
            task, told = self._begin(place, state, spec, console_socket, stdio, scope, undo)
            pid, run = prepared(task, self.shim, told)
            place.write(replace(state, process=ProcessIdentity.of(pid), run=run))
            undo.dismiss()
            leave(task, self.shim)

    @clear_errors
    def start(self, container_id: str) -> None:
        """Execute the program of a created container; returns when it runs. Raises NotFound,
        Conflict (it is not created), StartFailed (then it is stopped)."""
        with self._place(container_id).locked() as place:
            state = place.read()
            status = self._status(place, state, locked=True)
            if status != _CREATED:
                raise Conflict(f"container {container_id}: cannot start, it is {status}")
            task = Task(self.shim, container_id, place.path, program=state.program)
            try:
                task.go_fd = place.open_fifo()
                # first: it can fail before an answer could be asked for
                resume(task, self.shim, state.run)
                pid = task.start()
            finally:
                leave(task, self.shim)
            if state.process is None or pid != state.process.pid:  # it has joined a pid namespace
                place.write(replace(state, process=ProcessIdentity.of(pid)))

    def state(self, container_id: str) -> dict[str, Any]:
        """The container as the specification's JSON object: ociVersion, id, status, pid (0 when it
        has ended), bundle, annotations; and, as runc has them, rootfs and created. NotFound."""
        place = self._place(container_id)
        state = place.read()
        status = self._status(place, state)
        alive = status in (_CREATED, _RUNNING)
        return {
            "ociVersion": state.oci_version,
            "id": state.id,
            "status": status,
            "pid": self._process(state).pid if alive else 0,
            "bundle": state.bundle,
            "rootfs": state.rootfs,
            "created": state.created,
            "annotations": dict(state.annotations),
        }

    def kill(self, container_id: str, signal: int = signals.SIGTERM) -> None:
        """Send a signal to the container's process. NotFound; Conflict (neither created nor
        running); InvalidParameter."""
        place = self._place(container_id)
        state = place.read()
        if not 0 < signal <= signals.SIGRTMAX:
            raise InvalidParameter(f"signal {signal}: must be from 1 to {int(signals.SIGRTMAX)}")
        status = self._status(place, state)
        if status not in (_CREATED, _RUNNING):
            raise Conflict(f"container {container_id}: cannot be killed, it is {status}")
        if not self._send(state, signal):
            raise Conflict(f"container {container_id}: cannot be killed, it is {_STOPPED}")

    @clear_errors
    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove a stopped container and everything it had; `force`: end it first. NotFound;
        Conflict (it is not stopped)."""
        with self._place(container_id).locked() as place:
            state = place.read()
            status = self._status(place, state, locked=True)
            if status != _STOPPED and not force:
                raise Conflict(f"container {container_id}: cannot be deleted, it is {status}")
            if status != _STOPPED or state.process is None:
                self._end(state)
            if state.cgroup:
                self.cgroups.remove_path(state.cgroup)
            delete_bundle(self.exec_root, container_id)

    def wait(self, container_id: str, timeout: float | None = None) -> Exit | None:
        """Until the container has ended: its exit code (128 + n after signal n) and the time; None of
        one that has ended before without its program having run. NotFound, TimeoutError after
        `timeout` seconds."""
        place = self._place(container_id)
        place.read()
        ended = self.shim.wait(container_id, timeout)
        return read_exit(place.path) if ended is None else ended

    def prune(self) -> list[str]:
        """Remove the root's own cgroups where no container is left; the shim's end is waited for (5 s).
        Their paths."""
        self.close()  # it does not end before its clients have gone
        return self.cgroups.remove_parent()

    def close(self) -> None:
        """Release descriptors. Containers go on."""
        if self._own_shim:
            self.shim.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- which state it is in ----

    def _place(self, container_id: str) -> StateDirectory:
        _check_id(container_id)
        return StateDirectory(task_directory(self.exec_root, container_id), container_id)

    def _status(self, place: StateDirectory, state: ContainerState, *, locked: bool = False) -> str:
        """`locked`: the caller holds the lock, so that nobody else is making the container."""
        if state.process is None:
            return _STOPPED if locked or not place.is_locked() else _CREATING
        if not self._process(state).lives():
            return _STOPPED
        return _CREATED if place.has_waiter() else _RUNNING

    def _process(self, state: ContainerState) -> ProcessIdentity:
        """The container's process. One that joins a pid namespace is another from its start on, also
        where its starter was killed before it could write that down."""
        assert state.process is not None
        if state.joins and not state.process.lives():
            with suppress(ProcessLookupError):
                return ProcessIdentity.of(self.shim.tasks().get(state.id, 0))
        return state.process

    def _send(self, state: ContainerState, number: int) -> bool:
        try:
            pidfd = self._process(state).open()
        except ProcessLookupError:
            return False
        try:
            return pidfds.send_signal(pidfd, number)
        finally:
            os.close(pidfd)

    def _end(self, state: ContainerState) -> None:
        """Its process is gone afterwards, also one that was never written down."""
        if self.shim.signal(state.id, signals.SIGKILL):
            self.shim.wait(state.id)
        if state.process is None:
            return
        with suppress(ProcessLookupError):  # both shim and keeper were killed
            pidfd = self._process(state).open()
            try:
                pidfds.send_signal(pidfd, signals.SIGKILL)
                pidfds.ended(pidfd, None)
            finally:
                os.close(pidfd)

    # ---- create ----

    def _cgroup_path(self, container_id: str, path: str) -> str:
        """Where the container is in every hierarchy. Conflict where somebody is already."""
        if not path.startswith("/"):
            path = f"{self.cgroups.parent}/{path or container_id}"
        path = clean_parent(path)
        if not path or path == self.cgroups.parent:
            raise InvalidParameter("linux.cgroupsPath: must name a cgroup of the container's own")
        check_unused(self.cgroups.mounts, path)
        return path

    def _begin(
        self,
        place: StateDirectory,
        state: ContainerState,
        spec: dict[str, Any],
        console_socket: str,
        stdio: tuple[int, int, int],
        scope: ExitStack,
        undo: Undo,
    ) -> tuple[Task, socket.socket]:
        """The container's process, preparing itself; and the socket on which it tells when it is."""
        creation = self._creation(state, spec, stdio, scope)
        console = _connect(console_socket, scope)
        handles = open_handles(self, creation, scope, undo)
        go = place.make_fifo()
        scope.callback(os.close, go)
        ours, theirs = told_socket()
        scope.callback(ours.close)
        scope.callback(theirs.close)
        handles = replace(handles, go=go, told=theirs.fileno(), console=console)
        task = new_task(self, creation, handles)
        undo.push(task.kill)
        plan = render_plan(spec, handles, creation.seccomp, spec["process"]["winsize"])
        task.create(plan)
        theirs.close()
        return task, ours

    def _creation(
        self,
        state: ContainerState,
        spec: dict[str, Any],
        stdio: tuple[int, int, int],
        scope: ExitStack,
    ) -> Creation:
        linux, terminal = spec["linux"], spec["process"]["terminal"]
        seccomp = b""
        if "seccomp" in linux:
            seccomp = load_filter(linux["seccomp"], f"{self.exec_root}/seccomp")
        parent, _, name = state.cgroup.rpartition("/")
        return Creation(
            key=state.id,
            directory=task_directory(self.exec_root, state.id),
            spec=spec,
            rootfs=self._clone_root(spec, scope),
            cgroup_parent=parent or "/",
            cgroup_name=name,
            seccomp=seccomp,
            joined=_joined(linux["namespaces"]),
            flags=stdio_flags(terminal, False, direct=True),
            attach=Attach() if terminal else Attach(*stdio),
        )

    def _clone_root(self, spec: dict[str, Any], scope: ExitStack) -> int:
        """The root file system as a detached mount, with what is mounted below it."""
        path = spec["root"]["path"]
        slave = spec["linux"]["rootfsPropagation"].endswith("slave")
        fd = self.kernel.tree_clone(path, propagation=MS_SLAVE if slave else MS_PRIVATE)
        scope.callback(os.close, fd)
        return fd


def default_cgroup_parent(root: str) -> str:
    """The cgroup of a root in every hierarchy; another root has another."""
    return f"/pynetns-oci-{sha256(os.fsencode(root)).hexdigest()[:8]}"


def _check_id(container_id: str) -> None:
    if not _ID.fullmatch(container_id) or container_id in (".", ".."):
        raise InvalidParameter(
            f"container id {container_id!r}: must be 1 to 71 letters, digits, '_', '+', '-' and '.'"
        )


def look_up(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with what depends on the machine: a last refusal before anything is made. Raises
    InvalidParameter, StartFailed (a namespace's path)."""
    if not os.path.isdir(spec["root"]["path"]):
        raise InvalidParameter(f"root.path: {spec['root']['path']} is not a directory")
    check_not_ours(spec)
    linux = spec["linux"]
    if "seccomp" in linux:
        linux["seccomp"] = bundle_seccomp(linux["seccomp"])
    if "oomScoreAdj" not in spec["process"]:  # unchanged: ours, not the shim's
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            spec["process"]["oomScoreAdj"] = int(file.read())
    return spec


def _joined(namespaces: Sequence[dict[str, str]]) -> dict[str, ProcessIdentity]:
    pid = joined_pid(namespaces)
    try:
        return {"pid": ProcessIdentity.of(pid)} if pid else {}
    except ProcessLookupError as error:
        raise not_running("pid") from error


def _connect(path: str, scope: ExitStack) -> int:
    """The console socket, connected; -1 for none. unix(7)."""
    if not path:
        return -1
    console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    scope.callback(console.close)
    try:
        console.connect(path)
    except OSError as error:
        raise InvalidParameter(f"console socket {path}: {error.strerror or error}") from error
    return console.fileno()
