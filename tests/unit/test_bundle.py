"""runtime/spec/bundle.py: what is accepted of a config.json, and what is refused by its field."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter
from pynetns.kernel.operations import Plan
from pynetns.runtime.plan.handles import Handles
from pynetns.runtime.plan.render import render_plan
from pynetns.runtime.security.capabilities import NAMES
from pynetns.runtime.security.seccomp import bundle_seccomp
from pynetns.runtime.spec.bundle import accept, joined_pid, load_bundle

# made by `runc spec`, runc 1.1.5
RUNC_SPEC = json.loads((Path(__file__).parents[1] / "golden/runc-1.1.5-spec.json").read_text())


def changed(**fields):
    """runc's spec with `fields`: process__user__uid=1 is process.user.uid; None takes one away."""
    spec = copy.deepcopy(RUNC_SPEC)
    for path, value in fields.items():
        *way, last = path.split("__")
        inner = spec
        for name in way:
            inner = inner.setdefault(name, {})
        inner[last] = value
        if value is None:
            del inner[last]
    return spec


def accepted(**fields):
    return accept(changed(**fields), "/bundle", NAMES)


def plan_of(spec, **handles) -> Plan:
    return render_plan(spec, Handles(rootfs=9, go=8, told=7, **handles), b"")


def test_what_runc_spec_makes_becomes_a_plan():
    plan = plan_of(accepted())
    assert [plan.describe(i)[1] for i, step in enumerate(plan.steps()) if step == "mount"] == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys",
    ]  # fmt: skip
    assert plan.steps()[-2:] == ["wait", "exec"]
    assert "tty" in plan.steps()


def test_paths_of_the_host_become_absolute():
    spec = accepted(
        root__path="rootfs/../other",
        mounts=[{"destination": "/data/", "source": "data", "options": ["rbind", "ro"]}],
    )
    assert spec["root"]["path"] == "/bundle/other"
    assert spec["mounts"] == [
        {"destination": "/data", "type": "bind", "source": "/bundle/data",
         "options": ("rbind", "ro")}
    ]  # fmt: skip


def test_every_container_may_use_the_default_devices():
    rules = accepted()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {(rule["major"], rule["minor"]) for rule in rules[1:]} == {
        (1, 3), (1, 5), (1, 8), (1, 9), (5, 0),
    }  # fmt: skip


def test_what_is_not_known_is_passed_over():
    assert accepted(something={"new": 1}, linux__other=[1], process__later="x")


def test_capabilities_that_cannot_be_granted_are_left_out_with_a_warning(caplog):
    sets = {
        kind: ["CAP_KILL", "CAP_CHOWN", "CAP_OF_TOMORROW"]
        for kind in ("bounding", "effective", "permitted", "ambient")
    }
    with caplog.at_level(logging.WARNING):
        spec = accept(changed(process__capabilities=sets), "/bundle", ("CAP_KILL",))
    got = spec["process"]["capabilities"]
    assert got == {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
                   "inheritable": [], "ambient": []}  # fmt: skip
    assert "CAP_CHOWN, CAP_OF_TOMORROW" in caplog.text
    assert "ambient : CAP_KILL" in caplog.text  # without an inheritable one the kernel refuses it


def test_limits_that_say_nothing_are_none():
    resources = {
        "memory": {"limit": 0, "swap": None, "disableOOMKiller": False},
        "cpu": {"shares": 0, "cpus": ""},
        "pids": {"limit": 0},
        "blockIO": {},
    }
    assert accepted(linux__resources=resources)["linux"]["resources"].keys() == {"devices"}
    resources = {"memory": {"limit": 1 << 24, "swap": -1}, "pids": {"limit": -1}}
    kept = accepted(linux__resources=resources)["linux"]["resources"]
    assert (kept["memory"], kept["pids"]) == (resources["memory"], resources["pids"])


