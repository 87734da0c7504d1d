"""From what a user asks for to Config and HostConfig: `build_configs`, and what it is made of.

Owns: the keywords of create and run (docker-py's, and what only the command line has), each a row
of one table with its field and its parser. Values are parsed here once and trusted afterwards; what
they may be on this machine is checked by the layers that use them. Pure: no I/O.
Source: docker-py's `containers.run`, by its documentation; `docker run --help`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidParameter
from .config import Config, HostConfig, PortBinding
from .log_config import parse_log_config
from .parse_lists import (
    parse_add_host,
    parse_device,
    parse_env,
    parse_env_file,
    parse_environment,
    parse_extra_hosts,
    parse_group,
    parse_label,
    parse_labels,
    parse_list,
    parse_sysctl,
    parse_sysctls,
    parse_ulimit,
)
from .parse_mounts import (
    parse_mount,
    parse_tmpfs,
    parse_tmpfs_mounts,
    parse_volume,
    parse_volumes,
)
from .parse_values import (
    parse_address,
    parse_boolean,
    parse_cpus,
    parse_integer,
    parse_ipv4,
    parse_mac,
    parse_network_mode,
    parse_restart,
    parse_signal,
    parse_size,
    parse_stop_signal,
    parse_stop_timeout,
    parse_swap,
    parse_text,
    parse_user,
    refuse,
    validate_name,
)
from .ports import Bindings, merge_bindings, parse_expose, parse_mapping, parse_publish_all

Parser = Callable[[Any, str], Any]


def split_words(value: Any, option: str) -> tuple[str, ...]:
    """Words of a list, or of a text split as a shell would; None is no word."""
    if isinstance(value, str):
        import shlex

        try:
            value = shlex.split(value)
        except ValueError as error:
            raise InvalidParameter(f"{option} {value!r} : {error}") from error
    return parse_list(value, option)


def list_of(item: Parser) -> Parser:
    """A parser of a list, every entry by `item`."""
    return lambda value, option: parse_list(value, option, item)


def parse_ports(value: Any, option: str) -> Bindings:
    """docker-py's mapping, or a list of `-p` texts."""
    if value is None:
        return ()
    return (
        parse_mapping(value)
        if isinstance(value, Mapping)
        else parse_publish_all(parse_list(value, option))
    )


def parse_exposed(value: Any, option: str) -> tuple[str, ...]:
    """Every `--expose` of a list."""
    return tuple(port for spec in parse_list(value, option) for port in parse_expose(spec))


def number_of(what: str) -> Parser:
    """A parser of a whole number that counts `what`; units are none of it."""
    text = f"a whole number of {what}, without a unit"
    return lambda value, option: parse_integer(value, option, what=text)


def parse_oom_score_adj(value: Any, option: str) -> int:
    """From -1000 to 1000, which is checked with the rest of the configuration."""
    return parse_integer(value, option, what="a whole number from -1000 to 1000")


class Field(NamedTuple):
    """Where a keyword goes: the option to name in an error, its parser, the field of Config or
    HostConfig. Keywords of the same field (`collected`) add up."""

    option: str
    parser: Parser
    name: str
    collected: bool = False


