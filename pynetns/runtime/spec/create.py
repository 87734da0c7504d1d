"""A container's configuration as an OCI runtime spec 1.0.2: pure, no I/O.

Owns: the defaults of Docker's spec and the order in which a configuration changes them. Everything
that had to be looked up is in `SpecRequest`. Mounts are spec_mounts.py, refusals validate.py.
Source: seed sections 1.2.2 to 1.2.2.5.1; OCI runtime-spec config.md and config-linux.md.

The parts that never change are prepared once and shared by all specs: treat a spec as read-only.
"""

from __future__ import annotations

import json
import posixpath
from typing import Any

from ...model.config import HostConfig
from ..security.security_opt import parse_security_opt
from .checks import validate_host_config
from .devices import DEFAULT_RULES
from .masked_paths import MASKED_PATHS, READONLY_PATHS
from .mounts import DEFAULT_MOUNTS, IpcMode, set_mounts, setup_mounts
from .request import SpecRequest
from .user import User

Spec = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NAMESPACES = tuple({"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc"))

# Harmless inside a network namespace of one's own: ping and ports below 1024 without privilege.
# moby populateCommonSpec since 20.10.
PRIVATE_NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}

CPU_PERIOD = 100_000  # microseconds; what --cpus is spread over
_UNLIMITED = (1 << 64) - 1


def create_spec(request: SpecRequest) -> Spec:
    """The OCI runtime spec of a container. Raises InvalidParameter for what `validate_host_config`
    would have refused. moby Daemon.createSpec."""
    spec = default_linux_spec()
    populate_common_spec(spec, request)
    spec["linux"]["cgroupsPath"] = request.cgroups_path
    set_resources(spec, request.host_config)
    set_sysctls(spec, request)
    set_devices(spec, request)
    set_rlimits(spec, request.host_config)
    set_user(spec, request.user)
    set_namespaces(spec, request)
    set_capabilities(spec, request.capabilities, request.user)
    set_seccomp(spec, request)
    set_mounts(spec, request, setup_mounts(request))
    set_security(spec, request.host_config)
    set_paths(spec, request)
    return spec


def default_linux_spec() -> Spec:
    """Docker's defaults. moby DefaultLinuxSpec."""
    return {
        "ociVersion": "1.0.2",
        "process": {},
        "root": {},
        "hostname": "",
        "mounts": DEFAULT_MOUNTS,
        "linux": {
            "sysctl": {},
            "resources": {"devices": DEFAULT_RULES},
            "cgroupsPath": "",
            "namespaces": list(NAMESPACES),
            "devices": (),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        },
    }


def populate_common_spec(spec: Spec, request: SpecRequest) -> None:
    """Root, program, directory, environment, names. moby Daemon.populateCommonSpec."""
    if not request.rootfs_path:
        raise ValueError(f"container {request.container_id} has no root filesystem")
    config = request.config
    spec["root"] = {
        "path": request.rootfs_path,
        "readonly": request.host_config.readonly_rootfs,
    }
    process = spec["process"]
    process["terminal"] = config.tty
    process["user"] = {}
    process["args"] = (request.path, *request.args)
    process["env"] = create_daemon_environment(request)
    process["cwd"] = config.working_dir or "/"
    spec["hostname"] = request.hostname
    # OCI has no field for the NIS domain name; this sysctl is setdomainname(2) by another way.
    if request.domainname:
        spec["linux"]["sysctl"]["kernel.domainname"] = request.domainname


def create_daemon_environment(request: SpecRequest) -> list[str]:
    """The program's environment: Docker's own, then the configuration's, in which
    "NAME" without "=" removes. HOME is added where nothing else set it.
    moby Container.CreateDaemonEnvironment; runc setupUser for HOME."""
    config = request.config
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": request.hostname}
    if config.tty:
        env["TERM"] = "xterm"
    for entry in config.env:
        name, equals, value = entry.partition("=")
        if equals:
            env[name] = value
        else:
            env.pop(name, None)
    if not env.get("HOME"):
        env["HOME"] = request.user.home
    return [f"{name}={value}" for name, value in env.items()]


