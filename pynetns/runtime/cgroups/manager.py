"""What the engine asks of cgroups, from create to remove.

Owns: which hierarchies a container is in and the order of what is done there; v1.py and v2.py do
it. Nothing is kept in memory or on disk: the directories say what there is, so that any process can
take over. Parents other than the engine's own are parents.py's affair, the shim's cgroup is
shim_place.py's.

The child is cloned into the v2 cgroup and joins the v1 ones last, just before it executes.
Source: seed section 1.2.2 (cgroup path and resources); kernel documents cgroup-v1, cgroup-v2.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import Conflict, Unavailable
from ...files import make_directory
from ...kernel import Kernel
from ...model.config import HostConfig
from ...undo import Undo
from ..spec.devices import DEFAULT_RULES
from . import parents, shim_place, v1, v2
from .cgroup import Cgroup
from .files import kill_one_by_one, old_containers, pids_below
from .hierarchy import Hierarchies, detect
from .limits import Setting, check_controllers, render
from .parents import clean_parent
from .view import CgroupView

DEFAULT_PARENT = "/pynetns"


class CgroupManager(CgroupView):
    """Cgroups below `parent`, the engine's own cgroup in every hierarchy."""

    def __init__(
        self,
        kernel: Kernel,
        parent: str = DEFAULT_PARENT,
        detect: Callable[[], Hierarchies] = detect,
    ) -> None:
        super().__init__(clean_parent(parent), detect())
        self._policy = v2.DevicePolicy(kernel, DEFAULT_RULES)

    def validate(self, host_config: HostConfig) -> None:
        """Whether this machine can enforce the limits asked for. Unavailable names the option."""
        check_controllers(host_config, self._hierarchies)
        self._check_swap(host_config)

    def _check_swap(self, host_config: HostConfig) -> None:
        memory = self._hierarchies.v1.get("memory")
        asked = host_config.memory_swap > 0 and memory
        if asked and not os.path.exists(f"{memory}/memory.memsw.limit_in_bytes"):
            raise Unavailable(
                "--memory-swap: this machine does not account for swap (swapaccount=1)"
            )

    # ---- create ----

    def create(
        self, container_id: str, parent: str, resources: Mapping[str, Any], undo: Undo
    ) -> Cgroup:
        """Make the cgroups of a container and write its limits.

        parent: "" for the engine's own; resources: the OCI spec's `linux.resources`. The result is
        the caller's to close. Raises InvalidParameter, Unavailable for a limit that cannot be
        enforced here, Conflict when the cgroup is there and in use.
        """
        parent = clean_parent(parent) if parent else self.parent
        settings = self._settings(resources)
        rules = resources.get("devices") or ()
        if parent != self.parent:
            parents.remember(f"{self._hierarchies.anchor}{self.parent}", parent)
        path = f"{parent}/{container_id}"
        with contextlib.ExitStack() as opened:
            v2_fd = -1
            if self._hierarchies.v2:
                self._make_v2(parent, path)
                undo.push(self.remove_path, path)
                if parent == self.parent:
                    self._policy.ensure_default(f"{self._hierarchies.v2}{parent}")
                v2_fd = v2.open_cgroup(f"{self._hierarchies.v2}{path}")
                opened.callback(os.close, v2_fd)
                if parent != self.parent or not self._policy.is_default(rules):
                    self._policy.attach(v2_fd, rules)
            elif "devices" not in self._hierarchies.v1:
                raise Unavailable("cgroup: neither a v2 nor a v1 devices hierarchy is mounted")
            else:
                undo.push(self.remove_path, path)
            joined = self._make_v1(path, settings)
            if parent not in ("", self.parent):
                joined |= self._make_below(parent, path, joined)
            if v2_fd < 0:
                joined["devices"] = self._make_one(self._hierarchies.v1["devices"], path, "devices")
                v1.apply_devices(joined["devices"], rules)
            for setting in settings:
                if setting.controller not in self._hierarchies.v1:
                    v2.apply_setting(self._hierarchies.v2, f"{self._hierarchies.v2}{path}", setting)
            if "memory" in self._hierarchies.v2_controllers:
                v2.note_oom(self._hierarchies.v2, f"{self._hierarchies.v2}{path}")
            cgroup = self._opened(path, v2_fd, joined)
            opened.pop_all()
            return cgroup

    def _settings(self, resources: Mapping[str, Any]) -> list[Setting]:
        if not resources.keys() - {"devices"}:
            return []
        settings = render(resources, self._hierarchies.v1)
        for setting in settings:
            known = setting.controller in self._hierarchies.v1
            if not known and setting.controller not in self._hierarchies.v2_controllers:
                raise Unavailable(
                    f"{setting.option}: this machine has no {setting.controller} cgroup controller"
                )
        return settings

    def _make_v2(self, parent: str, path: str) -> None:
        directory = f"{self._hierarchies.v2}{path}"
        try:
            for attempt in range(parents.TRIES):
                if parent != self.parent:
                    self._make_parent(parent)
                try:
                    make_directory(directory, 0o755)
                    return
                except FileNotFoundError:
                    if attempt == parents.TRIES - 1:
                        raise
                    self._make_parent(parent)
        except FileExistsError:
            self._replace(directory)
        except OSError as error:
            raise Unavailable(f"cgroup {directory}: {error.strerror}") from error

    def _make_parent(self, parent: str) -> None:
        """The parent in the v2 hierarchy; memory is counted below it, where that can be had."""
        with contextlib.suppress(FileNotFoundError):  # removed in between: the caller tries again
            parents.make_path(self._hierarchies.v2, parent, mark=parent != self.parent)
        if "memory" in self._hierarchies.v2_controllers:
            v2.account(self._hierarchies.v2, parent)

    def _replace(self, directory: str) -> None:
        """What an earlier run of the same container left goes; it must not be in use."""
        if pids_below(directory):
            raise Conflict(f"cgroup {directory}: is in use")
        v2.remove(directory)
        try:
            make_directory(directory, 0o755)
        except OSError as error:
            raise Unavailable(f"cgroup {directory}: {error.strerror}") from error

    def _make_v1(self, path: str, settings: Sequence[Setting]) -> dict[str, str]:
        """The v1 cgroups that the settings need: controller -> directory."""
        joined: dict[str, str] = {}
        needed = dict.fromkeys(setting.controller for setting in settings)
        for controller in needed:
            mount = self._hierarchies.v1.get(controller)
            if mount is None:
                continue
            joined[controller] = self._make_one(mount, path, controller)
            v1.apply_settings(
                joined[controller], [s for s in settings if s.controller == controller]
            )
        return joined

    def _make_one(self, mount: str, path: str, controller: str) -> str:
        return v1.make(mount, path, controller, mark=not self._is_own(path))

    def _make_below(self, parent: str, path: str, joined: Mapping[str, str]) -> dict[str, str]:
        """Below a parent that somebody named, in every hierarchy in which it is: what holds for the
        parent there (a limit, a freezer, a unit's end) holds for the container."""
        return {
            name: self._make_one(mount, path, name)
            for name, mount in self._v1_mounts().items()
            if name not in joined and os.path.isdir(f"{mount}{parent}")
        }

    def _v1_mounts(self) -> dict[str, str]:
        """Every v1 hierarchy, each of ours by its controllers, others by the mount point's name."""
        ours = self._hierarchies.v1
        rest = [mount for mount in self._hierarchies.all_v1 if mount not in ours.values()]
        return {**ours, **{os.path.basename(mount): mount for mount in rest}}

    def _opened(self, path: str, v2_fd: int, joined: Mapping[str, str]) -> Cgroup:
        places = dict.fromkeys(joined.values())  # controllers may share a hierarchy
        with contextlib.ExitStack() as opened:
            fds = []
            for directory in places:
                fds.append(v1.open_procs(directory))
                opened.callback(os.close, fds[-1])
            opened.pop_all()
        paths, mounts = dict(joined), [(name, joined[name]) for name in sorted(joined)]
        if v2_fd >= 0:
            paths[""] = f"{self._hierarchies.v2}{path}"
            mounts.append(("unified" if self._hierarchies.v1 else "", paths[""]))
        return Cgroup(v2_fd, tuple(fds), paths, tuple(mounts))

    # ---- where a container is ----

    def _other_parents(self) -> list[str]:
        return parents.remembered(f"{self._hierarchies.anchor}{self.parent}")

    def _path(self, container_id: str) -> str | None:
        """The container's path in every hierarchy, None when it has no cgroup."""
        anchor = self._hierarchies.anchor
        if os.path.isdir(f"{anchor}{self.parent}/{container_id}"):
            return f"{self.parent}/{container_id}"
        for parent in self._other_parents():
            if os.path.isdir(f"{anchor}{parent}/{container_id}"):
                return f"{parent}/{container_id}"
        return None

    def _existing(self, path: str) -> dict[str, str]:
        """The v1 cgroups that a container has: controller -> directory."""
        return {
            controller: directory
            for controller, mount in self._mounts_of(path).items()
            if os.path.isdir(directory := f"{mount}{path}")
        }

    def _mounts_of(self, path: str) -> Mapping[str, str]:
        """The v1 hierarchies that a container may be in: one below the engine's own parent is in
        none but those of limits."""
        return self._hierarchies.v1 if self._is_own(path) else self._v1_mounts()

    def _is_own(self, path: str) -> bool:
        return posixpath.dirname(path) == self.parent

    # ---- a container that has cgroups ----

    def open(self, container_id: str) -> Cgroup:
        """The cgroups of a running container, for one more process in it (exec).

        Raises Conflict when it has none.
        """
        path = self._path(container_id)
        if path is None:
            raise Conflict(f"container {container_id}: has no cgroup, it is not running")
        try:
            v2_fd = v2.open_cgroup(f"{self._hierarchies.v2}{path}") if self.has_v2 else -1
            try:
                return self._opened(path, v2_fd, self._existing(path))
            except OSError:
                if v2_fd >= 0:
                    os.close(v2_fd)
                raise
        except OSError as error:
            raise Conflict(f"container {container_id}: its cgroup: {error.strerror}") from error

    def _oom_kills(self, path: str, existing: Mapping[str, str]) -> int:
        if "memory" in existing:
            return v1.oom_kills(existing["memory"])
        root = self._hierarchies.v2
        return v2.oom_kills(root, f"{root}{path}") if root else 0

    def oom_killed(self, container_id: str) -> bool:
        """Whether the kernel killed a process of the container for its memory limit."""
        path = self._path(container_id)
        return path is not None and self._oom_kills(path, self._existing(path)) > 0

    def kill_all(self, container_id: str) -> None:
        """SIGKILL to every process of the container. Without a cgroup there is nothing to do."""
        path = self._path(container_id)
        if path is None:
            return
        if self.has_v2:
            v2.kill(f"{self._hierarchies.v2}{path}")
        else:
            kill_one_by_one(f"{self._hierarchies.anchor}{path}")

    # ---- remove ----

    def remove(self, container_id: str) -> None:
        """Remove the container's cgroups, killing what is left in them. Absent is fine.

        Raises System when processes do not end.
        """
        for parent in [self.parent, *self._other_parents()]:
            self.remove_path(f"{parent}/{container_id}")

    def remove_path(self, path: str) -> None:
        """The same for the one at `path` in every hierarchy; also a parent made for it, when empty."""
        if self.has_v2:
            v2.remove(f"{self._hierarchies.v2}{path}")
        for directory in v1.directories(self._mounts_of(path), path).values():
            v1.remove(directory)
        if not self._is_own(path):
            parents.prune(self.mounts, posixpath.dirname(path))

    def collect(self, alive: set[str]) -> list[str]:
        """Remove empty cgroups of containers that are not in `alive`; their paths.

        Cgroups with processes are left alone, as are young ones.
        """
        removed = []
        for parent in [self.parent, *self._other_parents()]:
            for mount in self.mounts:
                for directory in old_containers(f"{mount}{parent}", alive):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)
                        removed.append(directory)
        for parent in self._other_parents():
            removed += parents.prune(self.mounts, parent)
        return removed

    # ---- the shim ----

    def open_shim_procs(self) -> list[int]:
        """The shim's own cgroup in every hierarchy, made; cgroup.procs files by which it enters
        them, the caller's to close. One that refuses is left out, with a warning logged."""
        if self.has_v2:
            with contextlib.suppress(OSError):  # as the first container would
                self._make_parent(self.parent)
        return shim_place.open_procs(self._hierarchies, self.parent)

    def remove_parent(self) -> list[str]:
        """Remove the engine's own cgroups where no container's is below them, the shim's first: its
        end is waited for (5 s). Their paths."""
        removed = shim_place.remove(self._hierarchies, self.parent)
        for mount in self.mounts:
            with contextlib.suppress(OSError):
                os.rmdir(f"{mount}{self.parent}")
                removed.append(f"{mount}{self.parent}")
        return removed

    @property
    def mounts(self) -> list[str]:
        """The mount point of every hierarchy."""
        mounts = [*self._hierarchies.v1.values(), *self._hierarchies.all_v1, self._hierarchies.v2]
        return [mount for mount in dict.fromkeys(mounts) if mount]
