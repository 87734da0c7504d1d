"""pynetns/runtime/cgroups: detection from mountinfo, limits as files; no real cgroup."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import Conflict, InvalidParameter, System, Unavailable
from pynetns.model.config import HostConfig
from pynetns.runtime.cgroups import CgroupManager, Hierarchies, clean_parent, v1
from pynetns.runtime.cgroups import files as cgroup_files
from pynetns.runtime.cgroups.files import read_key
from pynetns.runtime.cgroups.hierarchy import parse_mountinfo
from pynetns.runtime.cgroups.limits import check_controllers, render, shares_to_weight
from pynetns.runtime.spec.devices import DEFAULT_RULES
from pynetns.undo import Undo

V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw\n"
V1 = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw shared:5 master:2 - cgroup cgroup rw,memory
34 30 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
35 30 0:32 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls
36 30 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""
UNIFIED = "41 30 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
OTHER = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"


def test_v2():
    found = parse_mountinfo(OTHER + V2)
    assert found == Hierarchies("/sys/fs/cgroup")
    assert (found.layout, found.anchor) == ("v2", "/sys/fs/cgroup")


def test_v1():
    found = parse_mountinfo(OTHER + V1)
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "devices": "/sys/fs/cgroup/devices",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/pids",
    }
    assert (found.layout, found.anchor) == ("v1", "/sys/fs/cgroup/devices")


def test_hybrid():
    found = parse_mountinfo(V1 + UNIFIED)
    assert (found.layout, found.v2) == ("hybrid", "/sys/fs/cgroup/unified")
    assert found.anchor == found.v2


def test_none():
    assert parse_mountinfo(OTHER).layout == "none"


def test_mount_that_shows_most_counts_and_escapes_are_undone():
    part = "50 24 0:38 /some/part /mnt/part rw - cgroup2 cgroup2 rw\n"
    spaced = "51 24 0:38 / /mnt/with\\040space rw - cgroup2 cgroup2 rw\n"
    assert parse_mountinfo(part + UNIFIED + part).v2 == "/sys/fs/cgroup/unified"
    assert parse_mountinfo(part + spaced).v2 == "/mnt/with space"


def test_every_v1_hierarchy_is_known_once():
    again = "60 24 0:29 / /mnt/memory rw - cgroup cgroup rw,memory\n"
    assert parse_mountinfo(V1 + again + UNIFIED).all_v1 == tuple(
        f"/sys/fs/cgroup/{name}"
        for name in ("systemd", "cpu,cpuacct", "memory", "devices", "net_cls", "pids")
    )


def test_a_hidden_mount_does_not_count():
    """It is in mountinfo, but its point leads to what was mounted over it."""
    over = "70 24 0:38 / /mnt/unified rw - cgroup2 cgroup2 rw\n"
    hidden = {("/sys/fs/cgroup/unified", "0:38"), ("/sys/fs/cgroup/memory", "0:29")}
    found = parse_mountinfo(V1 + UNIFIED + over, lambda *mount: mount not in hidden)
    assert found.v2 == "/mnt/unified"
    assert "memory" not in found.v1 and "/sys/fs/cgroup/memory" not in found.all_v1


@pytest.mark.parametrize(
    ("hierarchies", "plain", "privileged"),
    [
        (Hierarchies("/cg"), True, True),
        (Hierarchies("/cg", {"memory": "/cg1"}), True, False),
        (Hierarchies("", {"memory": "/cg1"}), False, False),
    ],
    ids=["v2", "hybrid", "v1"],
)
def test_who_gets_a_cgroup_namespace(hierarchies, plain, privileged):
    cgroups = CgroupManager(Kernel(), detect=lambda: hierarchies)  # type: ignore[arg-type]
    assert cgroups.private_namespace(privileged=False) == plain
    assert cgroups.private_namespace(privileged=True) == privileged


# ---- limits ----

ALL = {
    "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
    "cpu": {"shares": 512, "period": 50_000, "quota": 25_000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 100},
    "devices": DEFAULT_RULES,
}
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")


def files(resources, on_v1) -> dict[str, str]:
    return {setting.file: setting.value for setting in render(resources, on_v1)}


def test_v1_files():
    assert files(ALL, CONTROLLERS) == {
        "memory.limit_in_bytes": "67108864",
        "memory.soft_limit_in_bytes": "33554432",
        "memory.memsw.limit_in_bytes": "100663296",
        "cpu.shares": "512",
        "cpu.cfs_period_us": "50000",
        "cpu.cfs_quota_us": "25000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "100",
    }


def test_v2_files():
    assert files(ALL, ()) == {
        "memory.max": "67108864",
        "memory.low": "33554432",
        "memory.swap.max": "33554432",
        "cpu.weight": "20",
        "cpu.max": "25000 50000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "pids.max": "100",
    }


@pytest.mark.parametrize(
    ("cpu", "value"),
    [
        ({"quota": 20_000}, "20000 100000"),
        ({"period": 50_000}, "max 50000"),
        ({"quota": -1, "period": 50_000}, "max 50000"),
    ],
)
def test_cpu_max(cpu, value):
    assert files({"cpu": cpu}, ()) == {"cpu.max": value}


def test_unlimited_is_max():
    assert files({"pids": {"limit": -1}}, ()) == {"pids.max": "max"}
    memory = {"limit": -1, "swap": -1}
    assert files({"memory": memory}, ()) == {"memory.max": "max", "memory.swap.max": "max"}


def test_memory_comes_before_memory_and_swap():
    order = list(files({"memory": {"swap": 2 << 20, "limit": 1 << 20}}, CONTROLLERS))
    assert order == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]


def test_swap_that_nobody_asked_for_is_optional():
    def optional(swap):
        found = render({"memory": {"limit": 10, "swap": swap}}, ())
        return next(s.optional for s in found if s.file == "memory.swap.max")

    assert optional(20) and not optional(15)


@pytest.mark.parametrize(
    "resources", [{"blockIO": {"weight": 5}}, {"memory": {"kernel": 5}}, {"memory": {"swap": 5}}]
)
def test_no_limit_is_ignored(resources):
    with pytest.raises(InvalidParameter):
        render(resources, ())


@given(st.integers(-5, 1 << 20))
def test_weight_is_in_range(shares):
    assert 1 <= shares_to_weight(shares) <= 10_000


def test_weights():
    assert [shares_to_weight(n) for n in (2, 1024, 262_144)] == [1, 39, 10_000]


@pytest.mark.parametrize(
    ("host_config", "option"),
    [
        (HostConfig(memory=1 << 30), "--memory:"),
        (HostConfig(memory_reservation=1 << 30), "--memory-reservation:"),
        (HostConfig(nano_cpus=10**9), "--cpus:"),
        (HostConfig(cpu_shares=10), "--cpu-shares:"),
        (HostConfig(cpu_quota=10_000), "--cpu-quota:"),
        (HostConfig(cpuset_cpus="0"), "--cpuset-cpus:"),
        (HostConfig(pids_limit=10), "--pids-limit:"),
    ],
)
def test_missing_controller_is_named(host_config, option):
    check_controllers(host_config, Hierarchies("/cg", {}, frozenset(CONTROLLERS)))
    check_controllers(host_config, Hierarchies("/cg", dict.fromkeys(CONTROLLERS, "/cg1")))
    with pytest.raises(Unavailable, match=option):
        check_controllers(host_config, Hierarchies("/cg"))


def test_no_limits_need_no_controller():
    check_controllers(HostConfig(pids_limit=-1), Hierarchies("/cg"))


@pytest.mark.parametrize(
    ("parent", "cleaned"),
    [
        ("/pynetns", "/pynetns"),
        ("a/b", "/a/b"),
        ("../../etc", "/etc"),
        ("/a/../../../b/", "/b"),
        ("/", ""),
        ("..", ""),
    ],
)
def test_parent_stays_inside(parent, cleaned):
    assert clean_parent(parent) == cleaned


# ---- a manager on a directory instead of a cgroup file system ----


class Kernel:
    """The device policy's half of a kernel."""

    def __init__(self) -> None:
        self.attached: list[bytes] = []
        self.programs: dict[int, bytes] = {}

    def bpf_device_load(self, insns: bytes) -> int:
        fd = os.open("/dev/null", os.O_RDONLY)
        self.programs[fd] = insns
        return fd

    def bpf_device_attach(self, cgroup: int, prog: int, flags: int) -> None:
        self.attached.append(self.programs[prog])


