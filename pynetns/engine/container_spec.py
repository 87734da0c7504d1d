"""Looking up what a spec depends on, then rendering it: the I/O around runtime/spec/create.py.

Owns: the order of the look-ups (credentials.py, devices, shared memory, bind sources). The spec itself
is a pure function of what is found here. moby Daemon.createSpec, seed section 1.2.2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, StartFailed
from ..files import make_directories
from ..kernel.process import ProcessIdentity
from ..runtime.spec import create as oci_spec
from ..runtime.spec.devices import resolve_devices
from ..runtime.spec.masked_paths import machine_masked_paths
from ..runtime.spec.propagation import check_propagation
from ..trace import step
from .credentials import container_capabilities, find_user, seccomp_of

if TYPE_CHECKING:
    from ..model.config import HostConfig
    from ..network.sandbox import Sandbox
    from ..undo import Undo
    from .joining import Joined
    from .services import Services
    from .starting import Starting

OWN_NETNS = "/proc/thread-self/ns/net"  # network mode host: that of whoever starts, not the shim's


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """The OCI spec, the text of its seccomp block, the compiled filter (b"" for none); `joined`
    are the processes whose namespaces it names, by the namespace's type."""

    oci: dict[str, Any]
    seccomp_json: str
    seccomp: bytes
    cgroup_parent: str
    joined: Mapping[str, ProcessIdentity] = field(default_factory=dict)

    def json(self) -> str:
        """The spec's text, for the bundle."""
        return oci_spec.render_spec(self.oci, self.seccomp_json)


def create_spec(
    engine: Services,
    container: Starting,
    rootfs: int,
    sandbox: Sandbox,
    joined: Mapping[str, Joined],
    undo: Undo,
) -> ContainerSpec:
    """The spec of a container that is about to start; `joined` as join_containers found them.

    Raises StartFailed (unknown user: 126), InvalidParameter, Conflict (non-shareable IPC).
    """
    with step("create_spec"):
        record = container.record
        config, host_config = record.config, record.host_config
        parent = host_config.cgroup_parent or engine.cgroups.parent
        make_bind_sources(host_config)
        check_propagation(host_config.mounts)
        capabilities = container_capabilities(host_config)
        seccomp, seccomp_text, program = seccomp_of(engine, host_config, capabilities)
        processes = {kind: owner.process for kind, owner in joined.items()}
        spec = oci_spec.create_spec(
            oci_spec.SpecRequest(
                container_id=record.id,
                path=record.path,
                args=record.args,
                config=config,
                host_config=host_config,
                rootfs_path=f"{engine.root}/overlay2/{record.id}/merged",
                cgroups_path=oci_spec.cgroups_path(parent, record.id),
                hostname=sandbox.hostname,
                domainname=sandbox.domainname,
                netns_path=sandbox.key or OWN_NETNS,
                network_pid=processes["network"].pid if "network" in processes else 0,
                ipc_pid=processes["ipc"].pid if "ipc" in processes else 0,
                pid_pid=processes["pid"].pid if "pid" in processes else 0,
                user=find_user(engine.kernel, rootfs, config.user, host_config.group_add),
                devices=resolve_devices(host_config.devices, host_config.privileged),
                capabilities=capabilities,
                seccomp=seccomp,
                resolv_conf_path=sandbox.resolv_conf_path,
                hostname_path=sandbox.hostname_path,
                hosts_path=sandbox.hosts_path,
                shm_path=shared_memory_path(
                    engine, record.id, host_config, joined.get("ipc"), undo
                ),
                masked_paths=machine_masked_paths(),
                private_cgroupns=engine.cgroups.private_namespace(host_config.privileged),
            )
        )
        return ContainerSpec(spec, seccomp_text, program, parent, processes)


def make_bind_sources(host_config: HostConfig) -> None:
    """Docker's courtesy for -v: a missing source becomes a directory. moby MountPoint.Setup."""
    for mount in host_config.mounts:
        if mount.create_source and not os.path.exists(mount.source):
            try:
                make_directories(mount.source, 0o755)
            except OSError as error:
                raise StartFailed(f"--volume {mount.source}: {error.strerror}", 128) from error


def shared_memory_path(
    engine: Services, container_id: str, host_config: HostConfig, owner: Joined | None, undo: Undo
) -> str:
    """The directory behind /dev/shm where it is shared, "" else. `owner` is whose IPC is joined."""
    mode = host_config.ipc_mode
    if owner is not None:
        theirs = owner.record.host_config.ipc_mode
        if theirs not in ("shareable", "host"):
            raise Conflict(
                f"--ipc {mode} : that container has non-shareable IPC (mode {theirs}): create it "
                "with --ipc shareable"
            )
        mode = theirs if theirs == "host" else f"container:{owner.id}"
    elif mode == "shareable":
        undo.push(engine.rootfs.release_shm, container_id)
    return engine.rootfs.shm_path(container_id, mode, host_config.shm_size)


def environment_with(base: Sequence[str], extra: Sequence[str], *, tty: bool) -> list[str]:
    """A container's environment with an exec's changes; "NAME" without "=" removes."""
    env = dict(entry.partition("=")[::2] for entry in base)
    if tty:
        env.setdefault("TERM", "xterm")
    for entry in extra:
        name, equals, value = entry.partition("=")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)
    return [f"{name}={value}" for name, value in env.items()]


__all__ = ["ContainerSpec", "create_spec", "environment_with"]
