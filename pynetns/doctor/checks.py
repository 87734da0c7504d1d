"""The checks of the doctor, each a function from a Machine to a Check.

Owns: what is essential, what is only a warning, and the fix for each. Pure but for the machine it
is given.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from .cgroup_checks import check_cgroups, check_shim
from .forwarding import check_forwarding
from .machine import SYSCALLS, Machine
from .outcome import Check

KERNEL = (5, 15)
_LOWERDIR_PLUS = (6, 7)
_FREE_BYTES = 100 << 20
# name -> (the kernel's number, whether nothing goes without it); capabilities(7)
_CAPABILITIES = {
    "CAP_CHOWN": (0, False),
    "CAP_DAC_OVERRIDE": (1, True),
    "CAP_KILL": (5, False),
    "CAP_SETGID": (6, True),
    "CAP_SETUID": (7, True),
    "CAP_SETPCAP": (8, True),
    "CAP_NET_ADMIN": (12, True),
    "CAP_SYS_CHROOT": (18, False),
    "CAP_SYS_PTRACE": (19, False),
    "CAP_SYS_ADMIN": (21, True),
    "CAP_SYS_RESOURCE": (24, False),  # raising --ulimit above our own, lowering --oom-score-adj
    "CAP_MKNOD": (27, True),
}
# An overlay cannot have its upper layer on these.
_NO_UPPER = frozenset(("overlay", "nfs", "nfs4", "vfat", "exfat", "ntfs", "9p", "fuse", "ramfs"))
_AS_ROOT = "run as root (sudo); inside a container, give it --privileged"


def check_kernel(machine: Machine) -> Check:
    """The kernel floor."""
    release, version = machine.release(), _version(machine)
    wanted = ".".join(str(n) for n in KERNEL)
    return Check(
        "kernel", version >= KERNEL, release, f"boot Linux {wanted} or later, this is {release}"
    )


def _version(machine: Machine) -> tuple[int, ...]:
    numbers = machine.release().split("-")[0].split(".")[:2]
    return tuple(int(n) if n.isdecimal() else 0 for n in numbers)


def check_core(machine: Machine) -> Check:
    """The compiled module and the shim."""
    error = machine.core_error()
    fix = "install the package again with a C compiler present: pip install --force-reinstall"
    return Check("compiled core", not error, error or "module and shim are there", fix)


def check_privileges(machine: Machine) -> Check:
    """Root, with the capabilities that the engine uses."""
    status = machine.read("/proc/self/status") or ""
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    mask = int(lines.get("CapEff", "0").strip() or "0", 16)
    if machine.uid() != 0:
        return Check("privileges", False, f"user id {machine.uid()}, not root", _AS_ROOT)
    missing = [name for name, (number, _) in _CAPABILITIES.items() if not mask >> number & 1]
    if not missing:
        return Check("privileges", True, "root with all capabilities that are used")
    essential = [name for name in missing if _CAPABILITIES[name][1]]
    detail = f"root without {', '.join(essential or missing)}"
    return Check("privileges", False if essential else None, detail, _AS_ROOT)


def check_namespaces(machine: Machine) -> Check:
    """The kinds of namespaces a container has, and that some may be made."""
    kinds = ("mnt", "net", "uts", "ipc", "pid", "cgroup")
    missing = [kind for kind in kinds if not machine.exists(f"/proc/self/ns/{kind}")]
    if missing:
        fix = f"boot a kernel with CONFIG_{'_NS, CONFIG_'.join(k.upper() for k in missing)}_NS"
        return Check("namespaces", False, f"none for {', '.join(missing)}", fix)
    none = [k for k in kinds if machine.read(f"/proc/sys/user/max_{k}_namespaces") == "0"]
    if none:
        fix = f"sysctl -w user.max_{none[0]}_namespaces=15000"
        return Check("namespaces", False, f"forbidden: {', '.join(none)}", fix)
    return Check("namespaces", True, ", ".join(kinds))


def check_syscalls(machine: Machine) -> Check:
    """The system calls of a start: ENOSYS is an old kernel, EPERM of all a filter around us."""
    errors = {name: machine.syscall_error(name) for name in SYSCALLS}
    missing = [name for name, error in errors.items() if error == errno.ENOSYS]
    fix = "boot Linux 5.15 or later; inside a container, let its seccomp profile allow them"
    if missing:
        return Check("system calls", False, f"not available: {', '.join(missing)}", fix)
    return Check("system calls", True, ", ".join(SYSCALLS))


def check_overlay(machine: Machine) -> Check:
    """The root file systems of containers are overlays; how their layers are told to the kernel."""
    outcome = _file_system(machine, "overlay", "overlay")
    if not outcome.ok:
        return outcome
    single = _version(machine) >= _LOWERDIR_PLUS
    how = "takes layers one by one" if single else "takes all layers at once (before Linux 6.7)"
    return replace(outcome, detail=f"{outcome.detail}; {how}")


def check_terminals(machine: Machine) -> Check:
    """A container's own /dev/pts."""
    outcome = _file_system(machine, "terminals", "devpts")
    if outcome.ok and not machine.exists("/dev/ptmx"):
        fix = "mount -t devpts devpts /dev/pts"
        return Check("terminals", None, "/dev/ptmx is missing: no --tty", fix)
    return outcome


