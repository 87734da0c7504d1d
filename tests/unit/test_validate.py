"""validate.py: what is refused at create, each with the option and what it accepts."""

import os

import pytest

from pynetns.errors import InvalidParameter
from pynetns.model.config import Config, DeviceMapping, HostConfig, Mount, Ulimit
from pynetns.runtime.spec.checks import validate_host_config

MIB = 1 << 20


def test_the_default_is_fine():
    validate_host_config(Config(), HostConfig())


@pytest.mark.parametrize(
    "host",
    [
        {"cap_add": ("net_admin",), "cap_drop": ("ALL",)},
        {"sysctls": (("net.ipv4.conf.all.rp_filter", "1"), ("kernel.shmmax", "1"))},
        {"sysctls": (("fs.mqueue.msg_max", "5"),)},
        {"ulimits": (Ulimit("nofile", 10, -1), Ulimit("core", -1, -1), Ulimit("nice", 0, 0))},
        {"security_opt": ("no-new-privileges", "seccomp=unconfined")},
        {"mounts": (Mount("bind", "/a", "/b/"), Mount("tmpfs", "", "/c", tmpfs_options="size=1m"))},
        {"oom_score_adj": -1000},
        {"pid_mode": "container:x", "ipc_mode": "container:y", "uts_mode": "host"},
        {"pid_mode": "host", "ipc_mode": "none"},
        {"devices": (DeviceMapping("/dev/null", "/dev/null", "rw"),)},
        {"memory": 6 * MIB, "memory_swap": 6 * MIB, "memory_reservation": 6 * MIB},
        {"memory": 6 * MIB, "memory_swap": -1, "pids_limit": -1},
        {"nano_cpus": 10_000_000},
        {"cpu_period": 1_000, "cpu_quota": 1_000, "cpu_shares": 2},
        {"cpu_quota": -1, "cpuset_cpus": "0", "cpuset_mems": "0"},
        {"network_mode": "host", "sysctls": (("kernel.sem", "1 2 3 4"),)},
    ],
)
def test_accepted(host):
    validate_host_config(Config(), HostConfig(**host))


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"cap_add": ("FLY",)}, "--cap-add"),
        ({"cap_drop": ("FLY",)}, "--cap-drop"),
        ({"sysctls": (("kernel.panic", "1"),)}, r"--sysctl kernel.panic.*net\.\*"),
        ({"sysctls": (("kernel.domainname", "x"),)}, "--sysctl"),
        ({"sysctls": (("net/ipv4/../../x", "1"),)}, "--sysctl"),
        ({"sysctls": (("net..x", "1"),)}, "--sysctl"),
        ({"sysctls": (("net.x", "1\n2"),)}, "--sysctl net.x"),
        ({"sysctls": (("net.x", "1"),), "network_mode": "host"}, "--network host"),
        ({"sysctls": (("kernel.sem", "1"),), "ipc_mode": "host"}, "--ipc host"),
        ({"ulimits": (Ulimit("as", 1, 1),)}, r"--ulimit as.*nofile"),
        ({"ulimits": (Ulimit("nofile", 2, 1),)}, "--ulimit nofile"),
        ({"ulimits": (Ulimit("nofile", -1, 1),)}, "--ulimit nofile"),
        ({"ulimits": (Ulimit("nofile", -2, 1),)}, "--ulimit nofile"),
        ({"security_opt": ("seccomp=/no/such/file",)}, "--security-opt seccomp"),
        ({"security_opt": ("seccomp={}",)}, "--security-opt seccomp"),
        ({"security_opt": ("apparmor=mine",)}, "--security-opt.*accepted"),
        ({"mounts": (Mount("bind", "/a", "/"),)}, "'/'"),
        ({"mounts": (Mount("bind", "/a", "//"),)}, "'/'"),
        ({"mounts": (Mount("bind", "/a", "/./"),)}, "'/'"),
        ({"mounts": (Mount("bind", "/a", "b"),)}, "absolute"),
        ({"mounts": (Mount("bind", "/a", "/b/../c"),)}, r"'\.\.'"),
        ({"mounts": (Mount("bind", "a", "/b"),)}, "absolute"),
        ({"mounts": (Mount("bind", "/a", "/b"), Mount("tmpfs", "", "/b/"))}, "duplicate"),
        ({"mounts": (Mount("bind", "/a", "/b", propagation="odd"),)}, "rshared"),
        ({"mounts": (Mount("nfs", "/a", "/b"),)}, "bind or tmpfs"),
        ({"mounts": (Mount("tmpfs", "", "/b", tmpfs_options="fly"),)}, "--tmpfs"),
        ({"shm_size": 0}, "--shm-size"),
        ({"masked_paths": ("x",)}, "masked paths"),
        ({"readonly_paths": ("/a/../b",)}, "read-only paths"),
        ({"oom_score_adj": 1001}, "--oom-score-adj.*-1000 and 1000"),
        ({"pid_mode": "shareable"}, "--pid"),
        ({"pid_mode": "container:"}, "--pid"),
        ({"ipc_mode": "odd"}, "--ipc.*shareable"),
        ({"uts_mode": "container:x"}, "--uts"),
        ({"devices": (DeviceMapping("/dev/x", "/dev/x", "rwx"),)}, "--device /dev/x.*rwm"),
        ({"devices": (DeviceMapping("/dev/x", "/dev/x", "rr"),)}, "--device"),
        ({"devices": (DeviceMapping("/dev/x", "/dev/x", ""),)}, "--device"),
        ({"devices": (DeviceMapping("/dev/x", "../x"),)}, "--device"),
        ({"memory": 6 * MIB - 1}, "--memory.*6m"),
        ({"memory": -1}, "--memory"),
        ({"memory": 8 * MIB, "memory_swap": 4 * MIB}, "--memory-swap"),
        ({"memory_swap": 4 * MIB}, "--memory-swap"),
        ({"memory": 8 * MIB, "memory_swap": -2}, "--memory-swap"),
        ({"memory": 8 * MIB, "memory_reservation": 9 * MIB}, "--memory-reservation"),
        ({"pids_limit": -2}, "--pids-limit"),
        ({"nano_cpus": 1}, "--cpus"),
        ({"nano_cpus": ((os.cpu_count() or 1) + 1) * 10**9}, "--cpus"),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, "--cpus"),
        ({"cpu_period": 999}, "--cpu-period"),
        ({"cpu_period": 1_000_001}, "--cpu-period"),
        ({"cpu_quota": 999}, "--cpu-quota"),
        ({"cpu_shares": -1}, "--cpu-shares"),
        ({"cpuset_cpus": "a"}, "--cpuset-cpus"),
        ({"cpuset_cpus": "60000"}, "--cpuset-cpus.*this machine has"),
        ({"cpuset_mems": "0-999999999"}, "--cpuset-mems"),
    ],
)
def test_refused(host, message):
    with pytest.raises(InvalidParameter, match=message):
        validate_host_config(Config(), HostConfig(**host))


