"""A starter with everything that a process can hand on to its children set to something odd.

Run as a program: ROOT EXEC_ROOT TREE. It opens an engine, whose shim therefore is its descendant, runs
`/attack state` by run and by exec, and prints both, separated by a line "EXEC". With CLEAN in the
environment it changes nothing first.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

SECRET = "held-by-the-starter"
KEYRING_MARK = "keyring of the starter:"
_LIBC = ctypes.CDLL(None, use_errno=True)
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_PR = {"securebits": 28, "timer slack": 29, "thp": 41, "subreaper": 36, "death signal": 1}


def may_raise_limits() -> bool:
    """Whether root may raise hard limits (CAP_SYS_RESOURCE): where not, nobody can undo a lowered one,
    which docs/shim-protocol.md says."""
    with open("/proc/self/status") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) & 1 << 24)


def soil(directory: str) -> None:
    """Set all of it."""
    machine = os.uname().machine
    for number in (9, 77):
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
    for sig in (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGTTOU, 40, 64):
        signal.signal(sig, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM, signal.SIGWINCH, 50})
    for limit, pair in {
        resource.RLIMIT_CORE: (12345, 54321),
        resource.RLIMIT_CPU: (500, 600),
        resource.RLIMIT_FSIZE: (1 << 30, 1 << 31),
        resource.RLIMIT_NPROC: (5000, 6000),
        resource.RLIMIT_STACK: (4 << 20, 32 << 20),
        resource.RLIMIT_NOFILE: (700, 900),
        resource.RLIMIT_SIGPENDING: (777, 888),
        resource.RLIMIT_MSGQUEUE: (77777, 88888),
    }.items():
        if not may_raise_limits():
            pair = (pair[0], resource.getrlimit(limit)[1])
        resource.setrlimit(limit, pair)
    os.nice(3)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    _LIBC.syscall(_IOPRIO_SET[machine], 1, 0, 2 << 13 | 6)
    _LIBC.syscall(_SET_MEMPOLICY[machine], 4, None, 0)
    _LIBC.prctl(_PR["timer slack"], 1234567, 0, 0, 0)
    _LIBC.prctl(_PR["thp"], 1, 0, 0, 0)
    _LIBC.prctl(_PR["subreaper"], 1, 0, 0, 0)
    _LIBC.personality(0x0040000)  # ADDR_NO_RANDOMIZE
    for name, value in (("oom_score_adj", "300"), ("coredump_filter", "0x7f")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(value)
    os.environ["SECRET"] = SECRET
    os.chdir(directory)
    os.umask(0o077)
    os.setgroups([1234, 4321])
    os.setresgid(1234, 1234, 1234)
    _LIBC.prctl(_PR["securebits"], 4, 0, 0, 0)  # SECBIT_NO_SETUID_FIXUP
    print(KEYRING_MARK, _LIBC.syscall(_KEYCTL[machine], 1, None), flush=True)


def main(root: str, exec_root: str, tree: str, directory: str) -> None:
    if "CLEAN" not in os.environ:
        soil(directory)
    import pynetns

    # no filter: it would hide the session keyring from the program that looks at it
    options = {"security_opt": ["seccomp=unconfined"], "hostname": "box"}
    with pynetns.Engine(root, exec_root) as engine:
        container = engine.containers.create("", ["/attack", "state"], rootfs=tree, **options)
        container.start()
        container.wait(timeout=20)
        print(container.logs().decode())
        container.remove(force=True)
        container = engine.containers.create("", ["/attack", "sleep"], rootfs=tree, **options)
        container.start()
        print("EXEC")
        print(container.exec_run(["/attack", "state"])[1].decode())
        container.remove(force=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
