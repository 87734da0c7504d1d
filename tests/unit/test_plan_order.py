"""runtime/plan/render.py: the order of the child's steps, which is what keeps it safe."""

from __future__ import annotations

import pytest

from pynetns.runtime.plan.handles import Handles
from pynetns.runtime.plan.render import is_kernels, render_exec_plan, render_plan

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        {
            "names": "read write close sendmsg execve exit_group setsid ioctl clone openat openat2 "
            "fchdir getcwd close_range capset".split(),
            "action": "SCMP_ACT_ALLOW",
        }
    ],
}
STRICT = {
    "defaultAction": "SCMP_ACT_KILL_PROCESS",
    "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}],
}
FILTER = b"\x06\0\0\0\0\0\xff\x7f"
SYS_ADMIN = 1 << 21
DEVICES = " ".join(["mknod"] * 6 + ["symlink"] * 6)  # where nothing is mounted on /dev


def spec(**changes):
    process = {
        "args": ["prog"],
        "env": [],
        "cwd": "/work",
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "additionalGids": ()},
        "oomScoreAdj": 0,
        "noNewPrivileges": changes.get("nnp", False),
        "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
    }
    linux = {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "cgroup")],
        "seccomp": changes.get("seccomp", PROFILE),
        "sysctl": changes.get("sysctl", {}),
        "readonlyPaths": ["/proc/sys"],
        "maskedPaths": ["/proc/kcore"],
    }
    return {"process": process, "root": {}, "hostname": "h", "mounts": (), "linux": linux}


def compiled(profile) -> bytes:
    """Something that stands for the program of a profile, another for each."""
    return FILTER + repr(profile).encode()


def render(profile=PROFILE, **changes):
    program = compiled(profile) if profile else b""
    return render_plan(spec(seccomp=profile, **changes), Handles(rootfs=9, go=8), program)


def join(profile=PROFILE, crowded=False, **changes):
    whole, seccomp = spec(seccomp=profile, **changes), compiled(profile)
    handles = Handles(rootfs=-1, cgroup=7, cgroup_joins=(10, 11), pidfd=12, proc=13)
    return render_exec_plan(whole, whole["process"], handles, seccomp, crowded=crowded)


def after(plan, name):
    steps = plan.steps()
    return steps[steps.index(name) + 1 :]


def test_a_container():
    assert render().steps() == (
        f"clone keyring sethostname pivot_root {DEVICES} oom_score_adj readonly mask stdio setsid "
        "mkdir umask "
        "unshare chdir capbset_drop setgroups setuid capset ready seccomp capset wait exec".split()
    )


def test_a_joining_process():
    assert join().steps() == (
        "clone cgroup cgroup oom_score_adj setns keyring stdio umask chdir capbset_drop setgroups "
        "setuid capset seccomp capset fork setsid ready exec".split()
    )


def test_a_joining_process_of_a_full_container_moves_in():
    assert join(crowded=True).steps() == (
        "clone oom_score_adj setns keyring stdio umask capbset_drop setgroups setuid capset seccomp "
        "capset fork cgroup cgroup chdir setsid ready exec".split()
    )


def render_joining(profile=PROFILE):
    """A container in another's pid namespace."""
    whole = spec(seccomp=profile)
    whole["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid", "path": "/x"}]
    whole["mounts"] = [{"type": "proc", "source": "proc", "destination": "/proc", "options": []}]
    handles = Handles(rootfs=9, go=8, namespaces={"pid": 5}, proc=13, joined_proc=14)
    return render_plan(whole, handles, compiled(profile))


def test_a_container_that_joins_a_pid_namespace_shows_itself_there_last():
    assert render_joining().steps() == (
        f"clone oom_score_adj setns keyring sethostname pivot_root {DEVICES} move_mount readonly "
        "mask stdio "
        "mkdir umask chdir capbset_drop setgroups setuid capset ready seccomp capset wait fork "
        "setsid exec".split()
    )
    assert render_joining(STRICT).steps()[-5:] == ["fork", "setsid", "ready", "seccomp", "exec"]


@pytest.mark.parametrize("make", [render, join])
def test_a_strict_filter_is_the_last_step_but_execve(make):
    plan = make(profile=STRICT)
    assert plan.steps()[-3:] == ["ready", "seccomp", "exec"]
    assert plan.steps().count("seccomp") == 1


def test_without_a_filter_nothing_waits_for_one():
    assert after(render(None), "capset") == ["ready", "wait", "exec"]


def test_no_new_privs_needs_no_capability_for_the_filter():
    plan = render(nnp=True)
    assert after(plan, "capset") == ["no_new_privs", "ready", "seccomp", "wait", "exec"]
    assert capset_masks(plan) == [1 << 5]


def test_cap_sys_admin_stays_for_the_filter_only():
    assert capset_masks(render()) == [1 << 5 | SYS_ADMIN, 1 << 5]
    assert capset_masks(join()) == [1 << 5 | SYS_ADMIN, 1 << 5]
    assert capset_masks(render(None)) == [1 << 5]


def capset_masks(plan) -> list[int]:
    """The permitted set of every capset operation."""
    import struct

    from pynetns.kernel.lib import lib

    encoded, at, found = plan.encode(), 0, []
    while at < len(encoded):
        code, _, size, _, *args = struct.unpack_from("=IIII4q", encoded, at)
        if code == lib.PN_OP_CAPSET:
            assert args[0] == args[1]
            found.append(args[1])
        at += 48 + (size + 7 & ~7)
    return found


@pytest.mark.parametrize(
    ("mount", "where"),
    [
        ({"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": []}, "mount"),
        ({"type": "tmpfs", "source": "tmpfs", "destination": "/tmp", "options": []}, "pivot_root"),
    ],
    ids=["on its mount", "in the root"],
)
def test_devices_are_made(mount, where):
    whole = spec()
    whole["mounts"] = [mount]
    plan = render_plan(whole, Handles(rootfs=9), b"")
    assert after(plan, where)[:12] == DEVICES.split()


def test_who_makes_a_task_for_another_to_start_is_told_when_it_is_prepared():
    """And its interfaces are there already: nothing of it is left for after its start."""
    whole = spec(sysctl={"net.ipv4.conf.eth0.rp_filter": "2"})
    plan = render_plan(whole, Handles(rootfs=9, go=8, told=6), compiled(PROFILE))
    assert plan.steps()[-2:] == ["wait", "exec"]
    assert plan.fds[-2:] == [8, 6]


def test_sysctls_of_an_interface_wait_for_it():
    plan = render(sysctl={"net.ipv4.conf.eth0.rp_filter": "2"})
    assert plan.steps().index("wait") == plan.steps().index("sysctl") - 1
    assert plan.steps().count("wait") == 1
    for key in ("net.ipv4.conf.all.rp_filter", "net.ipv4.ip_forward", "kernel.shm_rmid_forced"):
        steps = render(sysctl={key: "1"}).steps()
        assert steps.index("wait") > steps.index("capset")


@pytest.mark.parametrize("path", ["/dev", "/dev/x", "/proc", "/sys/fs/cgroup"])
def test_kernels_places(path):
    assert is_kernels(path)


@pytest.mark.parametrize("path", ["/devdata", "/processes", "/system", "/", "/data/dev"])
def test_other_places(path):
    assert not is_kernels(path)
