"""Starting a container: the seed's order, and nothing else.

`container_start` is the outline; each step below it has the name of moby's function. Everything a
step makes in the kernel is pushed on `undo` beside the deed; descriptors belong to `scope`.
Seed section 1.2 (daemon/start.go containerStart); docs/architecture.md lists where and why we deviate.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...errors import (
    Conflict,
    KernelError,
    PynetnsError,
    StartFailed,
    Unavailable,
    clear_errors,
)
from ...forks import Descriptors
from ...kernel import frame
from ...kernel.mount import MS_PRIVATE
from ...kernel.netns import PendingNamespace
from ...kernel.process import boot_id, process_namespace, recorded, start_ticks
from ...model.log_config import log_options as parse_log_options
from ...model.state import rfc3339
from ...network.sandbox import Networked, Sandbox, SandboxRequest
from ...runtime.plan.render import Handles, cgroup_mount_attributes, open_mounts, render_plan
from ...runtime.shim.log_options import encode_log_options
from ...runtime.task import Attach, Task, mark_shared, prepare_bundle_dir, write_bundle
from ...trace import step
from ...undo import Undo
from ..container_spec import ContainerSpec, create_spec
from ..ending import end_task
from ..lock import container_lock
from ..lookup import get_container_id
from ..record import ContainerRecord, container_directory, log_name
from ..starting import Starting, check_startable, load_starting
from .remove import container_remove

if TYPE_CHECKING:
    from ..services import Services

_NO_ATTACH = Attach()
log = logging.getLogger("pynetns")
_MAX_ERROR = 4000  # characters of State.Error: a message may quote what the user gave


@clear_errors
def container_start(engine: Services, container_id: str, attach: Attach = _NO_ATTACH) -> None:
    """Start a container; returns when its program has been executed.

    Raises NotModified (running), Conflict (paused, being removed), StartFailed and others; whatever
    failed is recorded in the container's state and every earlier step is undone.
    """
    with step("container_start"):
        with container_lock(engine.exec_root, container_id):
            container = load_starting(engine, container_id)
            check_startable(container)
            try:
                run_start(engine, container, attach)
            except BaseException as error:
                record_failure(engine, container, error)
                failure = error
            else:
                return
        if container.record.host_config.auto_remove:
            try:
                container_remove(engine, container_id, force=True)
            except PynetnsError as error:  # the caller has to know why it did not start
                log.warning("container %s is not removed : %s", container.name, error)
        try:
            raise failure
        finally:
            del failure  # which refers to this frame: a circle would keep what it refers to


def run_start(engine: Services, container: Starting, attach: Attach) -> None:
    # descriptors first, so that an undo has some to work with even where they had run out
    with Undo() as undo, undo, ExitStack() as scope, scope:
        undo.push(engine.store.set_state, container.id, container.state)
        namespace = begin_namespace(engine, container, scope)
        rootfs = conditional_mount_on_start(engine, container, scope)
        sandbox = initialize_networking(engine, container, namespace, scope, undo)
        spec = create_spec(engine, container, rootfs, sandbox)
        task = create_task(engine, container, rootfs, sandbox, spec, attach, scope, undo)
        engine.network.join_sandbox(sandbox)
        undo.push(end_task, engine, container.id)
        pid = task.start()
        record_started(engine, container, sandbox, pid)
        undo.dismiss()


def begin_namespace(
    engine: Services, container: Starting, scope: ExitStack
) -> PendingNamespace | None:
    """The kernel needs most of a millisecond to make a network namespace: it does so while the
    root file system is mounted. None where the container gets none of its own."""
    mode = container.record.host_config.network_mode
    if mode == "host" or mode.startswith("container:"):
        return None
    namespace = engine.kernel.netns_begin(ipv6_off=True, lo_up=True)
    scope.callback(namespace.close)
    return namespace


def conditional_mount_on_start(engine: Services, container: Starting, scope: ExitStack) -> int:
    """The root file system as a detached overlay mount; it lives as long as somebody uses it."""
    with step("conditional_mount_on_start"):
        record = container.record
        fds = scope.enter_context(Descriptors())
        fds.append(engine.rootfs.mount(record.id, record.lowers))
        return fds[0]


def initialize_networking(
    engine: Services,
    container: Starting,
    namespace: PendingNamespace | None,
    scope: ExitStack,
    undo: Undo,
) -> Sandbox:
    """Network namespace, addresses and name files. moby initializeNetworking, seed 1.2.1."""
    with step("initialize_networking"):
        record = container.record
        request = SandboxRequest(
            container_id=record.id,
            container_name=container.name,
            config=record.config,
            host_config=record.host_config,
            directory=container_directory(engine.root, record.id),
            settings=container.network,
            networked=get_networked_container(engine, container),
            namespace=namespace,
        )
        sandbox = engine.network.initialize_networking(request, undo)
        scope.callback(sandbox.close)
        return sandbox


def get_networked_container(engine: Services, container: Starting) -> Networked | None:
    """The running container whose network is shared. moby getNetworkedContainer."""
    mode = container.record.host_config.network_mode
    if not mode.startswith("container:"):
        return None
    other_id = get_container_id(engine.store, mode.removeprefix("container:"))
    if other_id == container.id:
        raise Conflict("cannot join own network")
    row = engine.store.container(other_id)
    if row is None or not row.state.running or not recorded(row.state).lives():
        raise Conflict(f"cannot join network of a non running container: {other_id}")
    record = engine.record(other_id)
    directory = container_directory(engine.root, other_id)
    mark_shared(engine.exec_root, other_id)
    return Networked(
        container_id=other_id,
        process=recorded(row.state),
        sandbox_key=row.network.sandbox_key,
        hostname=record.hostname,
        domainname=record.config.domainname,
        hosts_path=f"{directory}/hosts",
        resolv_conf_path=f"{directory}/resolv.conf",
        hostname_path=f"{directory}/hostname",
    )


def create_task(
    engine: Services,
    container: Starting,
    rootfs: int,
    sandbox: Sandbox,
    spec: ContainerSpec,
    attach: Attach,
    scope: ExitStack,
    undo: Undo,
) -> Task:
    """Bundle, cgroup, plan, process: it prepares itself from here on, and waits for its start.
    containerd Create, seed 1.2.3."""
    with step("create_task"):
        directory = prepare_bundle_dir(engine.exec_root, container.id, undo)
        handles = open_handles(engine, container, rootfs, sandbox, spec, scope, undo)
        log, log_options = open_log(engine, container.record, scope)
        go = Descriptors()
        go_reader, _ = go.pipe()
        task = Task(
            shim=engine.shim,
            key=container.id,
            directory=directory,
            flags=stdio_flags(container.record),
            log_dir_fd=log,
            log_options=log_options,
            cgroup_fd=handles.cgroup if container.record.host_config.pid_mode else -1,
            hold_fds=sandbox.held_fds,
            attach=attach,
            go=go,
        )
        undo.push(task.abandon)
        handles = replace(handles, go=go_reader)
        task.create(render_plan(spec.oci, handles, spec.seccomp, attach.winsize))
        write_bundle(directory, spec.json())
        return task


def open_log(engine: Services, record: ContainerRecord, scope: ExitStack) -> tuple[int, bytes]:
    """Where and how the shim is to write the log: a directory and its options; (-1, b"") for driver
    none. moby StartLogger."""
    name = log_name(record)
    if not name:
        return -1, b""
    path = container_directory(engine.root, record.id)
    fds = scope.enter_context(Descriptors())
    fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return fds[0], encode_log_options(parse_log_options(record.host_config.log_config), name)


def open_handles(
    engine: Services,
    container: Starting,
    rootfs: int,
    sandbox: Sandbox,
    spec: ContainerSpec,
    scope: ExitStack,
    undo: Undo,
) -> Handles:
    """Everything of the outside that the child will need, as descriptors."""
    cgroup = engine.cgroups.create(
        container.id, spec.cgroup_parent, spec.oci["linux"].get("resources") or {}, undo
    )
    scope.callback(cgroup.close)
    fds = Descriptors()  # closed in every case: the shim has its own copies by then
    for _ in range(2):  # the first call may be interrupted
        scope.callback(fds.close)
    binds = open_mounts(engine.kernel, spec.oci, fds)
    attributes = cgroup_mount_attributes(spec.oci)
    clone = partial(engine.kernel.tree_clone, recursive=False, propagation=MS_PRIVATE)
    cgroup_mounts = []
    for name, path in cgroup.mounts:
        fds.append(clone(path, attr_set=attributes))
        cgroup_mounts.append((name, fds[-1]))
    return Handles(
        rootfs=rootfs,
        namespaces=open_namespaces(spec, sandbox, fds),
        binds=binds,
        cgroup=cgroup.v2_fd,
        cgroup_joins=cgroup.join_fds,
        cgroup_mounts=cgroup_mounts,
        **open_joined_proc(engine, spec, fds),
    )


def open_joined_proc(engine: Services, spec: ContainerSpec, fds: Descriptors) -> dict[str, int]:
    """What a process needs of /proc that shows itself in another container's pid namespace only when
    it executes its program: that container's own, and one in which it sees itself."""
    owner = spec.joined.get("pid")
    if owner is None:
        return {}
    fds.append(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        fds.append(engine.kernel.process_namespace(owner, "mnt"))
    except ProcessLookupError as error:
        raise Conflict(
            "cannot join the pid namespace of a container that is not running"
        ) from error
    namespace = fds[-1]
    fds.append(engine.kernel.proc_clone(namespace))
    return {"proc": fds[-3], "joined_proc": fds[-1]}


def open_namespaces(spec: ContainerSpec, sandbox: Sandbox, fds: Descriptors) -> dict[str, int]:
    """The namespaces that the spec names by path, opened."""
    opened = {}
    for namespace in spec.oci["linux"]["namespaces"]:
        path = namespace.get("path")
        if not path:
            continue
        if namespace["type"] == "network" and sandbox.netns_fd >= 0:
            opened["network"] = sandbox.netns_fd
            continue
        owner = spec.joined.get(namespace["type"])
        try:
            if owner is None:
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            else:
                fds.append(process_namespace(owner, os.path.basename(path)))
        except ProcessLookupError as error:
            raise Conflict(
                f"cannot join the {namespace['type']} namespace of a container that is not running"
            ) from error
        except OSError as error:
            raise StartFailed(
                f"{namespace['type']} namespace {path}: {error.strerror}", 128
            ) from error
        opened[namespace["type"]] = fds[-1]
    return opened


def stdio_flags(record: ContainerRecord) -> int:
    """The shim's flags for the container's stdin and terminal."""
    config = record.config
    return (
        (frame.SPAWN_TTY if config.tty else 0)
        | (frame.SPAWN_STDIN if config.open_stdin else 0)
        | (frame.SPAWN_STDIN_ONCE if config.stdin_once else 0)
    )


def record_started(engine: Services, container: Starting, sandbox: Sandbox, pid: int) -> None:
    """Running state, network settings and the event: one transaction. Seed: end of 1.2."""
    state = replace(
        container.state,
        status="running",
        pid=pid,
        start_ticks=start_ticks(pid),
        exit_code=0,
        error="",
        oom_killed=False,
        started_at=rfc3339(time.time_ns()),
        started_before=True,
        boot_id=boot_id(),
    )
    attributes = {"name": container.name, "image": container.record.config.image}

    def record() -> None:
        engine.store.set_state(container.id, state)
        engine.store.set_network(container.id, sandbox.settings)
        engine.store.add_event("container", "start", container.id, attributes)

    with step("record_started"):
        engine.store.atomically(record)


def record_failure(engine: Services, container: Starting, error: BaseException) -> None:
    """The error and exit code of a failed start, for inspect. moby's deferred block, seed 1.2."""
    code = error.exit_code if isinstance(error, StartFailed) else 128
    text = str(error) if isinstance(error, PynetnsError | KernelError) else repr(error)
    if len(text) > _MAX_ERROR:
        text = f"{text[:_MAX_ERROR]}…"
    try:
        row = engine.store.container(container.id)
        if row is not None and row.state.running:
            return  # it has started: what came was a signal handler's, after that
        engine.store.set_state(container.id, replace(container.state, error=text, exit_code=code))
    except Unavailable as unwritten:  # the error itself is what the caller has to know
        log.warning("container %s : its failure is not recorded : %s", container.name, unwritten)
