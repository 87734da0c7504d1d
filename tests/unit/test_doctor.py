"""doctor/: every check on described machines, and once on this one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from pynetns.doctor import Machine, check, checks, forwarding
from pynetns.doctor.checks import CHECKS
from pynetns.doctor.forwarding import Chain, Firewall, check_forwarding
from pynetns.doctor.machine import SYSCALLS
from pynetns.doctor.outcome import Check

_ALL_CAPABILITIES = "CapEff:\t000001ffffffffff"
_FILES = {
    "/proc/self/status": f"Name:\tx\n{_ALL_CAPABILITIES}",
    "/proc/filesystems": "nodev\ttmpfs\nnodev\tdevpts\nnodev\toverlay\n\text4",
    "/proc/sys/net/ipv4/ip_forward": "1",
    "/proc/sys/kernel/seccomp/actions_avail": "kill errno allow",
    "/proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /run rw - tmpfs tmpfs rw",
    "/proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0",
    "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
}


class Described(Firewall):
    """A machine of a few files; everything that is not said is as it should be."""

    def __init__(self, files: dict[str, str | None] | None = None, **said: Any) -> None:
        self.files = {**_FILES, **(files or {})}
        self.said = said
        self.root, self.exec_root = "/var/lib/pynetns", "/run/pynetns"

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path not in self.said.get("absent", ())

    def existing(self, path: str) -> str:
        return path

    def uid(self) -> int:
        return self.said.get("uid", 0)

    def release(self) -> str:
        return self.said.get("release", "6.1.0-18-amd64")

    def free_bytes(self, path: str) -> int | None:
        return self.said.get("free", 1 << 40)

    def syscall_error(self, name: str) -> int:
        return errno.ENOSYS if name in self.said.get("no_syscalls", ()) else errno.EINVAL

    def nftables_error(self) -> int:
        return self.said.get("nftables", 0)

    def core_error(self) -> str:
        return self.said.get("core", "")

    def link_error(self, kind: str) -> str:
        return self.said.get("link", "")

    def shims(self) -> list[int]:
        return self.said.get("shims", [])

    def chains(self) -> list[Chain]:
        return self.said.get("chains", [])

    def names(self, chain: Chain, link: str) -> bool:
        return (str(chain), link) in self.said.get("rules", [])

    def bridge(self) -> str:
        return "pynetns0"

    def configuration_error(self) -> str:
        return self.said.get("configuration", "")

    def libseccomp_error(self) -> str:
        return self.said.get("libseccomp", "")


def test_a_good_machine_has_no_complaints() -> None:
    outcomes = check("/var/lib/pynetns", "/run/pynetns", Described())
    assert [one.name for one in outcomes if not one.ok] == []
    assert len(outcomes) == len(CHECKS)


_APPARMOR = "/sys/module/apparmor/parameters/enabled"
# a hierarchy that is not mounted may be anywhere
_OWN_PLACE = "4:memory:/user.slice\n0::/pynetns-0123abcd/shim"
_NO_OVERLAY = {"/proc/filesystems": "nodev\ttmpfs\nnodev\tdevpts"}
_MODULES = {"/lib/modules/6.1.0-18-amd64/modules.dep": "kernel/fs/overlayfs/overlay.ko: x"}


@pytest.mark.parametrize(
    ("test", "machine", "ok", "said"),
    [
        (checks.check_kernel, Described(release="5.10.0-1"), False, "5.15"),
        (checks.check_kernel, Described(release="5.15.0"), True, "5.15"),
        (checks.check_kernel, Described(release="strange"), False, "strange"),
        (checks.check_core, Described(core="no module"), False, "pip install"),
        (checks.check_privileges, Described(uid=1000), False, "sudo"),
        (
            checks.check_privileges,
            Described({"/proc/self/status": "CapEff:\t0"}),
            False,
            "NET_ADMIN",
        ),
        (
            checks.check_privileges,
            Described({"/proc/self/status": "CapEff:\t000001fffeffffff"}),
            None,
            "root without CAP_SYS_RESOURCE",
        ),
        (checks.check_namespaces, Described(absent=["/proc/self/ns/net"]), False, "CONFIG_NET_NS"),
        (
            checks.check_namespaces,
            Described({"/proc/sys/user/max_net_namespaces": "0"}),
            False,
            "sysctl -w user.max_net_namespaces",
        ),
        (checks.check_syscalls, Described(no_syscalls=["clone3"]), False, "clone3"),
        (checks.check_overlay, Described({**_NO_OVERLAY}), False, "modprobe overlay"),
        (checks.check_overlay, Described({**_NO_OVERLAY, **_MODULES}), True, "module"),
        (checks.check_terminals, Described(absent=["/dev/ptmx"]), None, "devpts"),
        (checks.check_bridge, Described(link="no"), False, "modprobe bridge"),
        (checks.check_veth, Described(uid=5), None, "sudo"),
        (checks.check_nftables, Described(nftables=errno.EINVAL), False, "modprobe nf_tables"),
        (checks.check_nftables, Described(nftables=errno.EPERM), None, "CAP_NET_ADMIN"),
        (
            checks.check_ip_forward,
            Described({"/proc/sys/net/ipv4/ip_forward": "0"}),
            None,
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            checks.check_bridge_netfilter,
            Described({"/proc/sys/net/bridge/bridge-nf-call-iptables": "1"}),
            None,
            "FORWARD",
        ),
        (checks.check_cgroups, Described({"/proc/self/mounts": ""}), False, "mount -t cgroup2"),
        (
            checks.check_cgroups,
            Described({"/sys/fs/cgroup/cgroup.controllers": "cpu"}),
            None,
            "need memory, cpuset, pids",
        ),
        (
            checks.check_cgroups,
            Described(
                {
                    "/sys/fs/cgroup/cgroup.type": "domain",
                    "/sys/fs/cgroup/cgroup.procs": "1\n17",
                    "/sys/fs/cgroup/cgroup.subtree_control": "cpu",
                }
            ),
            None,
            "keep memory cpuset pids from others",
        ),
        (
            checks.check_shim,
            Described({"/proc/7/cgroup": "0::/system.slice/a.service"}, shims=[7]),
            None,
            "process 7 is not in its own cgroup: :/system.slice/a.service",
        ),
        (
            checks.check_shim,
            Described({"/proc/self/mounts": "cgroup2 /cg cgroup2 ro,nsdelegate 0 0"}),
            None,
            "/cg read-only",
        ),
        (
            checks.check_security_modules,
            Described({"/sys/fs/selinux/enforce": "1"}),
            None,
            "SELinux enforces",
        ),
        (
            checks.check_security_modules,
            Described({_APPARMOR: "Y", "/proc/self/attr/apparmor/current": "snap.x (enforce)"}),
            None,
            "snap.x",
        ),
        (
            checks.check_seccomp,
            Described({"/proc/sys/kernel/seccomp/actions_avail": None}),
            False,
            "CONFIG_SECCOMP_FILTER",
        ),
        (checks.check_libseccomp, Described(libseccomp="not found"), False, "libseccomp2"),
        (
            checks.check_root,
            Described({"/proc/self/mountinfo": "1 0 8:1 / / rw - overlay overlay rw"}),
            False,
            "--root",
        ),
        (
            checks.check_configuration,
            Described(configuration="/etc/pynetns/daemon.json : 'mtuu' is no key of this file"),
            False,
            "mend the file",
        ),
        (checks.check_root, Described(free=5 << 20), None, "5 MiB free"),
        (
            checks.check_exec_root,
            Described({"/proc/self/mountinfo": "1 0 8:1 / /run/pynetns rw - ext4 /dev/sda rw"}),
            False,
            "umount /run/pynetns",
        ),
        (checks.check_exec_root, Described({"/proc/filesystems": "ext4"}), False, "CONFIG_TMPFS"),
    ],
)
def test_complaints_and_their_fix(
    test: Callable[[Machine], Check], machine: Machine, ok: bool | None, said: str
) -> None:
    one = test(machine)
    assert one.ok is ok
    assert said in f"{one.detail} {one.fix}"
    assert one.ok or one.fix


def test_hybrid_cgroups() -> None:
    machine = Described(
        {
            "/proc/cgroups": "#subsys_name\nmemory\t1\ncpu\t1\npids\t1\ncpuset\t1",
            "/proc/self/mounts": "cgroup /c/m cgroup rw,memory 0 0\ncgroup /c/x cgroup "
            "rw,cpu,cpuset,pids 0 0\ncgroup2 /c/u cgroup2 rw 0 0",
        }
    )
    one = checks.check_cgroups(machine)
    assert one.ok
    assert one.detail == "hybrid without nsdelegate, controllers cpu cpuset memory pids"


@pytest.mark.parametrize(
    ("test", "machine", "said"),
    [
        (checks.check_cgroups, Described(), "v2 with nsdelegate"),
        (checks.check_overlay, Described(release="6.6.1"), "at once (before Linux 6.7)"),
        (checks.check_overlay, Described(release="6.12.0"), "one by one"),
        (checks.check_memfd, Described(), "sealed memory file"),
        (checks.check_memfd, Described({"/proc/sys/vm/memfd_noexec": "2"}), "nameless file"),
        (checks.check_security_modules, Described(), "neither"),
        (checks.check_security_modules, Described({_APPARMOR: "Y"}), "AppArmor is on"),
        (checks.check_shim, Described(), "none runs"),
        (checks.check_shim, Described({"/proc/7/cgroup": _OWN_PLACE}, shims=[7]), "(process 7)"),
    ],
)
def test_what_a_good_machine_is_told(
    test: Callable[[Machine], Check], machine: Machine, said: str
) -> None:
    one = test(machine)
    assert one.ok is True
    assert said in one.detail


def test_this_machine_is_looked_at_and_left_as_it_was() -> None:
    """Whatever it can do: no check raises, no descriptor and no child stays."""
    before = os.listdir("/proc/self/fd")
    outcomes = {one.name: one for one in check()}
    assert os.listdir("/proc/self/fd") == before
    assert outcomes["kernel"].detail == os.uname().release
    assert all(one.ok or one.fix for one in outcomes.values())
    assert not os.path.exists("/sys/class/net/probe0")


_DROPS = Chain("ip", "filter", "FORWARD", True)
_USER = Chain("ip", "filter", "DOCKER-USER")
_BR_NETFILTER = {"/proc/sys/net/bridge/bridge-nf-call-iptables": "1"}


@pytest.mark.parametrize(
    ("machine", "ok", "said"),
    [
        (Described(), True, "no chain drops"),
        (Described(chains=[_USER, _DROPS._replace(drops=False)]), True, "no chain drops"),
        (
            Described(chains=[_DROPS, _USER]),
            None,
            "iptables -I DOCKER-USER -i pynetns0 -j ACCEPT && "
            "iptables -I DOCKER-USER -o pynetns0 -j ACCEPT",
        ),
        (Described(chains=[_DROPS]), None, "iptables -I FORWARD -i pynetns0 -j ACCEPT"),
        (Described(_BR_NETFILTER, chains=[_DROPS]), None, "nor each other (br_netfilter)"),
        (
            Described(chains=[_DROPS, _USER], rules=[("ip filter DOCKER-USER", "pynetns0")]),
            True,
            "has rules for pynetns0",
        ),
        (
            Described(chains=[Chain("inet", "fw", "fwd", True)]),
            None,
            "nft insert rule inet fw fwd iifname pynetns0 accept && nft insert",
        ),
        (
            Described(chains=[Chain("ip_tables", "filter", "FORWARD", True)]),
            None,
            "iptables-legacy -I FORWARD -o pynetns0 -j ACCEPT",
        ),
    ],
)
def test_a_policy_that_drops_what_is_forwarded(
    machine: Machine, ok: bool | None, said: str
) -> None:
    one = check_forwarding(machine)
    assert one.ok is ok
    assert said in f"{one.detail} {one.fix}"
    assert one.ok or one.fix


class Listed(Firewall):
    """A machine with iptables-legacy."""

    def read(self, path: str) -> str | None:
        return "filter\nnat" if path == "/proc/net/ip_tables_names" else None

    def _listed(self, chain: str) -> list[str]:
        rules = ["-A FORWARD -i pynetns0 -j ACCEPT", "-A FORWARD -o pynetns0 -j ACCEPT"]
        return rules if chain else ["-P INPUT DROP", "-P FORWARD DROP", "-N DOCKER-USER", *rules]


def test_the_chains_of_legacy_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding.netlink, "dump", lambda *words: [])
    found = Listed().chains()
    assert [str(chain) for chain in found if chain.drops] == ["ip_tables filter FORWARD"]
    assert "DOCKER-USER" in [chain.name for chain in found]
    assert Listed().names(found[1], "pynetns0") and not Listed().names(found[1], "pynetns")


def test_the_configuration_is_read(tmp_path) -> None:
    machine = Machine()
    machine.root = str(tmp_path)
    assert machine.configuration_error() == ""
    (tmp_path / "daemon.json").write_text('{"mtuu": 1}')
    assert "'mtuu' is no key" in machine.configuration_error()


def test_system_calls_are_only_asked_for() -> None:
    machine = Machine()
    assert all(machine.syscall_error(name) != 0 for name in SYSCALLS)


def test_the_mount_a_path_is_on() -> None:
    machine = Machine()
    assert machine.file_system("/proc/self") == ("/proc", "proc")
    assert machine.existing("/proc/nothing/below") == "/proc"


def test_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from pynetns.cli.system import describe

    assert describe(Check("a", True, "fine", "do not")) == "ok       a: fine\n"
    assert describe(Check("b", False, "no", "do so")) == "MISSING  b: no\n         fix: do so\n"