@pytest.fixture
def marks(monkeypatch):
    """Extended attributes in memory: not every file system below /tmp has trusted ones."""
    held: dict[tuple[str, str], bytes] = {}

    def getxattr(path, name):
        try:
            return held[path, name]
        except KeyError:
            raise OSError(61, "No data available") from None

    monkeypatch.setattr(
        os, "setxattr", lambda path, name, value: held.update({(path, name): value})
    )
    monkeypatch.setattr(os, "getxattr", getxattr)
    monkeypatch.setattr(os, "listxattr", lambda path: [n for p, n in held if p == path])
    return held


def manager(tmp_path: Path, kernel: Kernel, **hierarchies) -> CgroupManager:
    found = Hierarchies(str(tmp_path), **hierarchies)
    return CgroupManager(kernel, detect=lambda: found)  # type: ignore[arg-type]


def create(cgroups: CgroupManager, id: str, parent: str = "", resources=None):
    with Undo() as undo:
        made = cgroups.create(id, parent, resources or {"devices": DEFAULT_RULES}, undo)
        undo.dismiss()
    made.close()
    return made


def test_default_policy_is_attached_once(tmp_path, marks):
    kernel = Kernel()
    cgroups = manager(tmp_path, kernel)
    made = create(cgroups, "one")
    assert made.mounts == (("", f"{tmp_path}/pynetns/one"),)
    assert made.join_fds == ()
    create(cgroups, "two")
    create(manager(tmp_path, kernel), "three")
    assert len(kernel.attached) == 1
    marks.clear()  # as when the parent was removed and made again
    create(cgroups, "four")
    assert len(kernel.attached) == 2


