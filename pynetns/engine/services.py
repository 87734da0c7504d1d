"""The engine: where state lives, the services of each layer, nothing else.

Owns: root and exec root, their layout and set-up, and the wiring of store, network, storage and
runtime, which never meet elsewhere. Opening an engine starts no thread, no process and no daemon; any
number of processes may open the same root at once. What it does with containers is in verbs/
(start.py first), what an end leaves in recover.py. client/engine.py is what users open.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

from ..errors import (
    InvalidParameter,
    NotFound,
    StateDamaged,
    Unavailable,
    remedy_of,
)
from ..files import check_state_directory, make_directories
from ..kernel import Kernel
from ..network.controller import NetworkController
from ..runtime.cgroups import CgroupManager
from ..runtime.shim.client import ShimClient
from ..storage.images import ImageStore
from ..storage.rootfs import RootfsStore
from ..store import Store
from .exec_root import claim_exec_root
from .record import ContainerRecord, container_directory, read_record
from .settings import load_settings

DEFAULT_ROOT = "/var/lib/pynetns"
DEFAULT_EXEC_ROOT = "/run/pynetns"
_ROOT_DIRS = ("containers", "overlay2", "image/overlay2", "network/files", "tmp", "seccomp")
_EXEC_DIRS = ("netns", "tasks", "locks", "image")


class Services:
    """Starts and manages containers below one root.

    root: durable state (default /var/lib/pynetns, or PYNETNS_ROOT). exec_root: what a reboot voids
    (default /run/pynetns, or PYNETNS_EXEC_ROOT); a private tmpfs is mounted there. bridge: name of
    the bridge device; bip: its address as CIDR, e.g. "172.30.0.1/16" (both chosen when absent).
    mtu in bytes; dns, dns_search, dns_options: defaults for containers that name none.
    log_driver, log_opts: defaults over those of the configuration files: config_file (default
    /etc/pynetns/daemon.json, where there is one) and `<root>/daemon.json`.

    Raises InvalidParameter (a value, or a configuration file, which it names), Unavailable (not root,
    read-only or full disk) and StateDamaged. A context manager; `close` releases descriptors,
    containers go on.
    """

    def __init__(
        self,
        root: str | None = None,
        exec_root: str | None = None,
        *,
        bridge: str | None = None,
        bip: str | None = None,
        mtu: int = 1500,
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
        if os.geteuid() != 0:
            raise Unavailable("engine : must run as root (try sudo)")
        if bridge is not None:
            check_bridge_name(bridge)
        self.settings = load_settings(self.root, config_file, log_driver, log_opts)
        self.kernel = kernel or Kernel()
        self._records: dict[str, tuple[tuple[int, int], ContainerRecord]] = {}
        self._make_root()
        self.store = Store(f"{self.root}/pynetns.db")
        try:
            self._open(bridge, bip, mtu, tuple(dns), tuple(dns_search), tuple(dns_options))
        except BaseException:
            self.store.close()
            raise

    def _open(
        self,
        bridge: str | None,
        bip: str | None,
        mtu: int,
        dns: tuple[str, ...],
        dns_search: tuple[str, ...],
        dns_options: tuple[str, ...],
    ) -> None:
        self._make_exec_root()
        self.shim = ShimClient(self.exec_root, cgroup_procs=lambda: self.cgroups.open_shim_procs())
        self.rootfs = RootfsStore(self.kernel, self.root, self.exec_root)
        self.image_store = ImageStore(self.store, self.root, self.exec_root)
        self.network = NetworkController(
            self.store,
            self.kernel,
            self.exec_root,
            bridge_name=bridge or default_bridge(self.root),
            bip=bip,
            mtu=mtu,
            dns=dns,
            dns_search=dns_search,
            dns_options=dns_options,
        )

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
            for name in _EXEC_DIRS:
                _make_directory(f"{self.exec_root}/{name}", 0o700)

    @cached_property
    def cgroups(self) -> CgroupManager:
        """Made at first use: to find the hierarchies, all mounts are read, and each container may
        have pinned one."""
        return CgroupManager(self.kernel, default_cgroup_parent(self.root))

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


def check_bridge_name(name: str) -> None:
    """InvalidParameter for what cannot be a link's name. netdevice(7)."""
    if not 0 < len(name) <= 15 or name in (".", "..") or set(name) & set("/: \t\n"):
        raise InvalidParameter(
            f"--bridge {name!r} : a link's name has 1 to 15 characters, no blank, '/' or ':'"
        )


def default_bridge(root: str) -> str:
    """The bridge device of a root: one name for the default root, another for every other."""
    return "pynetns0" if root == DEFAULT_ROOT else f"pn-{root_digest(root)}"


def default_cgroup_parent(root: str) -> str:
    """The engine's own cgroup in every hierarchy, by root as the bridge."""
    return "/pynetns" if root == DEFAULT_ROOT else f"/pynetns-{root_digest(root)}"


def root_digest(root: str) -> str:
    """Eight digits that tell roots apart in names of kernel objects."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