def entrypoint_and_args(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Program and arguments; ("", ()) when both are empty. moby getEntrypointAndArgs."""
    argv = (*entrypoint, *cmd)
    return (argv[0], argv[1:]) if argv else ("", ())


def cgroups_path(parent: str, container_id: str) -> str:
    """`parent`/`container_id` as an absolute, clean path: no ".." leads out of the hierarchy."""
    return posixpath.normpath("/" + f"{parent}/{container_id}".lstrip("/"))


def set_resources(spec: Spec, host_config: HostConfig) -> None:
    """Memory, CPU and pids limits. moby setResources, getMemoryResources, getCPUResources."""
    resources = spec["linux"]["resources"]
    memory: dict[str, int] = {}
    if host_config.memory > 0:
        memory["limit"] = host_config.memory
        swap = host_config.memory_swap or 2 * host_config.memory
        if swap > 0:  # -1 is no limit: no entry
            memory["swap"] = swap
    if host_config.memory_reservation > 0:
        memory["reservation"] = host_config.memory_reservation
    if memory:
        resources["memory"] = memory
    cpu = _cpu_resources(host_config)
    if cpu:
        resources["cpu"] = cpu
    if host_config.pids_limit > 0:
        resources["pids"] = {"limit": host_config.pids_limit}


def _cpu_resources(host_config: HostConfig) -> dict[str, int | str]:
    cpu: dict[str, int | str] = {}
    if host_config.cpu_shares > 0:
        cpu["shares"] = host_config.cpu_shares
    if host_config.nano_cpus > 0:
        cpu["period"] = CPU_PERIOD
        cpu["quota"] = host_config.nano_cpus * CPU_PERIOD // 1_000_000_000
    if host_config.cpu_period:
        cpu["period"] = host_config.cpu_period
    if host_config.cpu_quota:
        cpu["quota"] = host_config.cpu_quota
    if host_config.cpuset_cpus:
        cpu["cpus"] = host_config.cpuset_cpus
    if host_config.cpuset_mems:
        cpu["mems"] = host_config.cpuset_mems
    return cpu


def set_sysctls(spec: Spec, request: SpecRequest) -> None:
    """Docker's own where the network is the container's own, then the user's over them."""
    sysctl = spec["linux"]["sysctl"]
    mode = request.host_config.network_mode
    if mode != "host" and not mode.startswith("container:"):
        sysctl.update(PRIVATE_NETWORK_SYSCTLS)
    sysctl.update(request.host_config.sysctls)


def set_devices(spec: Spec, request: SpecRequest) -> None:
    """Device nodes and the cgroup's device rules. moby setDevices."""
    spec["linux"]["devices"] = request.devices.nodes
    spec["linux"]["resources"]["devices"] = request.devices.rules


def set_rlimits(spec: Spec, host_config: HostConfig) -> None:
    """moby Daemon.setRlimits. -1 is unlimited."""
    if host_config.ulimits:
        spec["process"]["rlimits"] = [
            {
                "type": f"RLIMIT_{limit.name.upper()}",
                "soft": limit.soft & _UNLIMITED,
                "hard": limit.hard & _UNLIMITED,
            }
            for limit in host_config.ulimits
        ]


def set_user(spec: Spec, user: User) -> None:
    """moby setUser."""
    spec["process"]["user"] = {
        "uid": user.uid,
        "gid": user.gid,
        "additionalGids": user.additional_gids,
    }


def set_namespaces(spec: Spec, request: SpecRequest) -> None:
    """New, joined or the host's, for each kind. moby setNamespaces."""
    host_config, namespaces = request.host_config, spec["linux"]["namespaces"]
    if host_config.network_mode.startswith("container:"):
        set_namespace(namespaces, "network", f"/proc/{request.network_pid}/ns/net")
    elif request.netns_path:
        set_namespace(namespaces, "network", request.netns_path)
    elif host_config.network_mode == "host":
        remove_namespace(namespaces, "network")

    if host_config.ipc_mode.startswith("container:"):
        set_namespace(namespaces, "ipc", f"/proc/{request.ipc_pid}/ns/ipc")
    elif host_config.ipc_mode == IpcMode.HOST:
        remove_namespace(namespaces, "ipc")

    if host_config.pid_mode.startswith("container:"):
        set_namespace(namespaces, "pid", f"/proc/{request.pid_pid}/ns/pid")
    elif host_config.pid_mode == "host":
        remove_namespace(namespaces, "pid")

    if host_config.uts_mode == "host":
        remove_namespace(namespaces, "uts")
        spec["hostname"] = ""
    if request.private_cgroupns:
        set_namespace(namespaces, "cgroup")


def set_namespace(namespaces: list[dict[str, str]], kind: str, path: str = "") -> None:
    """Replaces the entry of that kind or appends one. moby setNamespace."""
    entry = {"type": kind, "path": path} if path else {"type": kind}
    for index, namespace in enumerate(namespaces):
        if namespace["type"] == kind:
            namespaces[index] = entry
            return
    namespaces.append(entry)


def remove_namespace(namespaces: list[dict[str, str]], kind: str) -> None:
    """Absent is fine. moby RemoveNamespace."""
    namespaces[:] = [namespace for namespace in namespaces if namespace["type"] != kind]


def set_capabilities(spec: Spec, capabilities: tuple[str, ...], user: User) -> None:
    """Nothing is inheritable (CVE-2022-24769), and only root starts with privileges: another user
    has the set as an upper bound for what a set-uid program may gain. moby SetCapabilities."""
    own = capabilities if user.uid == 0 else ()
    spec["process"]["capabilities"] = {
        "bounding": capabilities,
        "effective": own,
        "permitted": own,
        "inheritable": (),
        "ambient": (),
    }


def set_seccomp(spec: Spec, request: SpecRequest) -> None:
    """moby setSeccomp; what None means has been decided by seccomp.container_seccomp."""
    if request.seccomp is not None:
        spec["linux"]["seccomp"] = request.seccomp


def set_security(spec: Spec, host_config: HostConfig) -> None:
    """no_new_privs and the OOM score."""
    process = spec["process"]
    process["noNewPrivileges"] = parse_security_opt(host_config.security_opt).no_new_privileges
    process["oomScoreAdj"] = host_config.oom_score_adj


def set_paths(spec: Spec, request: SpecRequest) -> None:
    """Masked and read-only paths: none when privileged, else the configuration's if it has any."""
    linux, host_config = spec["linux"], request.host_config
    linux["maskedPaths"] = request.masked_paths
    if (
        host_config.privileged
        or parse_security_opt(host_config.security_opt).system_paths_unconfined
    ):
        linux["maskedPaths"] = linux["readonlyPaths"] = ()
    if host_config.masked_paths is not None:
        linux["maskedPaths"] = host_config.masked_paths
    if host_config.readonly_paths is not None:
        linux["readonlyPaths"] = host_config.readonly_paths


def render_spec(spec: Spec, seccomp_json: str = "") -> str:
    """The spec as JSON. `seccomp_json` is the text of `linux.seccomp`, kept by the caller so that
    its 15 KB are not encoded at each start; "" encodes what the spec has."""
    if not seccomp_json or "seccomp" not in spec["linux"]:
        return _encode(spec)
    linux = {key: value for key, value in spec["linux"].items() if key != "seccomp"}
    top = {key: value for key, value in spec.items() if key != "linux"}
    top["linux"] = linux  # last, so that its closing brace is the one before the end
    return f'{_encode(top)[:-2]},"seccomp":{seccomp_json}}}}}'


# ASCII only: a byte that is no UTF-8 is a lone surrogate here, which no encoder would take
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

__all__ = [
    "Spec",
    "SpecRequest",
    "cgroups_path",
    "create_spec",
    "entrypoint_and_args",
    "render_spec",
    "validate_host_config",
]