def test_own_rules_and_other_parents_get_a_program_of_their_own(tmp_path, marks):
    kernel = Kernel()
    cgroups = manager(tmp_path, kernel)
    create(cgroups, "one", resources={"devices": ({"allow": True, "access": "rwm"},)})
    assert len(kernel.attached) == 2
    create(cgroups, "two", "/../mine/./")
    assert len(kernel.attached) == 3
    assert (tmp_path / "mine/two").is_dir()
    assert manager(tmp_path, kernel)._path("two") == "/mine/two"
    cgroups.remove("two")
    assert not (tmp_path / "mine/two").exists()
    cgroups.remove("two")


def test_limit_without_controller_makes_nothing(tmp_path, marks):
    cgroups = manager(tmp_path, Kernel())
    with pytest.raises(Unavailable, match="--pids-limit"):
        create(cgroups, "one", resources={"pids": {"limit": 5}})
    assert os.listdir(tmp_path) == []


def test_failing_limit_is_undone(tmp_path, marks):
    cgroups = manager(tmp_path, Kernel(), v2_controllers=frozenset({"pids"}))
    with pytest.raises(Unavailable, match="--pids-limit"):
        create(cgroups, "one", resources={"pids": {"limit": 5}})
    assert os.listdir(tmp_path / "pynetns") == []


def test_v2_controller_is_handed_down(tmp_path, marks, monkeypatch):
    """The file appears once every parent has the controller in its subtree_control."""
    from pynetns.runtime.cgroups import v2

    cgroups = manager(tmp_path, Kernel(), v2_controllers=frozenset({"pids"}))
    written: list[tuple[str, str]] = []

    def write_file(path: str, value: str) -> None:
        written.append((path.removeprefix(str(tmp_path)), value))
        if path.endswith("pids.max") and len(written) == 1:
            raise FileNotFoundError(2, "No such file")

    monkeypatch.setattr(v2, "write_file", write_file)
    create(cgroups, "one", resources={"pids": {"limit": 5}})
    assert written == [
        ("/pynetns/one/pids.max", "5"),
        ("/cgroup.subtree_control", "+pids"),
        ("/pynetns/cgroup.subtree_control", "+pids"),
        ("/pynetns/one/pids.max", "5"),
    ]


