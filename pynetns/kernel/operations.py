"""Writing a plan: the operations a child executes between clone and exec, as bytes.

Owns: the encoding of `struct pn_op` (csrc/pynetns.h). `Plan` is what runtime/plan/render.py renders an OCI
spec into, and what other designs fill by hand:

    >>> plan = Plan(clone_flags=0)
    >>> plan.exec(["/bin/echo", "hello"], {"PATH": "/bin"})
    >>> plan.steps()
    ['clone', 'exec']
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from ..trace import Span
from .lib import lib, step_name

CREATE = lib.PN_DEST_CREATE
NO_SYMLINK = lib.PN_DEST_NO_SYMLINK
S_IFDIR = 0o040000
S_IFREG = 0o100000

# Which of an operation's strings says what it is about.
_SUBJECT = {
    lib.PN_OP_MOUNT: 2,
    lib.PN_OP_ATTACH: 0,
    lib.PN_OP_MKDIR: 0,
    lib.PN_OP_MKNOD: 0,
    lib.PN_OP_SYMLINK: 1,
    lib.PN_OP_MASK: 0,
    lib.PN_OP_READONLY: 0,
    lib.PN_OP_SYSCTL: 0,
    lib.PN_OP_CWD: 0,
}

_header = struct.Struct("=IIII4q")
_PADDING = [b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0"]


def _joined(strings: Sequence[str]) -> bytes:
    payload = b"\0".join([os.fsencode(s) for s in strings]) + b"\0"
    if payload.count(b"\0") != len(strings):
        raise ValueError("a string holds a NUL byte")
    return payload


def _operation(code: int, args: tuple[int, int, int, int], nstr: int, payload: bytes) -> bytes:
    return _header.pack(code, nstr, len(payload), 0, *args) + payload + _PADDING[len(payload) % 8]


@lru_cache(maxsize=4096)
def _encode(code: int, a: int, b: int, c: int, d: int, strings: tuple[str, ...]) -> bytes:
    """Most operations of most containers are the same: each is encoded once."""
    return _operation(code, (a, b, c, d), len(strings), _joined(strings) if strings else b"")


class SeccompFilter(bytes):
    """A struct sock_filter array and the flags to load it with, SECCOMP_FILTER_FLAG_* of
    seccomp(2)."""

    flags: int

    def __new__(cls, program: bytes, flags: int = 0) -> SeccompFilter:
        made = super().__new__(cls, program)
        made.flags = flags
        return made


class Plan:
    """A plan under construction. `fds` is its descriptor table from index 3 on (0-2 are stdio)."""

    def __init__(self, clone_flags: int, cgroup: int = -1) -> None:
        """`clone_flags`: CLONE_NEW* bits; `cgroup`: a v2 cgroup directory fd to be born in, or -1."""
        self.fds: list[int] = []
        self._parts: list[bytes] = []
        self._names: list[tuple[int, str]] = []
        self._sources: dict[int, str] = {}
        self._op(lib.PN_OP_CLONE, clone_flags, self.fd(cgroup) if cgroup >= 0 else -1)

    def fd(self, fd: int) -> int:
        """Enter a descriptor into the table; its index."""
        self.fds.append(fd)
        return len(self.fds) + 2

    def _op(self, code: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, *strings: str) -> None:
        self._parts.append(_encode(code, a, b, c, d, strings))
        self._names.append((code, strings[_SUBJECT[code]] if code in _SUBJECT else ""))

    def _blob(self, code: int, blob: bytes, arg: int = 0) -> None:
        self._parts.append(_operation(code, (arg, 0, 0, 0), 0, blob))
        self._names.append((code, ""))

    def encode(self) -> bytes:
        """The plan as pn_spawn and the shim take it."""
        return b"".join(self._parts)

    def steps(self) -> list[str]:
        """The operations' names, in order."""
        return [step_name(code) for code, _ in self._names]

    def describe(self, index: int) -> tuple[str, str]:
        """(name, subject) of operation `index`, e.g. ("mount", "/proc"); for messages and traces."""
        code, subject = self._names[index]
        return step_name(code), subject

    def source(self, index: int) -> str:
        """What the mount of operation `index` is of, "" where nobody has said."""
        return self._sources.get(index, "")

    # ---- process ----
    def pdeathsig(self, signal: int) -> None:
        """Signal for the program when its spawner's thread ends. prctl(2) PR_SET_PDEATHSIG."""
        self._op(lib.PN_OP_PDEATHSIG, signal)

    def stdio(self, uid: int = 0, gid: int = 0, *, own_null: bool = False) -> None:
        """Put the table's entries 0-2 in place; pipes among them are given to uid:gid. With
        `own_null` a null device among them is replaced by that of the root as it is now."""
        self._op(lib.PN_OP_STDIO, uid, gid, int(own_null))

    def setsid(self, *, terminal: bool = False) -> None:
        """A session of its own, with `terminal` led by the terminal on stdin. setsid(2)."""
        self._op(lib.PN_OP_SETSID, int(terminal))

    def tty(
        self,
        rows: int = 0,
        columns: int = 0,
        uid: int = 0,
        console: bool = True,
        *,
        lead: bool = True,
        socket: int = -1,
    ) -> None:
        """A pty of the container's /dev/pts as stdio (shim only), and with `lead` the controlling
        terminal of a new session; without it `setsid` does that later. Its master goes to `socket`, a
        connected Unix socket, by SCM_RIGHTS; -1: to the spawner."""
        at = self.fd(socket) if socket >= 0 else -1
        self._op(lib.PN_OP_TTY, rows << 16 | columns, at, uid, int(console))
        if lead:
            self.setsid(terminal=True)

    def setns(self, fd: int, flags: int) -> None:
        """Enter the namespace(s) of `fd`: a namespace file or, with several flags, a pidfd."""
        self._op(lib.PN_OP_SETNS, self.fd(fd), flags)

    def unshare(self, flags: int) -> None:
        """New namespaces from here on. unshare(2)."""
        self._op(lib.PN_OP_UNSHARE, flags)

    def fork(self, cgroup: int = -1) -> None:
        """Go on in a new child of the spawner, in a pid namespace entered before."""
        self._op(lib.PN_OP_FORK, self.fd(cgroup) if cgroup >= 0 else -1)

    def join_cgroup(self, procs_fd: int) -> None:
        """Write itself into an open cgroup.procs."""
        self._op(lib.PN_OP_CGROUP, self.fd(procs_fd))

    def hostname(self, name: str) -> None:
        """sethostname(2)."""
        self._op(lib.PN_OP_HOSTNAME, 0, 0, 0, 0, name)

    def domainname(self, name: str) -> None:
        """setdomainname(2)."""
        self._op(lib.PN_OP_DOMAINNAME, 0, 0, 0, 0, name)

    # ---- mounts ----
    def private(self) -> None:
        """Make every mount of the (new) mount namespace private."""
        self._op(lib.PN_OP_PRIVATE)

    def root(self, fd: int) -> None:
        """Pivot into the detached mount `fd` and drop the old root."""
        self._op(lib.PN_OP_ROOT, self.fd(fd))

    def chroot(self, path: str) -> None:
        """chroot(2) and chdir to the new root."""
        self._op(lib.PN_OP_CHROOT, 0, 0, 0, 0, path)

    def mount(
        self,
        fstype: str,
        source: str,
        destination: str,
        flags: int,
        data: str = "",
        mode: int = CREATE,
    ) -> None:
        """mount(2) of a new file system; `flags` are MS_* bits."""
        self._op(lib.PN_OP_MOUNT, flags, mode, 0, 0, fstype, source, destination, data)

    def attach(
        self,
        fd: int,
        destination: str,
        *,
        is_dir: bool = True,
        mode: int = CREATE,
        source: str = "",
    ) -> None:
        """Attach the detached mount `fd` at `destination`; `source` says in messages what it is of."""
        kind = S_IFDIR if is_dir else S_IFREG
        if source:
            self._sources[len(self._names)] = source
        self._op(lib.PN_OP_ATTACH, self.fd(fd), kind, mode, 0, destination)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        """mkdir -p."""
        self._op(lib.PN_OP_MKDIR, mode, 0, 0, 0, path)

    def mknod(self, path: str, mode: int, device: int, uid: int = 0, gid: int = 0) -> None:
        """A device node; `mode` includes the type, `device` is makedev(major, minor)."""
        self._op(lib.PN_OP_MKNOD, mode, device, uid, gid, path)

    def symlink(self, target: str, path: str) -> None:
        """A symbolic link; an existing file is left."""
        self._op(lib.PN_OP_SYMLINK, 0, 0, 0, 0, target, path)

    def mask(self, path: str) -> None:
        """Hide a path; an absent one is fine."""
        self._op(lib.PN_OP_MASK, 0, 0, 0, 0, path)

    def readonly(self, path: str) -> None:
        """Make a path read-only; an absent one is fine."""
        self._op(lib.PN_OP_READONLY, 0, 0, 0, 0, path)

    def root_attr(self, attr_set: int, propagation: int = 0) -> None:
        """MOUNT_ATTR_* bits and propagation of the root mount."""
        self._op(lib.PN_OP_ROOT_ATTR, attr_set, propagation)

    # ---- settings, identity, privileges ----
    def sysctl(self, key: str, value: str) -> None:
        """Write a sysctl of the new namespaces, e.g. ("net.ipv4.ip_forward", "1")."""
        self._op(lib.PN_OP_SYSCTL, 0, 0, 0, 0, "/proc/sys/" + key.replace(".", "/"), value)

    def oom_score_adj(self, value: int, proc: int = -1) -> None:
        """proc(5) oom_score_adj, -1000 to 1000. `proc`: descriptor of a procfs in which the process
        can see itself; -1 is /proc of the root as it is now."""
        self._op(lib.PN_OP_OOM_SCORE, self.fd(proc) if proc >= 0 else -1, 0, 0, 0, str(value))

    def rlimit(self, resource: int, soft: int, hard: int, name: str = "") -> None:
        """setrlimit(2); -1, or 2**64 - 1 as OCI writes it, is unlimited. `name` is for messages."""
        soft, hard = (-1 if limit >= 1 << 63 else limit for limit in (soft, hard))
        self._op(lib.PN_OP_RLIMIT, resource, soft, hard)
        self._names[-1] = (lib.PN_OP_RLIMIT, name)

    def umask(self, mode: int) -> None:
        """umask(2); 0 until this operation."""
        self._op(lib.PN_OP_UMASK, mode)

    def no_new_privs(self) -> None:
        """prctl(2) PR_SET_NO_NEW_PRIVS."""
        self._op(lib.PN_OP_NO_NEW_PRIVS)

    def seccomp(self, program: bytes, flags: int = 0) -> None:
        """Load a filter: the bytes of a struct sock_filter array. A SeccompFilter brings its flags
        along."""
        if isinstance(program, SeccompFilter):
            flags |= program.flags
        self._blob(lib.PN_OP_SECCOMP, program, flags)

    def bounding(self, keep: int) -> None:
        """Drop every capability outside the mask `keep` from the bounding set."""
        self._op(lib.PN_OP_BOUNDING, keep)

    def groups(self, gids: Iterable[int]) -> None:
        """setgroups(2)."""
        gids = list(gids)
        self._blob(lib.PN_OP_GROUPS, struct.pack(f"={len(gids)}I", *gids))

    def user(self, uid: int, gid: int) -> None:
        """Change uid and gid, capabilities kept until `capset`."""
        self._op(lib.PN_OP_USER, uid, gid)

    def capset(self, effective: int, permitted: int, inheritable: int, ambient: int = 0) -> None:
        """The capability sets, as masks. capabilities(7)."""
        self._op(lib.PN_OP_CAPSET, effective, permitted, inheritable, ambient)

    def keyring(self) -> None:
        """A session keyring of its own. session-keyring(7)."""
        self._op(lib.PN_OP_KEYRING)

    def cwd(self, path: str) -> None:
        """Working directory; must lie inside the root. All descriptors of the table but that of
        `wait` are closed here: no later operation may name one."""
        self._op(lib.PN_OP_CWD, 0, 0, 0, 0, path)

    def wait(self, fd: int, told: int = -1) -> None:
        """Wait for the first byte in the pipe `fd`; at its end without one give up (ECANCELED). Socket
        `told` gets a message before: all that comes earlier in the plan is done."""
        self._op(lib.PN_OP_WAIT, self.fd(fd), self.fd(told) if told >= 0 else -1)

    def ready(self, *, final: bool = False) -> None:
        """Do now what else comes with `exec`, so that a filter loaded after it need allow nothing
        but execve(2). `final`: the trace ends here, too."""
        self._op(lib.PN_OP_READY, int(final))

    # ---- exec ----
    def exec(self, args: Sequence[str], env: Mapping[str, str] | Sequence[str]) -> None:
        """execve(2) of `args[0]`, searched in the PATH of `env` unless it has a slash."""
        pairs = [f"{k}={v}" for k, v in env.items()] if isinstance(env, Mapping) else list(env)
        candidates = exec_candidates(args[0], pairs)
        counts = (len(candidates), len(args), len(pairs), 0)
        strings = (*candidates, *args, *pairs)
        self._parts.append(_operation(lib.PN_OP_EXEC, counts, len(strings), _joined(strings)))
        self._names.append((lib.PN_OP_EXEC, args[0]))


def exec_candidates(program: str, env: Sequence[str]) -> list[str]:
    """The paths execve tries for `program`, in order. execvp(3)."""
    if not program or "/" in program:
        return [program]
    search = next((e[5:] for e in reversed(env) if e.startswith("PATH=")), "")
    dirs = (search or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(":")
    return [f"{d or '.'}/{program}" for d in dirs]


def child_spans(plan: Plan, cloned: int, ends: Sequence[int]) -> list[Span]:
    """The spans of a child's operations, from the times at which each ended (ns)."""
    spans, start = [], cloned or (ends[0] if ends else 0)
    for index, end in enumerate(ends):
        name, subject = plan.describe(index)
        # the clone itself was timed by the spawner; a child may have begun before `cloned` was read
        spans.append(Span(f"{name} {subject}".strip(), min(start, end), end, "child"))
        start = end
    return spans