def _file_system(machine: Machine, name: str, kind: str) -> Check:
    known = (machine.read("/proc/filesystems") or "").split()
    if kind in known:
        return Check(name, True, f"the kernel has {kind}")
    if _loadable(machine, kind):
        return Check(name, True, f"{kind} is a module that is loaded when used")
    fix = f"modprobe {kind}, or boot a kernel with it"
    return Check(name, False, f"the kernel has no {kind}", fix)


def _loadable(machine: Machine, module: str) -> bool:
    modules = machine.read(f"/lib/modules/{machine.release()}/modules.dep") or ""
    return f"/{module}.ko" in modules


def check_bridge(machine: Machine) -> Check:
    """The bridge that containers are on."""
    return _link(machine, "bridge")


def check_veth(machine: Machine) -> Check:
    """The pair of links from the bridge into a container."""
    return _link(machine, "veth")


def _link(machine: Machine, kind: str) -> Check:
    if machine.uid() != 0:
        return Check(kind, None, "can only be tried by root", _AS_ROOT)
    error = machine.link_error(kind)
    fix = f"modprobe {kind}, or boot a kernel with it; meanwhile use --network none or host"
    return Check(kind, not error, error or "one could be made", fix)


def check_nftables(machine: Machine) -> Check:
    """Address translation and published ports are nf_tables rules."""
    error = machine.nftables_error()
    if error in (errno.EPERM, errno.EACCES):
        return Check("nf_tables", None, "can only be tried with CAP_NET_ADMIN", _AS_ROOT)
    fix = "modprobe nf_tables, or boot a kernel with it; meanwhile use --network none or host"
    detail = f"no answer: {os.strerror(error)}" if error else "the kernel answers"
    return Check("nf_tables", not error, detail, fix)


def check_ip_forward(machine: Machine) -> Check:
    """Packets from containers to elsewhere are forwarded."""
    value = machine.read("/proc/sys/net/ipv4/ip_forward")
    if value == "1":
        return Check("ip_forward", True, "on")
    fix = "sysctl -w net.ipv4.ip_forward=1"
    return Check("ip_forward", None, "off: containers reach this machine only", fix)


