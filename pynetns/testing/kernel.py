"""A kernel on paper: what the engine asks of `Kernel`, without root and without touching a machine.

Owns: pinned namespaces, processes, bound ports, and the table of failures. Links and rules are in
network.py, mounts and files in mounts.py. It shows order, failures, undo and what is left; no claim about
the real kernel rests on it. Where the engine depends on a refusal of the real one (EEXIST, ENODEV,
ESRCH, EADDRINUSE …) it refuses as well. Files, directories and descriptors are real ones.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import KernelError
from ..kernel.process import ProcessIdentity
from .mounts import FakeMounts
from .network import FakeNetwork
from .objects import Handle, Registry
from .process import FakeProcess

# Calls that fail with an OSError where the others do with a KernelError; see kernel/.
_OS_ERRORS = frozenset(
    """link_sysctl mknod chown setxattr start_ticks process_lives process_is_ending process_open
    process_namespace proc_shows process_root pidfd_send_signal port_bind""".split()
)
ANY = "0.0.0.0"


class Call(NamedTuple):
    """A call that was made."""

    name: str
    args: tuple[Any, ...]


class Bound(NamedTuple):
    """A port that somebody holds: `ours` is the other end of the socket that was handed out."""

    kind: int
    address: str
    port: int
    ours: socket.socket

    def is_held(self) -> bool:
        """Whether that socket is open anywhere."""
        self.ours.setblocking(False)
        try:
            return self.ours.recv(1) != b""
        except BlockingIOError:
            return True


class FakeNamespace(NamedTuple):
    """A namespace of a process, but its network's, while somebody has a descriptor of it."""

    handle: Handle
    kind: str
    owner: FakeProcess


