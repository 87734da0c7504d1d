"""The kernel's own ways out: system calls, mounts, devices, cgroup agents, keys, sockets.

What Docker's profile, capabilities and device rules refuse must be refused, to root of the container,
to a user, and to a process that `exec` starts.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from pynetns.runtime.spec.create import MASKED_PATHS

from ..devices import forbidden_device
from .conftest import exec_outcome, wait_for_line

EPERM, ENOSYS = 1, 38
# Never among a default container's: they reach the whole machine. capabilities(7).
MACHINE_CAPABILITIES = {
    "SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_PTRACE": 19, "SYS_PACCT": 20, "SYS_ADMIN": 21,
    "SYS_BOOT": 22, "SYS_NICE": 23, "SYS_RESOURCE": 24, "SYS_TIME": 25, "SYS_TTY_CONFIG": 26,
    "DAC_READ_SEARCH": 2, "NET_ADMIN": 12, "SYSLOG": 34, "MAC_ADMIN": 33, "MAC_OVERRIDE": 32,
    "AUDIT_CONTROL": 30, "WAKE_ALARM": 35, "BLOCK_SUSPEND": 36, "PERFMON": 38, "BPF": 39,
    "CHECKPOINT_RESTORE": 40, "LINUX_IMMUTABLE": 9, "IPC_LOCK": 14, "IPC_OWNER": 15,
}  # fmt: skip


def gates(outcome) -> dict[str, int]:
    """System call -> errno."""
    rows = [line.split("\t") for line in outcome.output.splitlines() if line.count("\t") == 2]
    return {row[0]: int(row[1]) for row in rows}


@pytest.mark.parametrize("how", ["run", "run as 1000", "exec", "image host"])
def test_system_calls(attack, attempt, running, workshop, how):
    root = workshop.tree()
    this = attack("system calls", f"60 calls that only the machine's root may make, {how}")
    control = gates(attempt(root, ["/attack", "gates"], privileged=True))
    opened = [name for name, errno in control.items() if errno not in (EPERM, ENOSYS)]
    this.control(len(opened) > 25, f"in a privileged container: {control}")
    if how == "exec":
        outcome = exec_outcome(running(root, ["/attack", "sleep"]), ["/attack", "gates"])
    elif how == "image host":
        volumes = [f"{workshop.attack}:/attack:ro"]
        outcome = attempt("host", ["/attack", "gates"], volumes=volumes)
    else:
        outcome = attempt(root, ["/attack", "gates"], user="1000" if "1000" in how else "")
    found = gates(outcome)
    assert set(found) == set(control)
    through = [name for name, errno in found.items() if errno not in (EPERM, ENOSYS)]
    this.verdict(through, f"{through} of {found}")


@pytest.mark.parametrize("how", ["run", "exec"])
def test_capabilities_over_the_machine(attack, attempt, running, workshop, how):
    """The clock, a reboot, modules, raw I/O: no container gets the means, an exec neither."""
    root = workshop.tree()
    this = attack("capabilities", f"any that reaches the machine, in any set, {how}")
    command = ["cat", "/proc/self/status"]
    control = machine_capabilities(attempt(root, command, privileged=True))
    this.control("SYS_BOOT" in control and "SYS_TIME" in control, "in a privileged container")
    if how == "exec":
        outcome = exec_outcome(running(root, ["/attack", "sleep"]), command)
    else:
        outcome = attempt(root, command)
    assert "CapBnd" in outcome
    found = machine_capabilities(outcome)
    inheritable = [line for line in outcome.lines("CapInh") if int(line.split()[1], 16)]
    this.verdict(found or inheritable, f"{found} {inheritable}")


def machine_capabilities(outcome) -> list[str]:
    sets = [int(line.split()[1], 16) for line in outcome.lines("Cap")]
    return [name for name, bit in MACHINE_CAPABILITIES.items() if any(s >> bit & 1 for s in sets)]


@pytest.mark.parametrize("seccomp", [True, False], ids=["default", "seccomp=unconfined"])
def test_mounts(attack, attempt, workshop, seccomp):
    """Even without the filter a container's root has no mount of its own to change."""
    root = workshop.tree()
    extra = {} if seccomp else {"security_opt": ["seccomp=unconfined"]}
    this = attack(
        "mounts", f"17 ways to mount, remount and unmount{'' if seccomp else ', no filter'}"
    )
    control = attempt(root, ["/attack", "mounts"], privileged=True)
    this.control(len(control.lines("DONE")) > 8, "in a privileged container")
    outcome = attempt(root, ["/attack", "mounts"], **extra)
    done = outcome.lines("DONE")
    if not seccomp:  # a user namespace is the kernel's own offer; it unlocks nothing that is locked
        done = [line for line in done if "new user" not in line and "afterwards" not in line]
    this.verdict(done or not outcome.output, outcome)


