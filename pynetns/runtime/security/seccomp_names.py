"""System call numbers that the installed libseccomp may not know, and i386's multiplexed calls.

Owns: the tables. Which call a profile names is seccomp_rules.py's business.
Source: the kernel's syscall tables (scripts/syscall.tbl, arch/x86/entry/syscalls); ipc(2),
socketcall(2), uapi/linux/net.h and ipc.h.
"""

from __future__ import annotations

# Since 5.1 a new call has one number on every architecture.
_COMMON = """
    set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait
    futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr"""
_FIRST_COMMON = 450

COMMON: dict[str, int] = {
    name: number for number, name in enumerate(_COMMON.split(), start=_FIRST_COMMON)
}
"""Linux 5.17 (set_mempolicy_home_node) to 6.17 (file_setattr)."""

ONLY: dict[str, dict[str, int]] = {"SCMP_ARCH_X86_64": {"uretprobe": 335}}
"""Calls of one architecture."""

SOCKETCALL, IPC = 102, 117
"""i386: one call each for all socket and System V calls; the first argument says which."""

MULTIPLEXED: dict[str, tuple[int, int, int]] = {
    name: (through, which, own)
    for through, calls in {
        SOCKETCALL: {
            "socket": (1, 359), "bind": (2, 361), "connect": (3, 362), "listen": (4, 363),
            "accept": (5, 0), "getsockname": (6, 367), "getpeername": (7, 368),
            "socketpair": (8, 360), "send": (9, 0), "recv": (10, 0), "sendto": (11, 369),
            "recvfrom": (12, 371), "shutdown": (13, 373), "setsockopt": (14, 366),
            "getsockopt": (15, 365), "sendmsg": (16, 370), "recvmsg": (17, 372),
            "accept4": (18, 364), "recvmmsg": (19, 337), "sendmmsg": (20, 345),
        },
        IPC: {
            "semop": (1, 0), "semget": (2, 393), "semctl": (3, 394), "semtimedop": (4, 0),
            "msgsnd": (11, 400), "msgrcv": (12, 401), "msgget": (13, 399), "msgctl": (14, 402),
            "shmat": (21, 397), "shmdt": (22, 398), "shmget": (23, 395), "shmctl": (24, 396),
        },
    }.items()
    for name, (which, own) in calls.items()
}  # fmt: skip
"""name -> (the call it goes through, what that one's first argument is, its own number or 0)."""