@pytest.mark.parametrize(
    ("config", "host", "message"),
    [
        ({"working_dir": "rel"}, {}, "--workdir"),
        ({"env": ("=x",)}, {}, "--env"),
        ({"env": ("",)}, {}, "--env"),
        ({"hostname": "a b"}, {}, "--hostname"),
        ({"hostname": "a" * 65}, {}, "--hostname"),
        ({"hostname": "-a"}, {}, "--hostname"),
        ({"domainname": "a/b"}, {}, "--domainname"),
        ({"hostname": "a"}, {"uts_mode": "host"}, "--uts host"),
        ({"domainname": "a"}, {"uts_mode": "host"}, "--uts host"),
        ({"hostname": "a"}, {"network_mode": "container:x"}, "--network container"),
    ],
)
def test_refused_configurations(config, host, message):
    with pytest.raises(InvalidParameter, match=message):
        validate_host_config(Config(**config), HostConfig(**host))


@pytest.mark.parametrize("name", ["a", "web-1.example_x", "a" * 64])
def test_hostnames(name):
    validate_host_config(Config(hostname=name), HostConfig())


_BAD_PATHS = (
    "relative",
    "../x",
    "/..",
    "/a/../b",
    "/a/..",
    "./x",
    " /x",
    "/a\0b",
    "/" + "n" * 256,
    "/" + "é" * 128,  # 256 bytes
    "/a/" + "n" * 300 + "/b",
    "/n" * 2048,
)
_GOOD_PATHS = ("/x", "/a/..b", "/a/...", "/" + "n" * 255, "/n" * 2047, "/a b/\udcff", "//x/", "/.x")


@pytest.mark.security
@pytest.mark.parametrize("path", _BAD_PATHS)
def test_a_path_that_cannot_be_is_refused_wherever_it_is_given(path):
    for config, host_config in (
        (Config(working_dir=path), HostConfig()),
        (Config(), HostConfig(mounts=(Mount("bind", "/tmp", path),))),
        (Config(), HostConfig(mounts=(Mount("tmpfs", "", path),))),
        (Config(), HostConfig(devices=(DeviceMapping("/dev/null", path),))),
        (Config(), HostConfig(devices=(DeviceMapping(path, "/dev/x"),))),
    ):
        with pytest.raises(InvalidParameter, match=r"absolute path|too long") as caught:
            validate_host_config(config, host_config)
        assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("path", _GOOD_PATHS)
def test_every_other_path_is_taken(path):
    mounts = (Mount("bind", "/tmp", path),)
    validate_host_config(Config(working_dir=path), HostConfig(mounts=mounts))


@pytest.mark.parametrize("target", ["/proc", "/proc/", "/proc/sys", "/proc/1/x", "/proc/stat/x"])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_nothing_is_mounted_inside_proc(target, kind):
    mount = Mount(kind, "/a" if kind == "bind" else "", target)
    with pytest.raises(InvalidParameter, match="inside /proc"):
        validate_host_config(Config(), HostConfig(mounts=(mount,)))


@pytest.mark.parametrize("target", ["/proc/meminfo", "/proc/stat", "/process", "/data/proc"])
def test_but_for_what_shows_a_containers_own_share(target):
    validate_host_config(Config(), HostConfig(mounts=(Mount("bind", "/a", target),)))