@pytest.mark.parametrize("how", ["visible", "user", "user, no filter", "cgroup limits"])
def test_release_agent(attack, attempt, workshop, how):
    this = attack("CVE-2022-0492", f"a cgroup v1 release agent or notify_on_release written: {how}")
    root, options = workshop.tree(), {}
    if "no filter" in how:
        options["security_opt"] = ["seccomp=unconfined"]
    if "limits" in how:
        options = {"mem_limit": "64m", "pids_limit": 50, "cpus": 1}
    command = ["/attack", "release-agent", *(["user"] if "user" in how else [])]
    if any(line.split()[2] == "cgroup" for line in Path("/proc/mounts").read_text().splitlines()):
        control = attempt(root, ["/attack", "release-agent"], privileged=True)
        this.control(control.lines("WRITABLE"), f"in a privileged container: {control}")
    outcome = attempt(root, command, **options)
    assert "tried" in outcome
    wanted = outcome.lines("WRITABLE")
    if (
        "no filter" in how
    ):  # the kernel lets a user namespace mount its own cgroup; no agent, though
        wanted = [line for line in wanted if "release_agent" in line]
    this.verdict(wanted, outcome)


@pytest.mark.parametrize("user", ["", "1000"], ids=["root", "user"])
def test_devices_of_the_host(attack, attempt, workshop, user):
    """A node may be made (CAP_MKNOD is Docker's default); what it stands for stays shut."""
    kind, major, minor = forbidden_device()
    disk = disk_numbers()
    this = attack(
        "devices", f"nodes of the host's disk and devices made and opened, as {user or 'root'}"
    )
    script = f"mknod /tmp/a {kind} {major} {minor}; mknod /tmp/b b {disk}; mknod /tmp/m c 1 1; "
    script += "/attack open r /tmp/a /tmp/b /tmp/m; /attack open w /tmp/a /tmp/b /tmp/m"
    root = workshop.tree()
    (root / "tmp").chmod(0o1777)
    control = attempt(root, ["sh", "-c", script], privileged=True)
    this.control(control.lines("OPENED"), "in a privileged container")
    outcome = attempt(root, ["sh", "-c", script], user=user)
    this.verdict(outcome.lines("OPENED") or "/tmp/b" not in outcome, outcome)


def disk_numbers() -> str:
    """Major and minor of a block device of this machine, for mknod."""
    for entry in sorted(Path("/sys/class/block").iterdir()):
        return (entry / "dev").read_text().replace(":", " ").strip()
    return "7 0"