_CONFIG = {
    "hostname": Field("--hostname", parse_text, "hostname"),
    "domainname": Field("--domainname", parse_text, "domainname"),
    "user": Field("--user", parse_user, "user"),
    "tty": Field("--tty", parse_boolean, "tty"),
    "stdin_open": Field("--interactive", parse_boolean, "open_stdin"),
    "environment": Field("--env", parse_environment, "env"),
    "entrypoint": Field("--entrypoint", split_words, "entrypoint"),
    "working_dir": Field("--workdir", parse_text, "working_dir"),
    "labels": Field("--label", parse_labels, "labels"),
    "expose": Field("--expose", parse_exposed, "exposed_ports"),
    "stop_signal": Field("--stop-signal", parse_stop_signal, "stop_signal"),
    "stop_timeout": Field("--stop-timeout", parse_stop_timeout, "stop_timeout"),
    "mac_address": Field("--mac-address", parse_mac, "mac_address"),
}
_HOST_CONFIG = {
    "network": Field("--network", parse_network_mode, "network_mode"),
    "network_mode": Field("--network", parse_network_mode, "network_mode"),
    "volumes": Field("--volume", parse_volumes, "mounts", collected=True),
    "mounts": Field("--mount", list_of(parse_mount), "mounts", collected=True),
    "tmpfs": Field("--tmpfs", parse_tmpfs_mounts, "mounts", collected=True),
    "ports": Field("--publish", parse_ports, "port_bindings"),
    "publish_all_ports": Field("--publish-all", parse_boolean, "publish_all_ports"),
    "auto_remove": Field("--rm", parse_boolean, "auto_remove"),
    "remove": Field("--rm", parse_boolean, "auto_remove"),
    "privileged": Field("--privileged", parse_boolean, "privileged"),
    "read_only": Field("--read-only", parse_boolean, "readonly_rootfs"),
    "cap_add": Field("--cap-add", list_of(parse_text), "cap_add"),
    "cap_drop": Field("--cap-drop", list_of(parse_text), "cap_drop"),
    "security_opt": Field("--security-opt", list_of(parse_text), "security_opt"),
    "dns": Field("--dns", list_of(parse_address), "dns"),
    "dns_search": Field("--dns-search", list_of(parse_text), "dns_search"),
    "dns_opt": Field("--dns-option", list_of(parse_text), "dns_options"),
    "extra_hosts": Field("--add-host", parse_extra_hosts, "extra_hosts"),
    "group_add": Field("--group-add", list_of(parse_group), "group_add"),
    "sysctls": Field("--sysctl", parse_sysctls, "sysctls"),
    "ulimits": Field("--ulimit", list_of(parse_ulimit), "ulimits"),
    "devices": Field("--device", list_of(parse_device), "devices"),
    "shm_size": Field("--shm-size", parse_size, "shm_size"),
    "oom_score_adj": Field("--oom-score-adj", parse_oom_score_adj, "oom_score_adj"),
    "mem_limit": Field("--memory", parse_size, "memory"),
    "memswap_limit": Field("--memory-swap", parse_swap, "memory_swap"),
    "mem_reservation": Field("--memory-reservation", parse_size, "memory_reservation"),
    "cpus": Field("--cpus", parse_cpus, "nano_cpus"),
    "nano_cpus": Field("--cpus (nano_cpus)", parse_integer, "nano_cpus"),
    "cpu_shares": Field("--cpu-shares", number_of("shares"), "cpu_shares"),
    "cpu_period": Field("--cpu-period", number_of("microseconds"), "cpu_period"),
    "cpu_quota": Field("--cpu-quota", number_of("microseconds"), "cpu_quota"),
    "cpuset_cpus": Field("--cpuset-cpus", parse_text, "cpuset_cpus"),
    "cpuset_mems": Field("--cpuset-mems", parse_text, "cpuset_mems"),
    "pids_limit": Field("--pids-limit", number_of("processes"), "pids_limit"),
    "cgroup_parent": Field("--cgroup-parent", parse_text, "cgroup_parent"),
    "pid_mode": Field("--pid", parse_text, "pid_mode"),
    "ipc_mode": Field("--ipc", parse_text, "ipc_mode"),
    "uts_mode": Field("--uts", parse_text, "uts_mode"),
    "rootfs": Field("--rootfs", parse_text, "rootfs"),
    "ip": Field("--ip", parse_ipv4, "ip_address"),
    "log_config": Field("log_config", parse_log_config, "log_config"),
}
# Known to docker-py, not to this engine: refused when given a value, with what to do instead.
# fmt: off
_REFUSED = dict.fromkeys(
    (
        "blkio_weight", "blkio_weight_device", "cgroupns", "cpu_count", "cpu_percent",
        "cpu_rt_period", "cpu_rt_runtime", "device_cgroup_rules", "device_read_bps",
        "device_read_iops", "device_requests", "device_write_bps", "device_write_iops",
        "healthcheck", "init_path", "isolation", "kernel_memory", "lxc_conf",
        "mem_swappiness", "networking_config", "oom_kill_disable", "platform", "runtime",
        "storage_opt", "use_config_proxy", "userns_mode", "version", "volume_driver",
    ),
    "not available",
) | {
    "init": "not available yet: name an init as the --entrypoint",
    "links": "not available: use --add-host, or --network container:NAME",
    "network_disabled": "not available: use --network none",
    "volumes_from": "not available: name the same --volume paths",
}
# fmt: on
# None means "not given" for all keywords; for these so does anything empty, as in docker-py.
_MODES = ("network", "network_mode", "ipc_mode", "shm_size")