def check_bridge_netfilter(machine: Machine) -> Check:
    """With br_netfilter, packets between containers pass the host's rules for forwarded ones."""
    value = machine.read("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if value != "1":
        detail = "br_netfilter is not loaded" if value is None else "bridge-nf-call-iptables is 0"
        return Check("br_netfilter", True, detail)
    detail = "bridge-nf-call-iptables is 1: the host's FORWARD rules see traffic between containers"
    fix = "if containers cannot reach each other: sysctl -w net.bridge.bridge-nf-call-iptables=0"
    return Check("br_netfilter", None, detail, fix)


def check_seccomp(machine: Machine) -> Check:
    """System call filters."""
    actions = machine.read("/proc/sys/kernel/seccomp/actions_avail")
    fix = (
        "boot a kernel with CONFIG_SECCOMP_FILTER; without it use --security-opt seccomp=unconfined"
    )
    return Check("seccomp", actions is not None, actions or "the kernel has no filters", fix)


def check_libseccomp(machine: Machine) -> Check:
    """The library that compiles the filters."""
    error = machine.libseccomp_error()
    fix = "apt-get install libseccomp2, or use --security-opt seccomp=unconfined"
    return Check("libseccomp", not error, error or "could be loaded", fix)


def check_memfd(machine: Machine) -> Check:
    """What the shim is executed from, so that nobody can write to it. vm.memfd_noexec, Linux 6.3."""
    value = machine.read("/proc/sys/vm/memfd_noexec")
    place = "a nameless file in the exec root" if value == "2" else "a sealed memory file"
    told = "" if value is None else f" (vm.memfd_noexec={value})"
    return Check("shim's file", True, f"{place}{told}")


def check_security_modules(machine: Machine) -> Check:
    """Whether AppArmor or SELinux is there: containers get no profile or label of their own."""
    if machine.read("/sys/fs/selinux/enforce") == "1":
        fix = "if it denies a container what it needs: a policy module for this program's domain"
        detail = "SELinux enforces; containers run in the domain of whoever starts the shim"
        return Check("security modules", None, detail, fix)
    if machine.read("/sys/module/apparmor/parameters/enabled") != "Y":
        return Check("security modules", True, "neither AppArmor nor SELinux confines")
    own = machine.read("/proc/self/attr/apparmor/current") or "unconfined"
    if own != "unconfined":
        fix = "start it outside of the profile, or let that allow mounts and namespaces"
        detail = f"AppArmor confines this program by {own}, and containers with it"
        return Check("security modules", None, detail, fix)
    return Check("security modules", True, "AppArmor is on; containers have no profile")


def check_configuration(machine: Machine) -> Check:
    """The files that say what an engine's defaults are."""
    error = machine.configuration_error()
    fix = "mend the file; until then nothing is created or started"
    return Check("configuration", not error, error or "nothing is wrong with it", fix)


def check_root(machine: Machine) -> Check:
    """Where images and writable layers are."""
    point, kind = machine.file_system(machine.root)
    free = machine.free_bytes(machine.root)
    detail = f"{machine.root} is on {kind} ({point})"
    if kind in _NO_UPPER or kind.startswith("fuse"):
        fix = "give --root a directory on ext4, xfs, btrfs or tmpfs"
        return Check("root", False, f"{detail}, which cannot hold an overlay's upper layer", fix)
    if free is not None and free < _FREE_BYTES:
        fix = "free some space, or give --root another disk"
        return Check("root", None, f"{detail}, {free >> 20} MiB free", fix)
    return Check("root", True, detail)


def check_exec_root(machine: Machine) -> Check:
    """What a reboot voids is kept in memory."""
    point, kind = machine.file_system(machine.exec_root)
    known = (machine.read("/proc/filesystems") or "").split()
    if point == os.path.realpath(machine.exec_root) and kind != "tmpfs":
        fix = f"umount {machine.exec_root}: the engine mounts a tmpfs of its own there"
        return Check("exec root", False, f"{machine.exec_root} is a mounted {kind}", fix)
    if "tmpfs" not in known:
        return Check("exec root", False, "the kernel has no tmpfs", "boot one with CONFIG_TMPFS")
    mounted = point == os.path.realpath(machine.exec_root)
    detail = "is a tmpfs" if mounted else "gets its tmpfs when first used"
    return Check("exec root", True, f"{machine.exec_root} {detail}")


CHECKS: tuple[Callable[[Machine], Check], ...] = (
    check_kernel,
    check_core,
    check_privileges,
    check_namespaces,
    check_syscalls,
    check_overlay,
    check_terminals,
    check_bridge,
    check_veth,
    check_nftables,
    check_ip_forward,
    check_bridge_netfilter,
    check_forwarding,
    check_cgroups,
    check_shim,
    check_memfd,
    check_seccomp,
    check_libseccomp,
    check_security_modules,
    check_configuration,
    check_root,
    check_exec_root,
)