def test_processes_in_a_parent_are_named_with_the_remedy(tmp_path, marks, monkeypatch):
    """cgroup-v2, "No Internal Process Constraint": where a service's own processes sit."""
    from pynetns.runtime.cgroups import v2

    cgroups = manager(tmp_path, Kernel(), v2_controllers=frozenset({"pids"}))

    def write_file(path: str, value: str) -> None:
        if path.endswith("pids.max"):
            raise FileNotFoundError(2, "No such file")
        if path == f"{tmp_path}/svc/cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(v2, "write_file", write_file)
    with pytest.raises(Unavailable, match=rf"--pids-limit.*processes are in {tmp_path}/svc itself"):
        create(cgroups, "one", "/svc", {"pids": {"limit": 5}})


def memory_events(directory: Path, kills: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.events").write_text(f"oom {kills}\noom_kill {kills}\n")


def test_out_of_memory_is_counted_above_where_the_cgroup_does_not(tmp_path, marks):
    cgroups = manager(tmp_path, Kernel(), v2_controllers=frozenset({"memory"}))
    memory_events(tmp_path / "group", 3)
    create(cgroups, "one", "/group")
    create(cgroups, "two")
    assert not cgroups.oom_killed("one")
    memory_events(tmp_path / "group", 4)
    assert cgroups.oom_killed("one") and not cgroups.oom_killed("two")
    memory_events(tmp_path / "group/one", 0)  # its own word counts before any other
    assert not cgroups.oom_killed("one")


@pytest.mark.parametrize("first", ["container", "shim", "other parent"])
def test_memory_is_counted_below_a_new_parent_limit_or_not(tmp_path, marks, monkeypatch, first):
    from pynetns.runtime.cgroups import v2

    cgroups = manager(tmp_path, Kernel(), v2_controllers=frozenset({"memory"}))
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(v2, "write_file", lambda path, value: written.append((path, value)))
    parent = "/other" if first == "other parent" else "/pynetns"
    if first == "shim":
        assert cgroups.open_shim_procs() == []  # no cgroup.procs in a plain directory
    else:
        create(cgroups, "one", parent)
    assert written == [(f"{tmp_path}{parent}/cgroup.subtree_control", "+memory")]
    if first != "other parent":  # nothing more for the next one
        create(cgroups, "two")
        assert len(written) == 1


def test_shim_enters_what_lets_it(tmp_path, caplog):
    for name in ("v2", "memory"):
        (tmp_path / name / "pynetns/shim").mkdir(parents=True)
        (tmp_path / name / "pynetns/shim/cgroup.procs").touch()
    mounts = tuple(f"{tmp_path}/{name}" for name in ("memory", "read-only"))
    found = Hierarchies(f"{tmp_path}/v2", {"memory": mounts[0]}, all_v1=mounts)
    cgroups = CgroupManager(Kernel(), detect=lambda: found)  # type: ignore[arg-type]
    fds = cgroups.open_shim_procs()
    for fd in fds:
        os.write(fd, b"0")
        os.close(fd)
    assert [(tmp_path / n / "pynetns/shim/cgroup.procs").read_text() for n in ("v2", "memory")] == [
        "0",
        "0",
    ]
    assert len(fds) == 2
    assert f"{tmp_path}/read-only" in caplog.text and "no cgroup of its own" in caplog.text


def test_cgroup_in_use_is_left_alone(tmp_path, marks):
    (tmp_path / "pynetns/one").mkdir(parents=True)
    (tmp_path / "pynetns/one/cgroup.procs").write_text("1\n")
    with pytest.raises(Conflict, match="in use"):
        create(manager(tmp_path, Kernel()), "one")
    assert (tmp_path / "pynetns/one/cgroup.procs").exists()


def test_nothing_mounted():
    cgroups = CgroupManager(Kernel(), detect=Hierarchies)  # type: ignore[arg-type]
    assert (cgroups.layout, cgroups.has_v2) == ("none", False)
    with pytest.raises(Unavailable, match="cgroup"):
        create(cgroups, "one")


def test_unknown_container(tmp_path, marks):
    cgroups = manager(tmp_path, Kernel())
    with pytest.raises(Conflict, match="not running"):
        cgroups.open("none")
    assert not cgroups.oom_killed("none")
    cgroups.kill_all("none")
    cgroups.remove("none")


def test_collect_takes_only_old_empty_ones(tmp_path, marks, monkeypatch):
    kernel = Kernel()
    cgroups = manager(tmp_path, kernel)
    ids = {name: name * 64 for name in "abc"}
    for id in (*ids.values(), "not-an-id"):
        create(cgroups, id)
    assert cgroups.collect({ids["a"]}) == []
    (tmp_path / "pynetns" / ids["c"] / "busy").touch()
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert cgroups.collect({ids["a"]}) == [f"{tmp_path}/pynetns/{ids['b']}"]
    assert cgroups.remove_parent() == []


# ---- files ----


def test_reading(tmp_path):
    path = tmp_path / "file"
    path.write_text("oom 3\noom_kill 2\n")
    assert read_key(str(path), "oom_kill") == 2
    assert read_key(str(path), "none") is None
    assert read_key(str(tmp_path / "none"), "oom_kill") is None
    with pytest.raises(System):
        read_key(str(tmp_path), "oom_kill")


class V1Files:
    """A v1 cgroup's files that refuse what the kernel refuses."""

    def __init__(self, monkeypatch, **present: str) -> None:
        self.values = {name.replace("__", "."): value for name, value in present.items()}
        self.failing: dict[str, int] = {}
        self.written: list[tuple[str, str]] = []
        monkeypatch.setattr(v1, "write_file", self.write)

    def write(self, path: str, value: str) -> None:
        name = os.path.basename(path)
        if name in self.failing:
            raise OSError(self.failing[name], os.strerror(self.failing[name]))
        if name not in self.values:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        now = {**self.values, name: value}
        if int(now[LIMIT]) > int(now[SWAP]):
            raise OSError(errno.EINVAL, "Invalid argument")
        self.values = now
        self.written.append((name, value))


LIMIT, SWAP = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


@pytest.mark.parametrize(("limit", "swap"), [("5", "6"), ("50", "60"), ("5", "60"), ("10", "10")])
def test_limits_are_changed_up_and_down(monkeypatch, limit, swap):
    """The kernel refuses a limit above that of memory and swap together."""
    files = V1Files(monkeypatch, memory__limit_in_bytes="10", memory__memsw__limit_in_bytes="20")
    memory = {"limit": int(limit), "swap": int(swap)}
    v1.apply_settings("/x", render({"memory": memory}, ("memory",)))
    assert files.values == {LIMIT: limit, SWAP: swap}


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EINVAL, errno.EACCES])
def test_what_the_kernel_refuses_is_told(monkeypatch, code):
    files = V1Files(monkeypatch, memory__limit_in_bytes="10", memory__memsw__limit_in_bytes="20")
    files.failing = {LIMIT: code}
    with pytest.raises((InvalidParameter, Unavailable), match=f"--memory: .*{LIMIT}"):
        v1.apply_settings("/x", render({"memory": {"limit": 5}}, ("memory",)))
    files.failing = {SWAP: code}
    with pytest.raises((InvalidParameter, Unavailable), match=f"--memory-swap: .*{SWAP}"):
        v1.apply_settings("/x", render({"memory": {"limit": 5, "swap": 9}}, ("memory",)))


