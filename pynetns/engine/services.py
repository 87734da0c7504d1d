"""The engine: where state lives, the services of each layer, nothing else.

Owns: root and exec root, their layout and set-up, and the wiring of store, network, storage and
runtime, which never meet elsewhere. Opening an engine starts no thread, no process and no daemon; any
number of processes may open the same root at once. What it does with containers is in verbs/
(start.py first), what an end leaves in recover.py. client/engine.py is what users open.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ..errors import (
    NotFound,
    StateDamaged,
    Unavailable,
    remedy_of,
)
from ..files import check_state_directory, make_directories
from ..kernel import Kernel, LinuxKernel
from ..network.controller import NetworkController
from ..network.options import BridgeOptions
from ..runtime.cgroups import CgroupManager
from ..runtime.cgroups.protocol import Cgroups
from ..runtime.shim.client import ShimClient
from ..runtime.shim.protocol import Shim
from ..storage.images import ImageStore
from ..storage.rootfs import RootfsStore
from ..store import Store
from .exec_root import claim_exec_root, make_parts
from .record import ContainerRecord, container_directory, read_record
from .settings import (
    BadConfiguration,
    Settings,
    given_settings,
    load_settings,
)

log = logging.getLogger("pynetns")

DEFAULT_ROOT = "/var/lib/pynetns"
DEFAULT_EXEC_ROOT = "/run/pynetns"
_ROOT_DIRS = ("containers", "overlay2", "image/overlay2", "network/files", "tmp", "seccomp")


class Services:
    """Starts and manages containers below one root.

    root: durable state (default /var/lib/pynetns, or PYNETNS_ROOT). exec_root: what a reboot voids
    (default /run/pynetns, or PYNETNS_EXEC_ROOT); a private tmpfs is mounted there. bridge: name of
    the bridge device; bip: its address as CIDR, e.g. "172.30.0.1/16"; mtu in bytes; dns, dns_search,
    dns_options, log_driver, log_opts: defaults for containers that name none. All of these may come
    from the configuration files as well, and win over them: config_file (default
    /etc/pynetns/daemon.json, where there is one) and `<root>/daemon.json`. docs/configuration.md.

    Raises InvalidParameter (a value), Unavailable (not root, read-only or full disk) and StateDamaged.
    With a bad configuration file it opens, but creates and starts nothing (`check_configuration`).
    A context manager; `close` releases descriptors, containers go on.
    """

    def __init__(
        self,
        root: str | None = None,
        exec_root: str | None = None,
        *,
        bridge: str | None = None,
        bip: str | None = None,
        mtu: int | None = None,
        dns: Sequence[str] = (),
        dns_search: Sequence[str] = (),
        dns_options: Sequence[str] = (),
        log_driver: str | None = None,
        log_opts: Mapping[str, str] | None = None,
        config_file: str | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self.root = os.path.realpath(root or os.environ.get("PYNETNS_ROOT") or DEFAULT_ROOT)
        self.exec_root = os.path.realpath(
            exec_root or os.environ.get("PYNETNS_EXEC_ROOT") or DEFAULT_EXEC_ROOT
        )
        self.kernel: Kernel = kernel or LinuxKernel()
        if not self.kernel.privileged():
            raise Unavailable("engine : must run as root (try sudo)")
        self.bad_configuration: BadConfiguration | None = None
        self.settings = self._load_settings(
            config_file,
            bridge=bridge,
            bip=bip,
            mtu=mtu,
            dns=dns,
            dns_search=dns_search,
            dns_options=dns_options,
            log_driver=log_driver,
            log_opts=log_opts,
        )
        self._records: dict[str, tuple[tuple[int, int], ContainerRecord]] = {}
        self._make_root()
        self.store = Store(f"{self.root}/pynetns.db")
        try:
            self._open()
        except BaseException:
            self.store.close()
            raise

    def _open(self) -> None:
        self._make_exec_root()
        self.shim = self._make_shim()
        self.rootfs = RootfsStore(self.kernel, self.root, self.exec_root)
        self.image_store = ImageStore(self.store, self.kernel, self.root, self.exec_root)
        self.network = NetworkController(
            self.store,
            self.kernel,
            self.exec_root,
            bridge_name=default_bridge(self.root),
            options=BridgeOptions(
                self.settings.bridge,
                self.settings.bip,
                self.settings.mtu,
                {key: self.settings.label(key) for key in self.settings.sources},
            ),
            dns=self.settings.dns,
            dns_search=self.settings.dns_search,
            dns_options=self.settings.dns_options,
        )

    @cached_property
    def cgroups(self) -> Cgroups:
        """Made at first use: to find the hierarchies, all mounts are read, and each container may
        have pinned one."""
        return self._make_cgroups()

    def _make_cgroups(self) -> Cgroups:
        """pynetns.testing has an engine with others."""
        return self._cgroup_manager

    @cached_property
    def _cgroup_manager(self) -> CgroupManager:
        return CgroupManager(self.kernel, default_cgroup_parent(self.root))

    def _make_shim(self) -> Shim:
        """What runs containers. pynetns.testing has an engine with another one."""
        return ShimClient(
            self.exec_root,
            cgroup_procs=lambda: self._cgroup_manager.open_shim_procs(),
            shim_pids=lambda: self._cgroup_manager.shim_pids(),
        )

    # ---- configuration ----

    def _load_settings(self, config_file: str | None, **given: Any) -> Settings:
        """What is configured; where a file is bad, what the caller gives alone: containers that
        are there must be reached, listed and removed nevertheless."""
        try:
            return load_settings(self.root, config_file, **given)
        except BadConfiguration as error:
            self.bad_configuration = error
            log.info("%s (until it is mended nothing is created or started)", error)
            return given_settings(Settings(), {**given, "log_driver": None, "log_opts": None})

    def check_configuration(self) -> None:
        """Before anything is created or started: nothing may be, by less than what was configured.

        BadConfiguration, naming file and key.
        """
        if self.bad_configuration is not None:
            raise BadConfiguration(
                f"{self.bad_configuration}: mend the file; until then nothing is created or started"
            ) from self.bad_configuration

    # ---- set-up ----

    def _make_root(self) -> None:
        if len(self.exec_root) > 3000 or self.exec_root == self.root:
            raise Unavailable("--exec-root : must be a directory of its own")
        with _told():
            _make_directory(self.root, 0o711)
            check_state_directory("--root", self.root)
            for name in _ROOT_DIRS:
                _make_directory(f"{self.root}/{name}", 0o711, 0o711)
                check_state_directory("--root", f"{self.root}/{name}", self.root)

    def _make_exec_root(self) -> None:
        with _told():
            _make_directory(self.exec_root, 0o700)
            check_state_directory("--exec-root", self.exec_root)
            claim_exec_root(self.store, self.kernel, self.root, self.exec_root)
            make_parts(self.exec_root, self.kernel.is_mounted)

    # ---- records ----

    def record(self, container_id: str) -> ContainerRecord:
        """What container `container_id` is configured to be; read again only when changed.

        Raises StateDamaged, or NotFound for one that has been removed, is being removed or made.
        """
        try:
            stamp = self._record_stamp(container_id)
            known = self._records.get(container_id)
            if known and known[0] == stamp:
                return known[1]
            record = read_record(self.root, container_id)
        except FileNotFoundError as error:
            row = self.store.container(container_id)
            if row is None or row.state.removal_in_progress or not row.state.started_before:
                raise NotFound(f"No such container: {container_id}") from error
            raise StateDamaged(f"{error.filename}: missing") from error
        self._records[container_id] = (stamp, record)
        return record

    def remember_record(self, record: ContainerRecord) -> None:
        """Keep a record that has just been written, so that a start need not read it back."""
        self._records[record.id] = (self._record_stamp(record.id), record)

    def _record_stamp(self, container_id: str) -> tuple[int, int]:
        directory = container_directory(self.root, container_id)
        return (
            os.stat(f"{directory}/config.v2.json").st_mtime_ns,
            os.stat(f"{directory}/hostconfig.json").st_mtime_ns,
        )

    def forget_record(self, container_id: str) -> None:
        """Drop a removed container from the cache."""
        self._records.pop(container_id, None)

    def close(self) -> None:
        """Release descriptors. The engine cannot be used afterwards; containers go on."""
        self.shim.close()
        self.store.close()


@contextmanager
def _told() -> Iterator[None]:
    """Unavailable, with the path and what to do, for a directory that cannot be made or read."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{error.filename} : {error.strerror}{remedy_of(error.errno)}") from error


def _make_directory(path: str, mode: int, parents: int = 0o755) -> None:
    """Make it and its parents; not even tried where it is there (it may be read-only or frozen)."""
    if not os.path.isdir(path):
        make_directories(path, mode, parents)


def default_bridge(root: str) -> str:
    """The bridge device of a root: one name for the default root, another for every other."""
    return "pynetns0" if root == DEFAULT_ROOT else f"pn-{root_digest(root)}"


def default_cgroup_parent(root: str) -> str:
    """The engine's own cgroup in every hierarchy, by root as the bridge."""
    return "/pynetns" if root == DEFAULT_ROOT else f"/pynetns-{root_digest(root)}"


def root_digest(root: str) -> str:
    """Eight digits that tell roots apart in names of kernel objects."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
