"""From an OCI spec to a task that prepares itself: what an engine's start and a bundle's create share.

Owns: opening what the plan of a spec refers to (bind sources, namespaces, cgroups, another pid
namespace's /proc), so that no flag of the kernel and no file of a bundle is anybody else's affair.
Everything made is pushed on `undo` beside the deed; descriptors belong to `scope`. Knows nothing of
containers' records, networks or images. containerd Create, seed 1.2.3; OCI runtime spec, "create".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from ..errors import Conflict, InvalidParameter, KernelError, StartFailed
from ..kernel import Kernel
from ..kernel.mount import MS_PRIVATE
from ..kernel.process import ProcessIdentity
from ..undo import Descriptors, Undo
from .cgroups.protocol import Cgroups
from .plan.handles import Handles, cgroup_mount_attributes, open_mounts
from .plan.render import CLONE_NAMESPACES, has_own_pids, render_plan
from .shim.protocol import Shim
from .task import Attach, Task, write_bundle


class Parts(Protocol):
    """What a task is made with: an engine, or an OCI runtime's root."""

    @property
    def kernel(self) -> Kernel: ...
    @property
    def cgroups(self) -> Cgroups: ...
    @property
    def shim(self) -> Shim: ...
    @property
    def exec_root(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Creation:
    """A task to be made. Descriptors stay the caller's.

    `directory` is its bundle's, made already. `spec` is what `render_plan` takes, `seccomp` its
    compiled filter (b"" for none), `rootfs` a detached mount. The cgroup is
    `cgroup_parent`/`cgroup_name`. `joined`: the processes whose namespaces the spec names, by the
    namespace's type. `network`: the network namespace that the spec names, where it is open already.
    `flags` (`stdio_flags`), `log_dir_fd`, `log_options` and `hold_fds` are the Task's.
    """

    key: str
    directory: str
    spec: dict[str, Any]
    rootfs: int
    cgroup_parent: str
    cgroup_name: str
    seccomp: bytes = b""
    joined: Mapping[str, ProcessIdentity] = field(default_factory=dict)
    network: int = -1
    flags: int = 0
    log_dir_fd: int = -1
    log_options: bytes = b""
    hold_fds: Sequence[int] = ()
    attach: Attach = field(default_factory=Attach)


def create(
    parts: Parts,
    creation: Creation,
    spec_json: Callable[[], str],
    scope: ExitStack,
    undo: Undo,
) -> Task:
    """Cgroup, plan, process, bundle: it prepares itself from here on, and waits for its start, which
    is this process's to give. `spec_json`, asked meanwhile, becomes the bundle's config.json."""
    handles = open_handles(parts, creation, scope, undo)
    go_reader, go_writer = os.pipe2(os.O_CLOEXEC)
    scope.callback(os.close, go_reader)
    task = new_task(parts, creation, handles, go_writer)
    undo.push(task.abandon)
    handles = replace(handles, go=go_reader)
    task.create(render_plan(creation.spec, handles, creation.seccomp, creation.attach.winsize))
    write_bundle(creation.directory, spec_json())
    return task


def new_task(parts: Parts, creation: Creation, handles: Handles, go_fd: int = -1) -> Task:
    """The Task of `creation`, not made yet. A program without a pid namespace of its own leaves
    survivors: those in its cgroup die with it."""
    return Task(
        shim=parts.shim,
        key=creation.key,
        directory=creation.directory,
        flags=creation.flags,
        log_dir_fd=creation.log_dir_fd,
        log_options=creation.log_options,
        cgroup_fd=-1 if has_own_pids(creation.spec) else handles.cgroup,
        hold_fds=creation.hold_fds,
        attach=creation.attach,
        go_fd=go_fd,
    )


def open_handles(parts: Parts, creation: Creation, scope: ExitStack, undo: Undo) -> Handles:
    """Everything of the outside that the child will need, as descriptors.

    Raises StartFailed (a bind source or namespace that is missing), Conflict (a joined process is
    gone) and what `CgroupManager.create` raises.
    """
    spec = creation.spec
    cgroup = parts.cgroups.create(
        creation.cgroup_name, creation.cgroup_parent, spec["linux"].get("resources") or {}, undo
    )
    scope.callback(cgroup.close)
    fds = Descriptors()  # closed in every case: the shim has its own copies by then
    for _ in range(2):  # the first call may be interrupted
        scope.callback(fds.close)
    binds = open_mounts(parts.kernel, spec, fds)
    attributes = cgroup_mount_attributes(spec)
    clone = partial(parts.kernel.tree_clone, recursive=False, propagation=MS_PRIVATE)
    cgroup_mounts = []
    for name, path in cgroup.mounts:
        fds.append(clone(path, attr_set=attributes))
        cgroup_mounts.append((name, fds[-1]))
    namespaces = open_namespaces(parts.kernel, creation, fds)
    return Handles(
        rootfs=creation.rootfs,
        namespaces=namespaces,
        binds=binds,
        cgroup=cgroup.v2_fd,
        cgroup_joins=cgroup.join_fds,
        cgroup_mounts=cgroup_mounts,
        **open_joined_proc(parts.kernel, creation.joined.get("pid"), namespaces, fds),
    )


def open_joined_proc(
    kernel: Kernel,
    owner: ProcessIdentity | None,
    namespaces: Mapping[str, int],
    fds: Descriptors,
) -> dict[str, int]:
    """What a process needs of /proc that shows itself in another's pid namespace only when it
    executes its program: the /proc that those inside have, and one in which it sees itself."""
    if owner is None:
        return {}
    fds.append(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        fds.append(kernel.process_namespace(owner, "mnt"))
    except ProcessLookupError as error:
        raise not_running("pid") from error
    namespace = fds[-1]
    fds.append(kernel.proc_clone(namespace))
    _check_proc(kernel, fds[-1], namespaces["pid"])
    return {"proc": fds[-3], "joined_proc": fds[-1]}


def _check_proc(kernel: Kernel, proc: int, pids: int) -> None:
    """Whoever made the namespace may never have mounted its /proc, and still see all processes of
    the machine: those are not to be shown to the next one."""
    try:
        same = kernel.proc_shows(proc, pids)
    except FileNotFoundError as error:
        raise not_running("pid") from error
    if not same:
        raise InvalidParameter(
            "pid namespace : /proc of the process that it is joined by shows another pid namespace: "
            "mount its own there"
        )


def open_namespaces(kernel: Kernel, creation: Creation, fds: Descriptors) -> dict[str, int]:
    """The namespaces that the spec names by path, opened."""
    opened = {}
    for namespace in creation.spec["linux"]["namespaces"]:
        kind, path = namespace["type"], namespace.get("path")
        if not path:
            continue
        if kind == "network" and creation.network >= 0:
            opened[kind] = creation.network
            continue
        owner = creation.joined.get(kind)
        try:
            if owner is None:
                fds.append(kernel.ns_open(path, CLONE_NAMESPACES[kind]))
            else:
                fds.append(kernel.process_namespace(owner, os.path.basename(path)))
        except ProcessLookupError as error:
            raise not_running(kind) from error
        except (KernelError, OSError) as error:
            why = os.strerror(error.errno or 0)
            raise StartFailed(f"{kind} namespace {path}: {why}", 128) from error
        opened[kind] = fds[-1]
    return opened


def not_running(kind: str) -> Conflict:
    """The error for a namespace whose process has ended."""
    return Conflict(f"cannot join the {kind} namespace of a container that is not running")


# what is set in a namespace, and which one a path may not lead to then
_NAMES_IN_PROC = {"network": "net", "uts": "uts", "ipc": "ipc"}


def check_not_ours(spec: Mapping[str, Any]) -> None:
    """Refuse a namespace by path that is this process's own where something would be set in it: that
    would be the machine's. InvalidParameter."""
    sysctls = spec["linux"]["sysctl"]
    sets = {
        "network": any(name.startswith("net.") for name in sysctls),
        "ipc": any(not name.startswith(("net.", "kernel.domainname")) for name in sysctls),
        "uts": bool(spec["hostname"]) or "kernel.domainname" in sysctls,
    }
    for namespace in spec["linux"]["namespaces"]:
        kind, path = namespace["type"], namespace.get("path")
        if not path or not sets.get(kind):
            continue
        try:
            own = os.path.samefile(path, f"/proc/self/ns/{_NAMES_IN_PROC[kind]}")
        except OSError as error:
            raise StartFailed(f"{kind} namespace {path}: {error.strerror}", 128) from error
        if own:
            raise InvalidParameter(
                f"linux.namespaces: the {kind} namespace {path} is the host's: hostname and sysctls "
                "would be the host's, too"
            )