# ---- processes ----


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_only_who_is_still_in_the_cgroup_is_killed(monkeypatch, sleeper):
    """A pid that was read may be another process's by now: it is looked at again before the signal."""
    looks = iter([[sleeper.pid], [], []])
    monkeypatch.setattr(cgroup_files, "pids_below", lambda directory: next(looks))
    cgroup_files.kill_one_by_one("/x")
    assert list(looks) == [], "it is looked at until nobody is left"
    sleeper.terminate()
    assert sleeper.wait() == -signal.SIGTERM, "it was not killed before"


def test_all_below_are_killed_and_their_end_is_waited_for(tmp_path, monkeypatch, sleeper):
    (tmp_path / "inside").mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    procs = tmp_path / "inside/cgroup.procs"
    procs.write_text(f"{sleeper.pid}\n{gone.pid}\n")
    (tmp_path / "cgroup.procs").write_text("")
    real, ends = cgroup_files.pids_below, []

    def look(directory):
        """As the kernel does: who has ended is not shown."""
        if sleeper.poll() is not None and not ends:
            ends.append(sleeper.pid)
            procs.write_text("")
        return real(directory)

    monkeypatch.setattr(cgroup_files, "pids_below", look)
    cgroup_files.kill_one_by_one(str(tmp_path))
    assert ends == [sleeper.pid] and sleeper.wait() == -signal.SIGKILL