def test_a_pid_namespace_is_joined_by_whose_it_is():
    namespaces = [{"type": "mount"}, {"type": "pid", "path": "/proc/42/ns/pid"}]
    spec = accepted(linux__namespaces=namespaces, hostname=None)
    assert joined_pid(spec["linux"]["namespaces"]) == 42
    assert joined_pid(accepted()["linux"]["namespaces"]) == 0


def ns(*namespaces):
    return [{"type": "mount"}, *namespaces]


def mount(**keys):
    return [{"destination": "/m", "type": "tmpfs", "source": "tmpfs", **keys}]


def bind(*options):
    return [{"destination": "/m", "type": "none", "source": "/s", "options": ["bind", *options]}]


# field, the value that makes it wrong, what the message begins with
REFUSED = [
    *((f"hooks__{hook}", [{"path": "/bin/true"}], f"hooks.{hook}: hooks are not run") for hook in (
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")),
    ("ociVersion", None, "ociVersion: is missing"),
    ("ociVersion", "2.0.0", "ociVersion: '2.0.0'"),
    ("root", None, "root: is missing"),
    ("root__path", 7, "root.path: must be a string"),
    ("process", None, "process: is missing"),
    ("process__args", [], "process.args: is empty"),
    ("process__args", ["a", 1], "process.args[1]: must be a string"),
    ("process__args", ["a\0b"], "process.args[0]: holds a NUL"),
    ("process__args", ["\ud800"], "process.args[0]: holds"),
    ("process__env", ["A=1", "B"], "process.env[1]:"),
    ("process__cwd", "relative", "process.cwd 'relative': must be an absolute path"),
    ("process__cwd", "/a/../..", "process.cwd"),
    ("process__terminal", 1, "process.terminal: must be true or false"),
    ("process__user__uid", -1, "process.user.uid: must be a number"),
    ("process__user__uid", True, "process.user.uid: must be a number"),
    ("process__user__umask", 0o1777, "process.user.umask"),
    ("process__user__username", "me", "process.user.username"),
    ("process__user__additionalGids", [1 << 32], "process.user.additionalGids[0]"),
    ("process__apparmorProfile", "x", "process.apparmorProfile: AppArmor"),
    ("process__selinuxLabel", "x", "process.selinuxLabel: SELinux"),
    ("process__ioPriority", {"class": "IOPRIO_CLASS_IDLE"}, "process.ioPriority:"),
    ("process__scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler:"),
    ("process__oomScoreAdj", 1001, "process.oomScoreAdj"),
    ("process__rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
    ("process__rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0].soft"),
    ("process__rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2,
     "process.rlimits[1].type: RLIMIT_CPU is there twice"),
    ("process__capabilities__bounding", "CAP_KILL", "process.capabilities.bounding: must be an"),
    ("linux__namespaces", [{"type": "pid"}], "linux.namespaces: there must be a new mount"),
    ("linux__namespaces", ns({"type": "user"}), "linux.namespaces[1].type: 'user'"),
    ("linux__namespaces", ns({"type": "time"}), "linux.namespaces[1].type: 'time'"),
    ("linux__namespaces", ns({"type": "mount"}), "linux.namespaces[1].type: mount is there twice"),
    ("linux__namespaces", [{"type": "mount", "path": "/x"}], "linux.namespaces[0].path"),
    ("linux__namespaces", ns({"type": "cgroup", "path": "/x"}), "linux.namespaces[1].path"),
    ("linux__namespaces", ns({"type": "pid", "path": "/x"}), "linux.namespaces[1].path"),
    ("linux__namespaces", ns({"type": "network", "path": "x"}), "linux.namespaces[1].path"),
    ("linux__namespaces", ns(), "hostname: would be the host's"),
    ("linux__uidMappings", [{"containerID": 0}], "linux.uidMappings: user namespaces"),
    ("linux__personality", {"domain": "LINUX32"}, "linux.personality:"),
    ("linux__intelRdt", {"closID": "x"}, "linux.intelRdt:"),
    ("linux__mountLabel", "x", "linux.mountLabel:"),
    ("linux__timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets:"),
    ("linux__rootfsPropagation", "unbindable", "linux.rootfsPropagation: accepted:"),
    ("linux__sysctl", {"kernel.panic": "1"}, "linux.sysctl.kernel.panic: is the host's"),
    ("linux__sysctl", {"../panic": "1"}, "linux.sysctl.../panic"),
    ("linux__sysctl", {"net.core.somaxconn": 1}, "linux.sysctl.net.core.somaxconn: must be a str"),
    ("linux__maskedPaths", ["x"], "linux.maskedPaths[0]"),
    ("linux__devices", [{"path": "/dev/x", "type": "x"}], "linux.devices[0].type"),
    ("linux__devices", [{"path": "/dev/x", "type": "c", "major": 1}], "linux.devices[0].minor"),
    ("linux__resources", {"unified": {"memory.high": "1"}}, "linux.resources.unified"),
    ("linux__resources", {"blockIO": {"weight": 10}}, "linux.resources.blockIO"),
    ("linux__resources", {"memory": {"swappiness": 0}}, "linux.resources.memory.swappiness"),
    ("linux__resources", {"memory": {"swap": 1}}, "linux.resources.memory.swap"),
    ("linux__resources", {"memory": {"limit": "1"}}, "linux.resources.memory.limit: must be a num"),
    ("linux__resources", {"devices": [{"access": "r"}]}, "linux.resources.devices[0].allow"),
    ("mounts", mount(destination="m"), "mounts[0].destination"),
    ("mounts", mount(destination="/"), "mounts[0].destination: cannot be the root"),
    ("mounts", mount(destination="/proc/sys"), "mounts[0].destination"),
    ("mounts", mount(destination="/a/../proc"), "mounts[0].destination"),
    ("mounts", mount(type="cgroup2"), "mounts[0].type: 'cgroup2'"),
    ("mounts", mount(type="ext4"), "mounts[0].type: 'ext4'"),
    ("mounts", mount(options=["tmpcopyup"]), "mounts[0].options: 'tmpcopyup' is not done"),
    ("mounts", mount(options=["rshared"]), "mounts[0].options: a propagation"),
    ("mounts", mount(uidMappings=[{"containerID": 0}]), "mounts[0].uidMappings"),
    ("mounts", mount(type="cgroup") + mount(type="cgroup"), "mounts: of type cgroup"),
    ("mounts", bind("idmap"), "mounts[0].options: 'idmap' is not done"),
    ("mounts", bind("size=1m"), "mounts[0].options: 'size=1m': no option of a bind"),
    ("mounts", bind("sync"), "mounts[0].options: 'sync' would have no effect"),
    ("annotations", {"a": 1}, "annotations.a: must be a string"),
    ("windows", {"layerFolders": ["x"]}, "windows: only Linux"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_cannot_be_done_is_refused_by_the_field(field, value, message):
    with pytest.raises(InvalidParameter) as caught:
        accepted(**{field: value})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "No such file"), ("{", "is not JSON"), ("[]", "must hold a JSON object"),
     ("[" * 100_000, "is not JSON")],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidParameter, match=f"{tmp_path}/config.json: {message}"):
        load_bundle(str(tmp_path))


def test_a_filter_is_refused_by_its_field():
    with pytest.raises(InvalidParameter) as caught:
        bundle_seccomp({"defaultAction": "SCMP_ACT_NOTIFY"})
    assert str(caught.value).startswith("linux.seccomp: defaultAction:")
    block = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]}  # fmt: skip
    assert bundle_seccomp(block)["syscalls"] == block["syscalls"]


def test_a_whole_number_is_a_number_and_nothing_else():
    for value in (1.0, "1", True, [1]):
        with pytest.raises(InvalidParameter, match=r"^process\.user\.gid: must be a number"):
            accepted(process__user__gid=value)
