"""Docker's default seccomp profile as a table: what a container may ask of the kernel.

Owns: the lists, by subject. Resolving them for a machine and a capability set is seccomp.py's.
A brace shortens a family: "dup{,2,3}" is dup, dup2, dup3.

Says what moby/profiles seccomp/default.json says at 02e898b137ae (2026; it follows seccomp/v0.2.1
of Docker Engine 29.4), for x86-64 and arm64; rules of other machines are left out. What changed
since Docker 20.10: no io_uring, new sockets only of known families (not AF_VSOCK and AF_ALG), the
calls of Linux 5.17 to 6.13.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_ALWAYS = {
    "processes and their ends": """
        execve execveat exit{,_group} fork vfork wait4 waitid waitpid kill tkill tgkill
        pidfd_open pidfd_send_signal process_mrelease prctl seccomp restart_syscall rseq
        uretprobe riscv_hwprobe set_tid_address {get,set}_robust_list {get,set}_thread_area membarrier""",
    "signals": """
        rt_sig{action,pending,procmask,queueinfo,return,suspend,timedwait,timedwait_time64}
        rt_tgsigqueueinfo sigaltstack signalfd{,4} sigprocmask sigreturn pause alarm""",
    "identity": """
        get{uid,gid,euid,egid}{,32} getres{uid,gid}{,32} getgroups{,32}
        set{uid,gid,reuid,regid,resuid,resgid,fsuid,fsgid}{,32} setgroups{,32}
        get{pid,ppid,tid,pgid,pgrp,sid} setpgid setsid capget capset""",
    "scheduling and limits": """
        sched_{get,set}{affinity,attr,param,scheduler} sched_get_priority_{max,min}
        sched_rr_get_interval{,_time64} sched_yield getpriority setpriority ioprio_{get,set}
        getrlimit ugetrlimit setrlimit prlimit64 getrusage getcpu times sysinfo""",
    "memory": """
        brk mmap{,2} munmap mremap mprotect msync mincore madvise mlock{,2,all} munlock{,all} mseal
        pkey_{alloc,free,mprotect} map_shadow_stack cachestat
        memfd_create memfd_secret remap_file_pages shmat shmctl shmdt shmget""",
    "time": """
        time gettimeofday adjtimex clock_adjtime{,64} clock_getres{,_time64} clock_gettime{,64}
        clock_nanosleep{,_time64} nanosleep getitimer setitimer
        timer_{create,delete,getoverrun} timer_{get,set}time{,64}
        timerfd_create timerfd_{get,set}time{,64}""",
    "files": """
        open openat openat2 creat close close_range access faccessat{,2} umask truncate{,64}
        ftruncate{,64} fallocate read readv write writev pread64 pwrite64 preadv{,2} pwritev{,2}
        lseek _llseek readahead fadvise64{,_64} fsync fdatasync sync syncfs sync_file_range
        dup{,2,3} fcntl{,64} flock ioctl copy_file_range sendfile{,64} splice tee vmsplice
        io_{cancel,destroy,getevents,pgetevents,pgetevents_time64,setup,submit}""",
    "what files are": """
        stat{,64} lstat{,64} fstat{,64} fstatat64 newfstatat statx statfs{,64} fstatfs{,64}
        chmod fchmod fchmodat{,2} chown{,32} lchown{,32} fchown{,32} fchownat
        utime utimes futimesat utimensat{,_time64}
        {,l,f}{get,set,remove,list}xattr {get,set,remove,list}xattrat statmount listmount""",
    "directories": """
        mkdir{,at} rmdir mknod{,at} link{,at} symlink{,at} readlink{,at} unlink{,at}
        rename{,at,at2} chdir fchdir getcwd getdents{,64} name_to_handle_at
        inotify_{add_watch,init,init1,rm_watch} fanotify_mark
        landlock_{add_rule,create_ruleset,restrict_self}""",
    "pipes and waiting": """
        pipe{,2} poll ppoll{,_time64} select _newselect pselect6{,_time64} eventfd{,2}
        epoll_{create,create1,ctl,ctl_old,pwait,pwait2,wait,wait_old}
        futex{,_time64,_waitv,_wait,_wake,_requeue}""",
    "sockets": """
        socketcall socketpair bind listen accept{,4} connect shutdown
        getsockname getpeername getsockopt setsockopt
        send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg{,_time64}""",
    "System V and POSIX queues": """
        ipc msg{ctl,get,rcv,snd} semctl semget semop semtimedop{,_time64}
        mq_{getsetattr,notify,open,unlink} mq_timed{receive,send}{,_time64}""",
    "the machine": "uname getrandom",
}

# Namespaces by clone(2) and unshare(2): the CLONE_NEW* bits of the first argument.
_NEW_NAMESPACES = 0x7E020000
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# Address families that socket(2) may name: all below the first, and these. Left out are DECnet (12),
# Econet (19), ATM SVC (20), IrDA (23), WANPIPE (25), ISDN (34), CAIF (37), AF_ALG (38: the kernel's
# crypto) and AF_VSOCK (40: not namespaced). i386's socketcall hides its arguments from any filter.
_FAMILIES_BELOW = 12
_FAMILIES = (13, 14, 15, 16, 17, 18, 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))

# (names, what else the rule says); order as Docker writes them.
_CONDITIONAL: tuple[tuple[str, dict[str, Any]], ...] = (
    # Before 4.8 a tracer could slip past the filter.
    ("process_vm_{readv,writev} ptrace", {"includes": {"minKernel": "4.8"}}),
    ("socket", {"args": [{"index": 0, "value": _FAMILIES_BELOW, "op": "SCMP_CMP_LT"}]}),
    *(
        ("socket", {"args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
        for value in _FAMILIES
    ),
    *(
        ("personality", {"args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
        for value in _PERSONALITIES
    ),
    (
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        {"includes": {"arches": ["arm", "arm64"]}},
    ),
    ("arch_prctl", {"includes": {"arches": ["amd64", "x32"]}}),
    ("modify_ldt", {"includes": {"arches": ["amd64", "x32", "x86"]}}),
    ("open_by_handle_at", {"includes": {"caps": ["CAP_DAC_READ_SEARCH"]}}),
    (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie"
        " lsm_{get_self_attr,list_modules,set_self_attr} mount"
        " mount_setattr move_mount open_tree perf_event_open quotactl{,_fd}"
        " setdomainname sethostname setns syslog umount{,2} unshare",
        {"includes": {"caps": ["CAP_SYS_ADMIN"]}},
    ),
    (
        "clone",
        {
            "args": [{"index": 0, "value": _NEW_NAMESPACES, "op": "SCMP_CMP_MASKED_EQ"}],
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
    ),
    # Its flags are behind a pointer; told that there is no such call, C libraries take clone.
    (
        "clone3",
        {
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.ENOSYS,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
    ),
    *(
        (names, {"includes": {"caps": [capability]}})
        for capability, names in {
            "CAP_SYS_BOOT": "reboot",
            "CAP_SYS_CHROOT": "chroot",
            "CAP_SYS_MODULE": "delete_module init_module finit_module",
            "CAP_SYS_PACCT": "acct",
            "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_{readv,writev} ptrace",
            "CAP_SYS_RAWIO": "iopl ioperm",
            "CAP_SYS_TIME": "settimeofday stime clock_settime{,64}",
            "CAP_SYS_TTY_CONFIG": "vhangup",
            "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy{,_home_node}",
            "CAP_SYSLOG": "syslog",
            "CAP_BPF": "bpf",
            "CAP_PERFMON": "perf_event_open",
        }.items()
    ),
)

VERSION = "moby/profiles 02e898b137ae"
"""Whose rules these are."""

ARCH_MAP = (
    ("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    ("SCMP_ARCH_AARCH64", ("SCMP_ARCH_ARM",)),
)


@lru_cache(maxsize=1)
def docker_default() -> dict[str, Any]:
    """The profile in Docker's JSON form, as a custom profile would be written."""
    always = (name for text in _ALWAYS.values() for name in expand(text))
    syscalls: list[dict[str, Any]] = [
        {"names": sorted(always, key=_order), "action": "SCMP_ACT_ALLOW"}
    ]
    for names, rest in _CONDITIONAL:
        syscalls.append({"names": list(expand(names)), "action": "SCMP_ACT_ALLOW", **rest})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "archMap": [
            {"architecture": main, "subArchitectures": list(others)} for main, others in ARCH_MAP
        ],
        "syscalls": syscalls,
    }


def expand(text: str) -> Iterator[str]:
    """The words of `text`, each brace replaced by its alternatives in turn."""
    for word in text.split():
        yield from _alternatives(word)


def _alternatives(word: str) -> Iterator[str]:
    head, brace, rest = word.partition("{")
    if not brace:
        yield word
        return
    inside, _, tail = rest.partition("}")
    for choice in inside.split(","):
        yield from _alternatives(head + choice + tail)


def _order(name: str) -> str:
    """Docker's order: by letter without underscores, but timer_* before timerfd_*. It means
    nothing; it makes the two engines' config.json comparable line by line."""
    return name.replace("timer_", "timer ").replace("_", "")
