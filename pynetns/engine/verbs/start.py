"""Starting a container: the seed's order, and nothing else.

`container_start` is the outline; each step below it has the name of moby's function. Everything a
step makes in the kernel is pushed on `undo` beside the deed; descriptors belong to `scope`.
Seed section 1.2 (daemon/start.go containerStart); docs/architecture.md lists where and why we deviate.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import (
    KernelError,
    PynetnsError,
    StartFailed,
    Unavailable,
    clear_errors,
)
from ...kernel import Pending
from ...model.log_config import log_options as parse_log_options
from ...model.state import rfc3339
from ...network.request import SandboxRequest, container_options
from ...network.sandbox import Sandbox
from ...runtime.creation import Creation, create
from ...runtime.shim.log_options import encode_log_options
from ...runtime.task import Attach, Task, stdio_flags
from ...trace import step
from ...undo import Undo
from ..container_spec import ContainerSpec, create_spec
from ..ending import end_task
from ..joining import Joined, join_containers, networked, owners_running
from ..lock import container_lock
from ..record import ContainerRecord, container_directory, log_name
from ..starting import Starting, check_startable, claim_bundle, load_starting
from .remove import container_remove

if TYPE_CHECKING:
    from ..services import Services

_NO_ATTACH = Attach()
log = logging.getLogger("pynetns")
_MAX_ERROR = 4000  # characters of State.Error: a message may quote what the user gave


@clear_errors
def container_start(engine: Services, container_id: str, attach: Attach = _NO_ATTACH) -> None:
    """Start a container; returns when its program has been executed.

    Raises NotModified (running), Conflict (being removed), StartFailed and others; whatever
    failed is recorded in the container's state and every earlier step is undone.
    """
    with step("container_start"):
        engine.check_configuration()
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
        raise failure


def run_start(engine: Services, container: Starting, attach: Attach) -> None:
    # descriptors first, so that an undo has some to work with even where they had run out
    with Undo() as undo, undo, ExitStack() as scope:
        namespace = begin_namespace(engine, container, scope)
        directory = claim_bundle(engine, container.id, undo)
        joined = join_containers(engine, container)
        rootfs = conditional_mount_on_start(engine, container, scope)
        with owners_running(engine, joined):
            sandbox = initialize_networking(engine, container, joined, namespace, scope, undo)
            spec = create_spec(engine, container, rootfs, sandbox, joined, undo)
            task = create_task(
                engine, container, directory, rootfs, sandbox, spec, attach, scope, undo
            )
        engine.network.join_sandbox(sandbox)
        pid = task.start()
        undo.push(end_task, engine, container.id)
        record_started(engine, container, sandbox, pid)
        undo.dismiss()


def begin_namespace(engine: Services, container: Starting, scope: ExitStack) -> Pending | None:
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
        fd = engine.rootfs.mount(record.id, record.lowers)
        scope.callback(os.close, fd)
        return fd


def initialize_networking(
    engine: Services,
    container: Starting,
    joined: Mapping[str, Joined],
    namespace: Pending | None,
    scope: ExitStack,
    undo: Undo,
) -> Sandbox:
    """Network namespace, addresses and name files. moby initializeNetworking, seed 1.2.1."""
    with step("initialize_networking"):
        record = container.record
        request = SandboxRequest(
            container_id=record.id,
            container_name=container.name,
            options=container_options(record.config, record.host_config),
            directory=container_directory(engine.root, record.id),
            settings=container.network,
            networked=networked(engine, joined),
            namespace=namespace,
        )
        sandbox = engine.network.initialize_networking(request, undo)
        scope.callback(sandbox.close)
        return sandbox


def create_task(
    engine: Services,
    container: Starting,
    directory: str,
    rootfs: int,
    sandbox: Sandbox,
    spec: ContainerSpec,
    attach: Attach,
    scope: ExitStack,
    undo: Undo,
) -> Task:
    """Cgroup, plan, process, bundle: it prepares itself from here on, and waits for its start.
    containerd Create, seed 1.2.3."""
    with step("create_task"):
        config = container.record.config
        log, log_options = open_log(engine, container.record, scope)
        creation = Creation(
            key=container.id,
            directory=directory,
            spec=spec.oci,
            rootfs=rootfs,
            cgroup_parent=spec.cgroup_parent,
            cgroup_name=container.id,
            seccomp=spec.seccomp,
            joined=spec.joined,
            network=sandbox.netns_fd,
            flags=stdio_flags(config.tty, config.open_stdin, once=config.stdin_once),
            log_dir_fd=log,
            log_options=log_options,
            hold_fds=sandbox.held_fds,
            attach=attach,
        )
        return create(engine, creation, spec.json, scope, undo)


def open_log(engine: Services, record: ContainerRecord, scope: ExitStack) -> tuple[int, bytes]:
    """Where and how the shim is to write the log: a directory and its options; (-1, b"") for driver
    none. moby StartLogger."""
    name = log_name(record)
    if not name:
        return -1, b""
    path = container_directory(engine.root, record.id)
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    scope.callback(os.close, fd)
    return fd, encode_log_options(parse_log_options(record.host_config.log_config), name)


def record_started(engine: Services, container: Starting, sandbox: Sandbox, pid: int) -> None:
    """Running state, network settings and the event: one transaction. Seed: end of 1.2."""
    state = container.state.become(
        "running",
        pid=pid,
        start_ticks=engine.kernel.start_ticks(pid),
        exit_code=0,
        error="",
        oom_killed=False,
        started_at=rfc3339(time.time_ns()),
        started_before=True,
        boot_id=engine.kernel.boot_id(),
        run=container.state.run + 1,
    )
    attributes = {"name": container.name, "image": container.record.config.image}

    def record() -> None:
        engine.store.set_run(container.id, state, sandbox.settings)
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
        engine.store.set_state(container.id, replace(container.state, error=text, exit_code=code))
    except Unavailable as unwritten:  # the error itself is what the caller has to know
        log.warning("container %s : its failure is not recorded : %s", container.name, unwritten)
