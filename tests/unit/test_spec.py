"""spec.py and spec_mounts.py: the OCI spec of a configuration, pure."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter
from pynetns.model.config import Config, DeviceMapping, HostConfig, Mount, Ulimit
from pynetns.runtime.security.seccomp import resolve_default, seccomp_json
from pynetns.runtime.spec import create as specs
from pynetns.runtime.spec.devices import DEFAULT_RULES, ResolvedDevices, resolve_devices
from pynetns.runtime.spec.mounts import merge_tmpfs_options, sort_mounts
from pynetns.runtime.spec.user import User

GOLDEN = Path(__file__).parents[1] / "golden"
ID = "a" * 64
FILES = {
    "resolv_conf_path": f"/r/containers/{ID}/resolv.conf",
    "hostname_path": f"/r/containers/{ID}/hostname",
    "hosts_path": f"/r/containers/{ID}/hosts",
}


def make_request(config=None, host=None, **changes):
    values = {
        "container_id": ID,
        "path": "sleep",
        "args": ("60",),
        "config": config or Config(),
        "host_config": host or HostConfig(),
        "rootfs_path": f"/r/overlay2/{ID}/merged",
        "cgroups_path": specs.cgroups_path("/pynetns", ID),
        "hostname": ID[:12],
        "netns_path": "/run/x/netns/aaaaaaaaaaaa",
        **FILES,
        **changes,
    }
    return specs.SpecRequest(**values)


def make_spec(config=None, host=None, **changes):
    return json.loads(json.dumps(specs.create_spec(make_request(config, host, **changes))))


def host_spec(**host):
    return make_spec(host=HostConfig(**host))


def mount_at(spec, destination):
    (found,) = [m for m in spec["mounts"] if m["destination"] == destination]
    return found


def destinations(spec):
    return [mount["destination"] for mount in spec["mounts"]]


# -- the whole


def test_golden_default():
    seccomp = resolve_default(("CAP_CHOWN",), (6, 1), "amd64")
    spec = make_spec(seccomp=seccomp)
    assert spec["linux"].pop("seccomp") == seccomp
    text = json.dumps(spec, indent=1) + "\n"
    path = GOLDEN / "spec_default.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_render_spec_splices_the_filter():
    seccomp = resolve_default((), (6, 1), "amd64")
    spec = specs.create_spec(make_request(seccomp=seccomp, hostname="hé"))
    spliced = specs.render_spec(spec, seccomp_json(seccomp))
    assert (
        json.loads(spliced) == json.loads(specs.render_spec(spec)) == json.loads(json.dumps(spec))
    )
    unconfined = specs.create_spec(make_request())
    assert json.loads(specs.render_spec(unconfined)) == json.loads(json.dumps(unconfined))
    assert "seccomp" not in specs.render_spec(unconfined, seccomp_json(seccomp))


def test_specs_do_not_influence_each_other():
    before = make_spec()
    specs.create_spec(
        make_request(
            Config(tty=True, domainname="d"),
            HostConfig(
                privileged=True,
                memory=1 << 26,
                ipc_mode="none",
                pid_mode="host",
                sysctls=(("net.x", "1"),),
                mounts=(Mount("bind", "/a", "/dev"),),
            ),
            devices=ResolvedDevices(({"path": "/dev/x"},), ()),
        )
    )
    assert make_spec() == before


def test_a_container_without_root_is_a_programming_error():
    with pytest.raises(ValueError, match=ID):
        specs.create_spec(make_request(rootfs_path=""))


# -- process


def test_process():
    spec = make_spec(
        Config(tty=True, working_dir="/w"),
        HostConfig(oom_score_adj=7, security_opt=("no-new-privileges",)),
        user=User(5, 6, (7, 8), "/h"),
    )
    process = spec["process"]
    assert process["args"] == ["sleep", "60"]
    assert process["cwd"] == "/w"
    assert process["terminal"] is True
    assert process["noNewPrivileges"] is True
    assert process["oomScoreAdj"] == 7
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7, 8]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"PATH": specs.DEFAULT_PATH, "HOSTNAME": ID[:12], "HOME": "/root"}),
        ({"tty": True}, {"TERM": "xterm"}),
        ({"tty": True, "env": ("TERM",)}, {"TERM": None}),
        ({"env": ("PATH=/x", "A=1", "A=2=3", "E=")}, {"PATH": "/x", "A": "2=3", "E": ""}),
        ({"env": ("PATH", "NONE")}, {"PATH": None, "NONE": None}),
        ({"env": ("HOME=/h",)}, {"HOME": "/h"}),
        ({"env": ("HOME",)}, {"HOME": "/root"}),
    ],
)
def test_environment(config, expected):
    spec = make_spec(Config(**config), user=User(home="/root"))
    pairs = [entry.split("=", 1) for entry in spec["process"]["env"]]
    env = dict(pairs)
    assert len(env) == len(pairs)
    assert {name: env.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (("a", "b"), ("c",), ("a", ("b", "c"))),
        ((), ("c", "d"), ("c", ("d",))),
        (("a",), (), ("a", ())),
        ((), (), ("", ())),
    ],
)
def test_entrypoint_and_args(entrypoint, cmd, expected):
    assert specs.entrypoint_and_args(entrypoint, cmd) == expected


def test_capabilities_of_root_and_of_others():
    root = make_spec(capabilities=("CAP_KILL",))["process"]["capabilities"]
    assert root["bounding"] == root["effective"] == root["permitted"] == ["CAP_KILL"]
    assert root["inheritable"] == root["ambient"] == []
    other = make_spec(capabilities=("CAP_KILL",), user=User(9, 9))["process"]["capabilities"]
    assert other["bounding"] == ["CAP_KILL"]
    assert other["effective"] == other["permitted"] == []


def test_rlimits():
    limits = host_spec(ulimits=(Ulimit("nofile", 1, 2), Ulimit("core", -1, -1)))
    unlimited = (1 << 64) - 1
    assert limits["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
        {"type": "RLIMIT_CORE", "soft": unlimited, "hard": unlimited},
    ]


# -- linux


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({}, {}),
        ({"memory": 1 << 26}, {"memory": {"limit": 1 << 26, "swap": 1 << 27}}),
        ({"memory": 1 << 26, "memory_swap": -1}, {"memory": {"limit": 1 << 26}}),
        (
            {"memory": 1 << 26, "memory_swap": 1 << 26, "memory_reservation": 1 << 25},
            {"memory": {"limit": 1 << 26, "swap": 1 << 26, "reservation": 1 << 25}},
        ),
        ({"nano_cpus": 1_500_000_000}, {"cpu": {"period": 100_000, "quota": 150_000}}),
        ({"cpu_period": 50_000, "cpu_quota": 20_000}, {"cpu": {"period": 50_000, "quota": 20_000}}),
        (
            {"cpu_shares": 2, "cpuset_cpus": "0-1", "cpuset_mems": "0"},
            {"cpu": {"shares": 2, "cpus": "0-1", "mems": "0"}},
        ),
        ({"pids_limit": 5}, {"pids": {"limit": 5}}),
        ({"pids_limit": -1}, {}),
    ],
)
def test_resources(host, expected):
    resources = host_spec(**host)["linux"]["resources"]
    assert resources.pop("devices") == json.loads(json.dumps(DEFAULT_RULES))
    assert resources == expected


DEFAULT_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


@pytest.mark.parametrize(
    ("network_mode", "sysctls", "expected"),
    [
        ("default", (), DEFAULT_SYSCTLS),
        ("none", (("net.ipv4.ip_forward", "1"),), DEFAULT_SYSCTLS | {"net.ipv4.ip_forward": "1"}),
        (
            "mine",
            tuple(dict.fromkeys(DEFAULT_SYSCTLS, "5").items()),
            dict.fromkeys(DEFAULT_SYSCTLS, "5"),
        ),
        ("host", (("kernel.shmmax", "9"),), {"kernel.shmmax": "9"}),
        ("container:x", (), {}),
    ],
)
def test_sysctls(network_mode, sysctls, expected):
    spec = host_spec(network_mode=network_mode, sysctls=sysctls)
    assert spec["linux"]["sysctl"] == expected


def test_domainname_is_a_sysctl():
    assert make_spec(domainname="d.x")["linux"]["sysctl"]["kernel.domainname"] == "d.x"


NEW = ["mount", "network", "uts", "pid", "ipc"]


@pytest.mark.parametrize(
    ("host", "changes", "kinds", "paths"),
    [
        ({}, {}, NEW, {"network": "/run/x/netns/aaaaaaaaaaaa"}),
        ({}, {"netns_path": ""}, NEW, {}),
        ({}, {"netns_path": "", "private_cgroupns": True}, [*NEW, "cgroup"], {}),
        ({"network_mode": "host"}, {"netns_path": ""}, ["mount", "uts", "pid", "ipc"], {}),
        ({"network_mode": "host"}, {"netns_path": "/n"}, NEW, {"network": "/n"}),
        ({"network_mode": "container:x"}, {"network_pid": 7}, NEW, {"network": "/proc/7/ns/net"}),
        ({"ipc_mode": "host"}, {"netns_path": ""}, ["mount", "network", "uts", "pid"], {}),
        (
            {"ipc_mode": "container:x"},
            {"netns_path": "", "ipc_pid": 8},
            NEW,
            {"ipc": "/proc/8/ns/ipc"},
        ),
        ({"ipc_mode": "shareable"}, {"netns_path": ""}, NEW, {}),
        ({"pid_mode": "host"}, {"netns_path": ""}, ["mount", "network", "uts", "ipc"], {}),
        (
            {"pid_mode": "container:x"},
            {"netns_path": "", "pid_pid": 9},
            NEW,
            {"pid": "/proc/9/ns/pid"},
        ),
        ({"uts_mode": "host"}, {"netns_path": ""}, ["mount", "network", "pid", "ipc"], {}),
    ],
)
def test_namespaces(host, changes, kinds, paths):
    spec = make_spec(host=HostConfig(**host), **changes)
    namespaces = spec["linux"]["namespaces"]
    assert [namespace["type"] for namespace in namespaces] == kinds
    assert {n["type"]: n["path"] for n in namespaces if "path" in n} == paths
    assert spec["hostname"] == ("" if host.get("uts_mode") else ID[:12])


def test_paths():
    assert host_spec()["linux"]["maskedPaths"] == list(specs.MASKED_PATHS)
    assert host_spec()["linux"]["readonlyPaths"] == list(specs.READONLY_PATHS)
    for host in ({"privileged": True}, {"security_opt": ("systempaths=unconfined",)}):
        linux = host_spec(**host)["linux"]
        assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    own = host_spec(masked_paths=("/proc/x",), readonly_paths=())["linux"]
    assert own["maskedPaths"] == ["/proc/x"]
    assert own["readonlyPaths"] == []


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("/pynetns", "/pynetns/id"),
        ("a/b/", "/a/b/id"),
        ("", "/id"),
        ("../../etc", "/etc/id"),
        ("/a/../../b", "/b/id"),
        ("//x", "/x/id"),
    ],
)
def test_cgroups_path(parent, expected):
    assert specs.cgroups_path(parent, "id") == expected


# -- devices


def test_devices_of_the_host():
    mapping = DeviceMapping("/dev/null", "/dev/mine", "r")
    found = resolve_devices([mapping])
    (node,) = found.nodes
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/mine", "c", 1, 3)
    assert found.rules == (
        *DEFAULT_RULES,
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
    )
    assert make_spec(devices=found)["linux"]["devices"][0]["path"] == "/dev/mine"


def test_a_link_and_a_directory_of_devices(tmp_path):
    if os.geteuid():
        pytest.skip("mknod needs root")
    (tmp_path / "sub").mkdir()
    os.mknod(tmp_path / "sub" / "zero", 0o020640, os.makedev(1, 5))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/dev/full")
    mapping = DeviceMapping(str(tmp_path), "/dev/many", "rw")
    (node,) = resolve_devices([mapping]).nodes
    assert node == {
        "path": "/dev/many/sub/zero", "type": "c", "major": 1, "minor": 5,
        "fileMode": 0o640, "uid": 0, "gid": 0,
    }  # fmt: skip
    (node,) = resolve_devices([DeviceMapping(str(tmp_path / "link"), "")]).nodes
    assert node["path"] == str(tmp_path / "link")
    assert node["minor"] == 7


@pytest.mark.parametrize("path", ["/dev/no-such-device", "/etc/passwd", "/etc"])
def test_what_is_no_device_is_refused(path):
    with pytest.raises(InvalidParameter, match=f"--device {path}"):
        resolve_devices([DeviceMapping(path, path)])


def test_privileged_has_all_devices():
    found = resolve_devices([], privileged=True)
    paths = {node["path"] for node in found.nodes}
    assert "/dev/null" in paths
    assert not {"/dev/ptmx", "/dev/console"} & paths
    assert not [path for path in paths if path.startswith(("/dev/pts/", "/dev/shm/"))]
    assert found.rules == ({"allow": True, "access": "rwm"},)


# -- mounts

DEFAULTS = "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm"
NETWORK = "/etc/resolv.conf /etc/hostname /etc/hosts"


def test_default_mounts_and_shm_size():
    spec = host_spec(shm_size=4096)
    assert " ".join(destinations(spec)) == f"{DEFAULTS} {NETWORK}"
    assert mount_at(spec, "/dev/shm")["options"][-1] == "size=4096"
    assert mount_at(spec, "/etc/hosts")["options"] == ["rbind", "rprivate"]


def test_no_network_files():
    spec = make_spec(**dict.fromkeys(FILES, ""))
    assert " ".join(destinations(spec)) == DEFAULTS


def test_readonly_root():
    spec = host_spec(readonly_rootfs=True)
    assert spec["root"]["readonly"] is True
    assert mount_at(spec, "/etc/hosts")["options"] == ["rbind", "ro", "rprivate"]
    assert "ro" not in mount_at(spec, "/dev/shm")["options"]


def test_privileged_sees_sys_writable():
    spec = host_spec(privileged=True)
    assert "ro" not in mount_at(spec, "/sys")["options"]
    assert "ro" not in mount_at(spec, "/sys/fs/cgroup")["options"]
    assert "ro" in mount_at(host_spec(), "/sys")["options"]


def test_binds():
    spec = host_spec(
        mounts=(
            Mount("bind", "/s1", "/a/b/c", read_only=True),
            Mount("bind", "/s2", "/a/", recursive=False, propagation="rslave"),
            Mount("bind", "/s3", "/a/b"),
        )
    )
    assert " ".join(destinations(spec)) == f"{DEFAULTS} /a /a/b {NETWORK} /a/b/c"
    assert mount_at(spec, "/a") == {
        "destination": "/a", "type": "bind", "source": "/s2", "options": ["bind", "rslave"],
    }  # fmt: skip
    assert mount_at(spec, "/a/b/c")["options"] == ["rbind", "ro", "rprivate"]
    assert spec["linux"]["rootfsPropagation"] == "rslave"


def test_shared_wins_over_slave():
    mounts = (
        Mount("bind", "/s", "/a", propagation="slave"),
        Mount("bind", "/s", "/b", propagation="rshared"),
    )
    assert host_spec(mounts=mounts)["linux"]["rootfsPropagation"] == "shared"


def test_a_bind_over_a_network_file_takes_its_place():
    spec = host_spec(
        readonly_rootfs=True, mounts=(Mount("bind", "/mine", "/etc/hosts", read_only=False),)
    )
    assert mount_at(spec, "/etc/hosts")["source"] == "/mine"
    assert "ro" not in mount_at(spec, "/etc/hosts")["options"]


def test_user_mounts_override_defaults():
    spec = host_spec(mounts=(Mount("bind", "/d", "/dev"), Mount("tmpfs", "", "/sys")))
    assert " ".join(destinations(spec)) == f"/proc /sys/fs/cgroup /dev /sys {NETWORK}"
    assert mount_at(spec, "/dev")["source"] == "/d"


def test_tmpfs_goes_before_a_bind_with_the_same_target():
    spec = host_spec(mounts=(Mount("bind", "/s", "/t"), Mount("tmpfs", "", "/t", read_only=True)))
    assert mount_at(spec, "/t") == {
        "destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["noexec", "nosuid", "nodev", "rprivate", "ro"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "shm_path", "source"),
    [
        ("private", "/ignored", "shm"),
        ("", "/ignored", "shm"),
        ("shareable", "/r/shm", "/r/shm"),
        ("host", "/dev/shm", "/dev/shm"),
        ("container:x", "/other/shm", "/other/shm"),
        ("none", "", None),
    ],
)
def test_shm_by_ipc_mode(mode, shm_path, source):
    spec = make_spec(host=HostConfig(ipc_mode=mode), shm_path=shm_path)
    found = [m["source"] for m in spec["mounts"] if m["destination"] == "/dev/shm"]
    assert found == ([source] if source else [])


@pytest.mark.parametrize("mode", ["private", "shareable", "host"])
@pytest.mark.parametrize(("kind", "source"), [("bind", "/my"), ("tmpfs", "tmpfs")])
def test_a_users_shm_stays(mode, kind, source):
    mount = Mount(kind, "/my" if kind == "bind" else "", "/dev/shm")
    spec = make_spec(host=HostConfig(ipc_mode=mode, mounts=(mount,)), shm_path="/r/shm")
    found = [m["source"] for m in spec["mounts"] if m["destination"] == "/dev/shm"]
    assert found == [source]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "noexec nosuid nodev rprivate"),
        ("size=64m,mode=1777,exec", "nosuid nodev rprivate size=64m mode=1777 exec"),
        ("size=1m,size=2m", "noexec nosuid nodev rprivate size=2m"),
        ("ro,rw,size=50%", "noexec nosuid nodev rprivate rw size=50%"),
        (
            "uid=5,gid=6,nr_inodes=1k,noatime",
            "noexec nosuid nodev rprivate uid=5 gid=6 nr_inodes=1k noatime",
        ),
    ],
)
def test_tmpfs_options(text, expected):
    assert " ".join(merge_tmpfs_options(text)) == expected


@pytest.mark.parametrize("text", ["fly", "size=lots", "mode=999", "size", "a=b", "uid=-1", "bind"])
def test_bad_tmpfs_options(text):
    with pytest.raises(InvalidParameter, match=r"--tmpfs.*accepted"):
        merge_tmpfs_options(text)


PARTS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=5)


@given(st.lists(PARTS.map(lambda parts: "/" + "/".join(parts))))
def test_sorting_keeps_parents_before_children_and_equals_in_order(paths):
    mounts = [{"destination": path, "number": number} for number, path in enumerate(paths)]
    ordered = sort_mounts(mounts)
    assert sorted(m["number"] for m in ordered) == list(range(len(paths)))
    for earlier, later in pairwise(ordered):
        depths = [m["destination"].count("/") for m in (earlier, later)]
        assert depths[0] < depths[1] or (
            depths[0] == depths[1] and earlier["number"] < later["number"]
        )
    seen = [m["destination"] for m in ordered]
    for index, path in enumerate(seen):
        assert not any(path.startswith(child + "/") for child in seen[index + 1 :])


@given(
    targets=st.lists(PARTS.map(lambda parts: "/" + "/".join(parts)), unique=True),
    mode=st.sampled_from(["private", "shareable", "host", "none"]),
    readonly=st.booleans(),
)
def test_every_target_is_mounted_exactly_once(targets, mode, readonly):
    mounts = tuple(Mount("bind", "/src", target) for target in targets)
    host = replace(HostConfig(), mounts=mounts, ipc_mode=mode, readonly_rootfs=readonly)
    found = destinations(make_spec(host=host, shm_path="/r/shm"))
    assert len(found) == len(set(found))
    assert set(targets) <= set(found)