class FakePending:
    """A namespace begun; see kernel.Pending. As the real one it may fail, and is open until then."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._made = [kernel.new_namespace()]

    def finish(self) -> tuple[int, int]:
        """A second time is a mistake of the caller."""
        self._kernel.called("netns_create")
        return self._made.pop()

    def close(self) -> None:
        """Give it up, if it was not handed over."""
        while self._made:
            for fd in self._made.pop():
                os.close(fd)


class FakeKernel(FakeNetwork, FakeMounts):
    """A machine's kernel. Several engines may share one, as they share a machine.

    `calls`: every call in order. `fail`: method -> errno, the next call of that method fails so.
    `fail_at(n, errno)`: the n-th call from now on fails, whichever it is. `left()` says what there
    is: take it before and after, and nothing leaks when both are equal. Thread-safe.
    """

    def __init__(self) -> None:
        FakeNetwork.__init__(self)
        FakeMounts.__init__(self)
        self.calls: list[Call] = []
        self.fail: dict[str, int] = {}
        self.lock = threading.RLock()
        self.processes: dict[int, FakeProcess] = {}
        self.taken: set[tuple[int, str, int]] = set()  # ports of others: kind, address, port
        self.root_user = True  # what `privileged` says
        self._fail_in, self._fail_errno = 0, 0
        self._boot = 1
        self._next_pid, self._ticks = 1000, 100
        self._bound: list[Bound] = []
        self._pidfds: Registry[FakeProcess] = Registry()
        self._namespaces: Registry[FakeNamespace] = Registry()

    # ---- calls and failures ----

    def called(self, name: str, *args: Any) -> None:
        """Note a call; KernelError or OSError where it is to fail."""
        with self.lock:
            self.calls.append(Call(name, args))
            number = self.fail.pop(name, 0)
            if self._fail_in:
                self._fail_in -= 1
                number = number or (0 if self._fail_in else self._fail_errno)
        if number and name in _OS_ERRORS:
            raise OSError(number, f"{name}: {os.strerror(number)}")
        if number:
            raise KernelError(number, name)

    def fail_at(self, call: int, number: int = errno.EIO) -> None:
        """Have the call of that position fail, counted from 1 for the next one; 0: none."""
        self._fail_in, self._fail_errno = call, number

    # ---- what there is ----

    def left(self) -> list[str]:
        """A line for each thing that is there: namespaces, links, published and bound ports, mounts,
        processes."""
        with self.lock:
            self._collect()
            found = self.network_left()
            found += [f"mount {where}" for where in self.mounts]
            found += [f"process {p.pid} {' '.join(p.args)}" for p in self.living()]
            found += [f"socket {bound.address}:{bound.port}" for bound in self.bound()]
        return sorted(found)

    def bound(self) -> list[Bound]:
        """The ports that somebody holds."""
        for bound in list(self._bound):
            if not bound.is_held():
                bound.ours.close()
                self._bound.remove(bound)
        return list(self._bound)

    def living(self) -> list[FakeProcess]:
        """The processes that have not ended."""
        return [process for process in self.processes.values() if process.exit_code is None]

    def reboot(self) -> None:
        """Another boot: no process, namespace, link, rule, port and mount is left of the one before."""
        with self.lock:
            for process in self.living():
                process.exit(137)
            self.unmount_all()
            self.network_reboot()
            self._boot += 1
            self._forget()

    def close(self) -> None:
        """Give its descriptors back. Idempotent."""
        with self.lock:
            for process in self.living():
                process.exit(137)
            self.network_reboot()
            self._forget()

    def _forget(self) -> None:
        for bound in self._bound:
            bound.ours.close()
        self._bound.clear()
        self._pidfds.clear()
        self._namespaces.clear()
        self.processes.clear()

    # ---- namespaces ----

    def netns_create(self, *, ipv6_off: bool = True, lo_up: bool = True) -> tuple[int, int]:
        self.called("netns_create", ipv6_off, lo_up)
        return self.new_namespace()

    def netns_begin(self, *, ipv6_off: bool = True, lo_up: bool = True) -> FakePending:
        self.called("netns_begin", ipv6_off, lo_up)
        return FakePending(self)

    def ns_pin(self, fd: int, where: str) -> None:
        self.called("ns_pin", where)
        namespace = self.namespace_of(fd)
        if namespace is None:
            raise KernelError(errno.EINVAL, "ns_pin", where)
        try:
            Path(where).touch(exist_ok=False)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, "ns_pin", where) from error
        namespace.pins.add(where)

    def ns_unpin(self, where: str) -> None:
        self.called("ns_unpin", where)
        Path(where).unlink(missing_ok=True)
        for namespace in self.namespaces():
            namespace.pins.discard(where)

    def ns_open(self, where: str, nstype: int = 0) -> int:
        self.called("ns_open", where, nstype)
        for namespace in self.namespaces():
            if where in namespace.pins:
                return namespace.handle.open()
        if where.startswith("/proc/thread-self/"):  # the machine's own, which nobody enters
            return os.open(where, os.O_RDONLY | os.O_CLOEXEC)
        missing = errno.EINVAL if os.path.exists(where) else errno.ENOENT
        raise KernelError(missing, "ns_open", where)

    # ---- processes ----

    def next_identity(self) -> ProcessIdentity:
        """Number and start of a process about to be made."""
        with self.lock:
            self._next_pid += 1
            self._ticks += 1
            return ProcessIdentity(self._next_pid, self._ticks, self.boot_id())

    def add_process(self, process: FakeProcess) -> None:
        """It is there, until it ends."""
        with self.lock:
            self._collect()
            self.processes[process.pid] = process
            self._pidfds.add(process.handle, process)
        process.at_end.append(self._ended)

    def _ended(self, process: FakeProcess) -> None:
        for other in self.living():
            if other.leader is process:
                other.exit(137)

    def _collect(self) -> None:
        """Forget ended processes and namespaces of which nobody has a descriptor."""
        for namespace in self._namespaces.all():
            if not namespace.handle.is_held():
                self._namespaces.drop(namespace.handle)
        for process in [p for p in self.processes.values() if p.exit_code is not None]:
            if not process.handle.is_held():
                self._pidfds.drop(process.handle)
                del self.processes[process.pid]

    def process_of(self, fd: int) -> FakeProcess | None:
        """The process that a pidfd means, or whose pid namespace a descriptor is; else None."""
        process = self._pidfds.of(fd)
        if process is not None:
            return process
        namespace = self._namespaces.of(fd)
        return namespace.owner if namespace is not None and namespace.kind == "pid" else None

    def _process(self, identity: ProcessIdentity) -> FakeProcess | None:
        process = self.processes.get(identity.pid)
        same = process is not None and process.identity == identity
        return process if same and process is not None and process.exit_code is None else None

    def _living(self, identity: ProcessIdentity) -> FakeProcess:
        process = self._process(identity)
        if process is None:
            raise identity.gone()
        return process

    def privileged(self) -> bool:
        return self.root_user

    def boot_id(self) -> str:
        return f"00000000-0000-4000-8000-{self._boot:012}"

    def start_ticks(self, pid: int) -> int:
        self.called("start_ticks", pid)
        process = self.processes.get(pid)
        alive = process is not None and process.exit_code is None
        return process.identity.start_ticks if alive and process is not None else 0

    def process_lives(self, identity: ProcessIdentity) -> bool:
        self.called("process_lives", identity)
        return self._process(identity) is not None

    def process_is_ending(self, identity: ProcessIdentity) -> bool:
        self.called("process_is_ending", identity)
        return self._process(identity) is None

    def process_open(self, identity: ProcessIdentity) -> int:
        self.called("process_open", identity)
        return self._living(identity).handle.open()

    def process_namespace(self, identity: ProcessIdentity, kind: str) -> int:
        self.called("process_namespace", identity, kind)
        process = self._living(identity)
        if kind == "net" and process.network is not None:
            return process.network.handle.open()
        namespace = FakeNamespace(Handle(), kind, process)
        self._namespaces.add(namespace.handle, namespace)
        return namespace.handle.open()

    def proc_shows(self, proc: int, pid_namespace: int) -> bool:
        self.called("proc_shows")
        return self.process_of(pid_namespace) is not None

    def process_root(self, identity: ProcessIdentity) -> int:
        self.called("process_root", identity)
        return self.open_root(self._living(identity).root)

    def pidfd_send_signal(self, pidfd: int, number: int) -> bool:
        self.called("pidfd_send_signal", number)
        process = self._pidfds.of(pidfd)
        return process is not None and process.deliver(number)

    def pidfd_exit_code(self, pidfd: int, pid: int, start_ticks: int) -> int | None:
        self.called("pidfd_exit_code", pid)
        process = self._pidfds.of(pidfd)
        return None if process is None else process.exit_code

    # ---- ports ----

    def port_bind(self, kind: int, address: str, port: int) -> socket.socket:
        self.called("port_bind", kind, address, port)
        with self.lock:
            if address not in self.own_addresses():
                raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            held = {bound[:3] for bound in self.bound()} | self.taken
            for other_kind, other, other_port in held:
                if (other_kind, other_port) == (kind, port) and (
                    other == address or ANY in (other, address)
                ):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            ours, theirs = socket.socketpair()
            self._bound.append(Bound(kind, address, port, ours))
            return theirs