def test_device_nodes_of_an_image(attack, attempt, workshop):
    """Nodes that the image brings are as shut as those made inside."""
    kind, major, minor = forbidden_device()
    root = workshop.tree()
    flag = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
    os.mknod(root / "node", flag | 0o666, os.makedev(major, minor))
    os.mknod(root / "memory", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    this = attack("devices", "nodes that the image brings, opened")
    command = ["/attack", "open", "r", "/node", "/memory"]
    this.control(attempt(root, command, privileged=True).lines("OPENED"), "when privileged")
    outcome = attempt(root, command)
    this.verdict(outcome.lines("OPENED") or "/node" not in outcome, outcome)


def test_kernel_files_by_name(attack, attempt, workshop):
    """Reading the kernel's memory, its keys; writing what reboots or configures it."""
    this = attack(
        "kernel files", "/proc/kcore, kmem, keys read; sysrq-trigger, core_pattern… written"
    )
    written = (
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/binfmt_misc/register", "/proc/irq/0/smp_affinity",
        "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run",
        "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/profiling",
    )  # fmt: skip
    script = f"/attack open w {' '.join(written)}; "
    script += "; ".join(
        f"ls -A {p} 2>/dev/null; cat {p} 2>/dev/null | head -c 64" for p in MASKED_PATHS
    )
    root = workshop.tree()
    (root / "bin/head").symlink_to("busybox")
    outcome = attempt(root, ["sh", "-c", script])
    shown = [
        line
        for line in outcome.output.splitlines()
        if not any(line.endswith(path) for path in (*written, *MASKED_PATHS))
    ]
    tried = all(path in outcome for path in written)
    this.verdict(outcome.lines("OPENED") or shown or not tried, outcome)


def test_chroot_escape(attack, attempt, workshop, victim):
    """CAP_SYS_CHROOT is Docker's default: above the container's root there must be nothing."""
    root = workshop.tree()
    target = str(victim.path / "secret").lstrip("/")
    this = attack("chroot", "out of a second chroot by an open directory")
    control = workshop.run_bare(root, victim.path, "/", "/", "/attack", "chroot", target)
    this.control(victim.SECRET in control, f"in a plain chroot: {control}")
    outcome = attempt(root, ["/attack", "chroot", target])
    this.verdict(victim.SECRET in outcome or "not found" not in outcome, outcome)


def test_file_handles(attack, attempt, workshop):
    """open_by_handle_at knows no roots ("shocker")."""
    root = workshop.tree()
    this = attack("file handles", "open_by_handle_at of the file system behind a bind mount")
    control = attempt(root, ["/attack", "handle", "/etc/hosts"], privileged=True)
    this.control("OPENED" in control, f"in a privileged container: {control}")
    outcome = attempt(root, ["/attack", "handle", "/etc/hosts"])
    assert "refused" in outcome or "no handle" in outcome
    this.verdict("OPENED" in outcome, outcome)


@pytest.mark.parametrize("seccomp", [True, False], ids=["default", "seccomp=unconfined"])
def test_keys_of_another_container(attack, running, attempt, workshop, seccomp):
    """A session keyring of its own for each; with the default filter no keys at all."""
    root = workshop.tree()
    join_session_keyring()  # as a login has it: what all that starts here would share
    extra = {} if seccomp else {"security_opt": ["seccomp=unconfined"]}
    words = "" if seccomp else ", no filter"
    this = attack("keys", f"a key of one container found from another{words}")
    find = "until /attack keys find pynetns-test | grep KEY; do sleep 0.05; done"
    owner = running(
        root,
        ["sh", "-c", f"/attack keys add pynetns-test & sleep 0.1; {find} | sed s/KEY/FOUND/; wait"],
        security_opt=["seccomp=unconfined"],
    )
    wait_for_line(owner, "FOUND")  # by another process of the same container: the attack's control
    found = attempt(root, ["/attack", "keys", "find", "pynetns-test"], **extra)
    by_exec = exec_outcome(
        running(root, ["/attack", "sleep"], **extra), ["/attack", "keys", "find", "pynetns-test"]
    )
    this.verdict("KEY" in found or "KEY" in by_exec, f"{found} {by_exec}")


def join_session_keyring() -> None:
    """A new session keyring for this process. keyctl(2), KEYCTL_JOIN_SESSION_KEYRING."""
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    assert ctypes.CDLL(None, use_errno=True).syscall(number, 1, None) > 0


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_abstract_sockets(attack, attempt, engine, workshop, network):
    """CVE-2020-15257: abstract sockets belong to the network namespace, not to the file system.

    With --network host those of the machine are in reach, as with Docker; never the engine's own.
    """
    name = f"pynetns-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(f"\0{name}")
        server.listen()
        if network == "host":
            this = attack(
                "CVE-2020-15257", "an abstract socket of the shim or engine, --network host"
            )
            outcome = attempt(workshop.tree(), ["/attack", "connect"], network_mode="host")
            this.control(f"CONNECTED {name}" in outcome, "with the host's network")
            got = [line for line in outcome.lines("CONNECTED") if name not in line]
            own = [line for line in got if "shim" in line or "pynetns" in line]
            this.verdict(own, outcome)
        else:
            this = attack("CVE-2020-15257", f"an abstract socket of the host, --network {network}")
            outcome = attempt(workshop.tree(), ["/attack", "connect"], network_mode=network)
            assert "tried" in outcome
            this.verdict(outcome.lines("CONNECTED"), outcome)


def test_image_host_without_the_engine(attack, attempt, running, engine, workshop):
    """Image `host` is the machine's own files; the engine's state and sockets are not among them."""
    this = attack("image host", "the engine's database, socket, records, other containers' files")
    other = running(workshop.tree(), ["sh", "-c", "echo x > /file; exec /attack sleep"])
    wait_for_line(other, "sleeping")
    paths = [
        f"{engine.root}/pynetns.db", f"{engine.root}/containers/{other.id}/config.v2.json",
        f"{engine.root}/overlay2/{other.id}/diff/file", f"{engine.exec_root}/tasks/{other.id}",
        f"{engine.exec_root}/shim.sock", "/run/docker.sock", "/var/run/docker.sock", "/run/systemd",
    ]  # fmt: skip
    command = [str(workshop.attack), "open", "r", *paths]
    control = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    this.control(control.count("OPENED") >= 4, f"on the host: {control}")
    volumes = [f"{workshop.attack}:/attack:ro"]
    outcome = attempt("host", ["/attack", "open", "r", *paths], volumes=volumes)
    assert "shim.sock" in outcome
    opened = [line for line in outcome.lines("OPENED") if not line.endswith("/run/systemd")]
    this.verdict(opened, outcome)


def test_layers_are_closed_to_the_hosts_users(attack, running, engine, workshop):
    """CVE-2021-41091: set-uid programs of a container, run by a user of the host."""
    this = attack(
        "CVE-2021-41091", "a user of the host enters a container's files, state and socket"
    )
    container = running(
        workshop.tree(), ["sh", "-c", "cp /attack /setuid; chmod 4755 /setuid; exec /attack sleep"]
    )
    wait_for_line(container, "sleeping")
    inside = Path(engine.root, "overlay2", container.id, "diff/setuid")
    places = [inside, *Path(engine.exec_root).glob("*.sock"), Path(engine.root, "pynetns.db")]
    top = Path(engine.root).parent
    top.chmod(0o755)  # the place of the test's own must not be what protects
    script = " || ".join(f"test -r {place}" for place in places)
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"]
    this.control(
        subprocess.run([*as_user, "test -r /etc/passwd"], check=False).returncode == 0,
        "on a file that all may read",
    )
    got = subprocess.run([*as_user, script], check=False).returncode == 0
    this.verdict(got or not inside.exists(), places)
