"""model/parse*.py: what a user asks for, and every refusal naming the option."""

from __future__ import annotations

from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter
from pynetns.model import parse_lists, parse_values
from pynetns.model.config import Config, DeviceMapping, HostConfig, PortBinding, Ulimit
from pynetns.model.parse import build_configs


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1024),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2T", 2 << 40),
        (4096, 4096),
    ],
)
def test_size(text: object, size: int) -> None:
    assert parse_values.parse_size(text) == size


@given(st.integers(0, 1 << 20), st.sampled_from("bkmg"))
def test_size_is_exact(number: int, unit: str) -> None:
    assert parse_values.parse_size(f"{number}{unit}") == number << 10 * "bkmg".index(unit)


_NO_SIZES = (
    "12q", "", "m", "-1", "1.", ".5", "1..2", "1.2.3", "nan", "1bb", "10kk", "²", "9" * 5000,
    True, None, -5, 1.5, [], "99999999999g", 1 << 63,
)  # fmt: skip


@pytest.mark.parametrize("bad", _NO_SIZES)
def test_bad_size_names_the_option(bad: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^--memory .* : must be a size such as"):
        parse_values.parse_size(bad)


def test_only_swap_may_be_unlimited() -> None:
    assert parse_values.parse_swap("-1") == parse_values.parse_swap(-1) == -1
    with pytest.raises(InvalidParameter, match="--memory-swap '-2'"):
        parse_values.parse_swap("-2")


@pytest.mark.parametrize(
    ("text", "nano"), [("1.5", 1_500_000_000), (2, 2 * 10**9), ("0.01", 10**7)]
)
def test_cpus(text: object, nano: int) -> None:
    assert parse_values.parse_cpus(text) == nano


@pytest.mark.parametrize("bad", ["", "two", "-1", "nan", "inf", "1_0", True, None, [1]])
def test_bad_cpus(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--cpus"):
        parse_values.parse_cpus(bad)


@pytest.mark.parametrize(
    ("given_", "number"),
    [("SIGTERM", 15), ("term", 15), ("15", 15), (9, 9), ("rtmin+3", 37), ("RTMAX", 64)],
)
def test_signal(given_: object, number: int) -> None:
    assert parse_values.parse_signal(given_) == number


@pytest.mark.parametrize(
    "bad", ["", "SIG", "SIGSIGTERM", "FOO", "0", 0, 65, "-9", "TERM+1", "_DFL", "BLOCK", None, True]
)
def test_unknown_signal(bad: object) -> None:
    with pytest.raises(InvalidParameter, match=r"--signal .* must be a signal's name"):
        parse_values.parse_signal(bad)


@pytest.mark.parametrize("name", ["ab", "web-1", "A.b_c", "0x"])
def test_name(name: str) -> None:
    assert parse_values.validate_name(name) == name


@pytest.mark.parametrize("bad", ["", "a", "-ab", ".ab", "a b", "a/b", "é1", "ab\n", None, 12])
def test_bad_name(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--name"):
        parse_values.validate_name(bad)


def test_mac() -> None:
    assert parse_values.parse_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "bad", ["02:42", "02:42:ac:11:00:0g", "01:00:00:00:00:01", "0:0:0:0:0:0", 5]
)
def test_bad_mac(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--mac-address"):
        parse_values.parse_mac(bad)


@pytest.mark.parametrize("bad", ["172.17.0", "172.17.0.256", "::1", "a", 5, "1.2.3.4\0"])
def test_bad_ipv4(bad: object) -> None:
    with pytest.raises(InvalidParameter, match=r"--ip .* IPv4 address"):
        parse_values.parse_ipv4(bad)


@pytest.mark.parametrize(
    ("mode", "parsed"),
    [
        (None, "default"),
        ("", "default"),
        ("bridge", "bridge"),
        ("none", "none"),
        ("host", "host"),
        ("container:web", "container:web"),
        ("container:/web", "container:web"),
        ("mine", "mine"),
    ],
)
def test_network_mode(mode: str | None, parsed: str) -> None:
    assert parse_values.parse_network_mode(mode) == parsed


@pytest.mark.parametrize("bad", ["container:", "container:/", "ns:/proc/1/ns/net", "a b", 5])
def test_bad_network_mode(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--network"):
        parse_values.parse_network_mode(bad)


@pytest.mark.parametrize("user", ["root", "1000", 1000, "www-data:www-data", "0:0"])
def test_user(user: object) -> None:
    assert parse_values.parse_user(user) == str(user)


@pytest.mark.parametrize("bad", ["a:b:c", ":1", "a b", "a\n", True, []])
def test_bad_user(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--user"):
        parse_values.parse_user(bad)


def test_restart_policies() -> None:
    for accepted in (None, "", "no", {"Name": "no"}, {"Name": "", "MaximumRetryCount": 0}):
        parse_values.parse_restart(accepted)
    for refused in ("always", "on-failure:3", {"Name": "unless-stopped"}):
        with pytest.raises(InvalidParameter, match="restart policies are not available yet"):
            parse_values.parse_restart(refused)


# ---- lists ----


def test_environment() -> None:
    assert parse_lists.parse_environment({"A": "1", "B": None, "C": 3}) == ("A=1", "B", "C=3")
    assert parse_lists.parse_environment(["A=1=2", "B"]) == ("A=1=2", "B")
    assert parse_lists.parse_env("HOME", environ={"HOME": "/root"}) == "HOME=/root"
    assert parse_lists.parse_env("NONE", environ={}) is None


@pytest.mark.parametrize("bad", ["", "=x", "a\0b", 5, None])
def test_bad_environment(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--env"):
        parse_lists.parse_environment([bad])


def test_a_text_is_no_list() -> None:
    with pytest.raises(InvalidParameter, match="--cap-add 'ALL' : must be a list"):
        build_configs("host", cap_add="ALL")


def test_env_file() -> None:
    text = "\ufeff# comment\n\nA=1\n  B=2 3\nHOME\nGONE\nC='q'\n"
    found = parse_lists.parse_env_file(text, environ={"HOME": "/root"})
    assert found == ["A=1", "B=2 3", "HOME=/root", "C='q'"]
    with pytest.raises(InvalidParameter, match=r"--env-file : line 2 'B C=1'"):
        parse_lists.parse_env_file("A=1\nB C=1\n")
    with pytest.raises(InvalidParameter, match=r"--env-file : line 1 '=1'"):
        parse_lists.parse_env_file("=1\n")


def test_labels() -> None:
    assert parse_lists.parse_labels(["a=1", "b", "a=2"]) == (("a", "2"), ("b", ""))
    assert parse_lists.parse_labels({"a": "1"}) == (("a", "1"),)
    with pytest.raises(InvalidParameter, match="--label"):
        parse_lists.parse_labels(["=x"])


def test_sysctls() -> None:
    assert parse_lists.parse_sysctls({"net.a": 1}) == (("net.a", "1"),)
    with pytest.raises(InvalidParameter, match=r"--sysctl 'net\.a'"):
        parse_lists.parse_sysctls(["net.a"])


def test_extra_hosts() -> None:
    assert parse_lists.parse_extra_hosts({"db": "10.0.0.2"}) == ("db:10.0.0.2",)
    given_ = ["db:10.0.0.2", "v6:::1", "w=[::1]", "gw:host-gateway"]
    parsed = ("db:10.0.0.2", "v6:::1", "w:::1", "gw:host-gateway")
    assert parse_lists.parse_extra_hosts(given_) == parsed
    for bad in ("db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4"):
        with pytest.raises(InvalidParameter, match="--add-host"):
            parse_lists.parse_add_host(bad)


def test_ulimits() -> None:
    assert parse_lists.parse_ulimit("nofile=1024:2048") == Ulimit("nofile", 1024, 2048)
    assert parse_lists.parse_ulimit("core=-1") == Ulimit("core", -1, -1)
    assert parse_lists.parse_ulimit({"Name": "cpu", "Soft": 1, "Hard": 2}) == Ulimit("cpu", 1, 2)
    assert parse_lists.parse_ulimit({"name": "cpu", "soft": 1}) == Ulimit("cpu", 1, 1)
    for bad in ("nofile", "=1", "nofile=", "nofile=x", "nofile=1:", "nofile=1:2:3", {"Soft": 1}):
        with pytest.raises(InvalidParameter, match="--ulimit"):
            parse_lists.parse_ulimit(bad)


def test_devices() -> None:
    parsed = [parse_lists.parse_device(text) for text in ("/dev/a", "/dev/a:/dev/b", "/dev/a:rw")]
    assert parsed == [
        DeviceMapping("/dev/a", "/dev/a", "rwm"),
        DeviceMapping("/dev/a", "/dev/b", "rwm"),
        DeviceMapping("/dev/a", "/dev/a", "rw"),
    ]
    assert parse_lists.parse_device("/dev/a:/dev/b:r").cgroup_permissions == "r"
    for bad in ("", ":/dev/b", "/dev/a:", "a:b:c:d", 5):
        with pytest.raises(InvalidParameter, match="--device"):
            parse_lists.parse_device(bad)


# ---- build_configs ----


def test_defaults_are_the_models() -> None:
    config, host_config = build_configs("host")
    assert config == Config(image="host")
    assert host_config == HostConfig()


def test_every_keyword_has_an_effect() -> None:
    """docker-py's keywords, each with a value that differs from the default."""
    options = {
        "hostname": "h", "domainname": "d", "user": "1:2", "tty": True, "stdin_open": True,
        "environment": ["A=1"], "entrypoint": "sh -c", "working_dir": "/w", "labels": {"l": "1"},
        "expose": ["81"], "stop_signal": "INT", "stop_timeout": "3",
        "mac_address": "02:00:00:00:00:01", "network_mode": "none", "volumes": ["/a:/b"],
        "mounts": ["type=tmpfs,target=/c"], "tmpfs": ["/d"], "ports": {"80/tcp": 8080},
        "publish_all_ports": True, "auto_remove": True, "privileged": True, "read_only": True,
        "cap_add": ["A"], "cap_drop": ["B"], "security_opt": ["label=disable"], "dns": ["1.1.1.1"],
        "dns_search": ["x"], "dns_opt": ["y"], "extra_hosts": {"a": "1.2.3.4"}, "group_add": [5],
        "sysctls": {"net.a": "1"}, "ulimits": ["core=0"], "devices": ["/dev/fuse"],
        "shm_size": "1m", "oom_score_adj": 5, "mem_limit": "64m", "memswap_limit": "128m",
        "mem_reservation": "32m", "nano_cpus": 5, "cpu_shares": 2, "cpu_period": 3, "cpu_quota": 4,
        "cpuset_cpus": "0", "cpuset_mems": "0", "pids_limit": "7", "cgroup_parent": "/p",
        "pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "rootfs": "/r",
        "ip": "172.17.0.9",
    }  # fmt: skip
    plain = build_configs("host")
    for keyword, value in options.items():
        assert build_configs("host", **{keyword: value}) != plain, keyword
    config, host_config = build_configs("host", "echo 'a b'", **options)
    assert config.cmd == ("echo", "a b")
    assert config.entrypoint == ("sh", "-c")
    assert config.exposed_ports == ("81/tcp", "80/tcp")
    assert host_config.port_bindings == (("80/tcp", (PortBinding("", "8080"),)),)
    assert [mount.target for mount in host_config.mounts] == ["/b", "/c", "/d"]
    assert (host_config.memory, host_config.memory_swap) == (64 << 20, 128 << 20)


def test_ports_in_every_form() -> None:
    ports = {"80/tcp": None, "81": ("127.0.0.1", 8081), "82/udp": [1, 2]}
    bindings = dict(build_configs("host", ports=ports)[1].port_bindings)
    assert bindings["80/tcp"] == (PortBinding("", ""),)
    assert bindings["81/tcp"] == (PortBinding("127.0.0.1", "8081"),)
    assert len(bindings["82/udp"]) == 2
    published = build_configs("host", ports=["8080:80", "127.0.0.1:81:81/udp"])[1].port_bindings
    assert dict(published)["81/udp"] == (PortBinding("127.0.0.1", "81"),)
    for bad in ({"80/tcp": 70000}, ["70000:80"], ["80:70000"], ["a:80"], "80"):
        with pytest.raises(InvalidParameter, match=r"port|publish"):
            build_configs("host", ports=bad)


def test_stdin_belongs_to_the_first_client_only_in_the_foreground() -> None:
    assert build_configs("host", stdin_open=True)[0].stdin_once
    detached = build_configs("host", stdin_open=True, detach=True)[0]
    assert detached.open_stdin
    assert not (detached.stdin_once or detached.attach_stdin or detached.attach_stdout)


def test_image_object_stands_for_its_id() -> None:
    image = namedtuple("image", "id")("sha256:abc")
    assert build_configs(image)[0].image == "sha256:abc"
    assert build_configs(None, rootfs="/r")[0].image == ""


def test_none_is_not_given() -> None:
    assert build_configs("host", mem_limit=None, dns=None, tty=None) == build_configs("host")
    assert build_configs("host", network="", shm_size="") == build_configs("host")


def test_unknown_keyword_is_pythons_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory_limit'"):
        build_configs("host", memory_limit=5)


@pytest.mark.parametrize("keyword", ["init", "links", "volumes_from", "healthcheck", "runtime"])
def test_what_is_not_available_is_refused_not_ignored(keyword: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"{keyword} .* : not available"):
        build_configs("host", **{keyword: ["x"]})
    build_configs("host", **{keyword: None})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mem_limit": "12q"}, "--memory '12q'"),
        ({"pids_limit": "many"}, "--pids-limit 'many'"),
        ({"oom_score_adj": "x"}, "--oom-score-adj"),
        ({"stop_signal": "FOO"}, "--stop-signal"),
        ({"stop_timeout": -2}, "--stop-timeout"),
        ({"dns": ["x"]}, "--dns"),
        ({"group_add": ["a:b"]}, "--group-add"),
        ({"privileged": "maybe"}, "--privileged"),
        ({"hostname": 5}, "--hostname"),
        ({"entrypoint": "a 'b"}, "--entrypoint"),
        ({"network": "a", "network_mode": "b"}, "--network"),
        ({"restart_policy": {"Name": "always"}}, "--restart"),
        ({"command": "echo 'a"}, "command"),
        ({"command": ["echo", 5]}, "command"),
        ({"command": ["a\0b"]}, "command"),
    ],
)
def test_refusals_name_the_option(options: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        build_configs("host", **options)
    assert str(caught.value).startswith(named)


@given(st.dictionaries(st.sampled_from(["mem_limit", "ports", "volumes", "ulimits", "user", "dns",
                                        "mounts", "tmpfs", "devices", "labels", "network"]),
                       st.one_of(st.text(), st.integers(), st.none(), st.booleans(), st.floats(),
                                 st.lists(st.text(), max_size=2),
                                 st.dictionaries(st.text(), st.text(), max_size=2))))  # fmt: skip
def test_nothing_but_invalid_parameter_is_raised(options: dict[str, object]) -> None:
    try:
        build_configs("host", **options)
    except InvalidParameter as error:
        assert str(error)