def build_configs(
    image: Any = "", command: str | Sequence[str] | None = None, **options: Any
) -> tuple[Config, HostConfig]:
    """The configuration of a container from docker-py's keywords and their values.

    `image`: a name, or an object with an `id`; `command`: words, or a text split as a shell would.
    Raises InvalidParameter naming the option of the command line and what it accepts, TypeError for
    a keyword that does not exist.
    """
    detach = parse_boolean(options.pop("detach", False), "--detach")
    _check_keywords(options)
    config = _collect(_CONFIG, options)
    host_config = _collect(_HOST_CONFIG, options)
    published = tuple(port for port, _ in host_config.get("port_bindings", ()))
    config["exposed_ports"] = tuple(dict.fromkeys((*config.get("exposed_ports", ()), *published)))
    interactive = config.get("open_stdin", False) and not detach
    return (
        Config(
            image=_image_name(image),
            cmd=split_words(command, "command"),
            attach_stdin=interactive,
            attach_stdout=not detach,
            attach_stderr=not detach,
            stdin_once=interactive,
            **config,
        ),
        HostConfig(**host_config),
    )


def _image_name(image: Any) -> str:
    name = image if image is None else getattr(image, "id", image)
    return parse_text(name, "image")


def _check_keywords(options: Mapping[str, Any]) -> None:
    for keyword, value in options.items():
        if keyword in _CONFIG or keyword in _HOST_CONFIG:
            continue
        if keyword == "restart_policy":
            parse_restart(value)
        elif keyword not in _REFUSED:
            raise TypeError(f"create() got an unexpected keyword argument {keyword!r}")
        elif value:
            raise InvalidParameter(f"{keyword} {value!r} : {_REFUSED[keyword]}")
    if options.get("network") and options.get("network_mode"):
        raise InvalidParameter("--network : give either network or network_mode, not both")


def _collect(table: Mapping[str, Field], options: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword, value in options.items():
        field = table.get(keyword)
        if field is None or value is None or (keyword in _MODES and value in ("", 0)):
            continue
        parsed = field.parser(value, field.option)
        if field.collected:
            found[field.name] = (*found.get(field.name, ()), *parsed)
        else:
            found[field.name] = parsed
    return found


__all__ = [
    "PortBinding",
    "build_configs",
    "merge_bindings",
    "parse_add_host",
    "parse_address",
    "parse_boolean",
    "parse_cpus",
    "parse_device",
    "parse_env",
    "parse_env_file",
    "parse_environment",
    "parse_integer",
    "parse_ipv4",
    "parse_label",
    "parse_mac",
    "parse_mount",
    "parse_network_mode",
    "parse_restart",
    "parse_signal",
    "parse_size",
    "parse_stop_timeout",
    "parse_sysctl",
    "parse_tmpfs",
    "parse_ulimit",
    "parse_user",
    "parse_volume",
    "refuse",
    "split_words",
    "validate_name",
]
