"""Living containers whose things in the exec root were deleted: what can be made again is made again.

Owns: the spec of a container that runs, the mark of a shared network, the pin of a network namespace. What
a process has open it keeps, so that a container runs on whatever is deleted; here it becomes reachable
again. Nothing is killed. The exec root itself is exec_root.py's, where an end is recorded bundles.py's.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..errors import PynetnsError
from ..kernel.process import recorded
from ..runtime.spec import create as oci_spec
from ..runtime.spec.devices import resolve_devices
from ..runtime.spec.masked_paths import machine_masked_paths
from ..runtime.task import mark_shared, task_directory, write_bundle
from .bundles import put_back
from .credentials import container_capabilities, find_user, seccomp_of
from .lock import try_container_lock
from .lookup import get_container_id

if TYPE_CHECKING:
    from ..store import ContainerRow
    from .services import Services

log = logging.getLogger("pynetns")


def adopt(engine: Services, container_id: str) -> None:
    """With the lock held: what a running container has lost. Each part by itself: what cannot be
    made again is said, and keeps from nothing else. One that does not live is left to its end."""
    row = engine.store.container(container_id)
    if row is None or not row.state.running or not engine.kernel.process_lives(recorded(row.state)):
        return
    log.warning("container %s : its part of %s was deleted: made again", row.name, engine.exec_root)
    put_back(engine, row.id)
    if engine.kernel.process_is_ending(recorded(row.state)):
        return
    for repair in (write_spec, pin_network, mark_owner):
        try:
            repair(engine, row)
        except (OSError, PynetnsError) as error:
            log.warning("container %s : %s : %s", row.name, repair.__name__, error)


def write_spec(engine: Services, row: ContainerRow) -> None:
    """The spec that the container was started by, for who wants to start more in it."""
    record = engine.record(row.id)
    config, host_config = record.config, record.host_config
    capabilities = container_capabilities(host_config)
    seccomp, seccomp_text, _ = seccomp_of(engine, host_config, capabilities)
    root = engine.kernel.process_root(recorded(row.state))
    try:
        user = find_user(engine.kernel, root, config.user, host_config.group_add)
    finally:
        os.close(root)
    pid = row.state.pid
    spec = oci_spec.create_spec(
        oci_spec.SpecRequest(
            container_id=row.id,
            path=record.path,
            args=record.args,
            config=config,
            host_config=host_config,
            rootfs_path=f"{engine.root}/overlay2/{row.id}/merged",
            cgroups_path=oci_spec.cgroups_path(
                host_config.cgroup_parent or engine.cgroups.parent, row.id
            ),
            hostname=record.hostname,
            domainname=config.domainname,
            netns_path=f"/proc/{pid}/ns/net",
            network_pid=pid,
            ipc_pid=pid,
            pid_pid=pid,
            user=user,
            devices=resolve_devices(host_config.devices, host_config.privileged),
            capabilities=capabilities,
            seccomp=seccomp,
            masked_paths=machine_masked_paths(),
            private_cgroupns=engine.cgroups.private_namespace(host_config.privileged),
        )
    )
    write_bundle(task_directory(engine.exec_root, row.id), oci_spec.render_spec(spec, seccomp_text))


def pin_network(engine: Services, row: ContainerRow) -> None:
    """The network namespace's file in the exec root."""
    sandbox = engine.store.sandbox_of(row.id)
    if sandbox is None or not sandbox.key or os.path.exists(sandbox.key):
        return
    fd = engine.kernel.process_namespace(recorded(row.state), "net")
    try:
        engine.kernel.ns_pin(fd, sandbox.key)
    finally:
        os.close(fd)


def mark_owner(engine: Services, row: ContainerRow) -> None:
    """Whose network this one shares is to know it when it ends."""
    mode = engine.record(row.id).host_config.network_mode
    if mode.startswith("container:"):
        owner = get_container_id(engine.store, mode.removeprefix("container:"))
        theirs = engine.store.container(owner)
        if (
            theirs is not None
            and theirs.state.running
            and engine.kernel.process_lives(recorded(theirs.state))
        ):
            put_back(engine, owner)
            mark_shared(engine.exec_root, owner)


def ensure_spec(engine: Services, row: ContainerRow) -> None:
    """Before something is started in a container: its spec, if it was deleted meanwhile."""
    path = f"{task_directory(engine.exec_root, row.id)}/config.json"
    if not os.path.exists(path) and engine.kernel.process_lives(recorded(row.state)):
        with try_container_lock(engine.exec_root, row.id) as held:
            if held:
                adopt(engine, row.id)
