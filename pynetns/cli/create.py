"""`run` and `create`: the options of a container as rows, each under the engine's keyword for it.

Owns: the option table and what only the command line has (env files, cidfile, trace). Values go to
the engine as text; model/parse.py reads them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import Conflict, InvalidParameter, NotFound
from .options import Command, Option, UsageError
from .stdio import OutputError

if TYPE_CHECKING:
    from ..client.containers import Container
    from .main import Context
    from .options import Values

# dest is the keyword of engine.containers.create, except for those in _OWN
CREATE_OPTIONS = (
    Option("--name", "name", "NAME", "Name of the container"),
    Option("-i --interactive", "stdin_open", "", "Keep its standard input open"),
    Option("-t --tty", "tty", "", "Give it a terminal"),
    Option("--rm", "auto_remove", "", "Remove it when it ends"),
    Option("-e --env", "env", "NAME=VALUE", "Set a variable; NAME alone takes ours", many=True),
    Option("--env-file", "env_file", "FILE", "Read variables from a file", many=True),
    Option("-w --workdir", "working_dir", "DIR", "Working directory"),
    Option("-u --user", "user", "USER[:GROUP]", "User, by name or number"),
    Option("-h --hostname", "hostname", "NAME", "Host name"),
    Option("--domainname", "domainname", "NAME", "Domain name"),
    Option("--entrypoint", "entrypoint", "PROGRAM", "Replace the image's entry point"),
    Option("-l --label", "labels", "KEY=VALUE", "Set a label", many=True),
    Option("-p --publish", "ports", "[[IP:]PORT:]PORT", "Publish a port", many=True),
    Option("-P --publish-all", "publish_all_ports", "", "Publish every exposed port"),
    Option("--expose", "expose", "PORT", "Expose a port or a range", many=True),
    Option("--network --net", "network", "NETWORK", "bridge, none, host or container:NAME"),
    Option("--ip", "ip", "ADDRESS", "IPv4 address on that network"),
    Option("--mac-address", "mac_address", "MAC", "MAC address"),
    Option("--dns", "dns", "ADDRESS", "Name server", many=True),
    Option("--dns-search", "dns_search", "DOMAIN", "Search domain", many=True),
    Option("--dns-option --dns-opt", "dns_opt", "OPTION", "Resolver option", many=True),
    Option("--add-host", "extra_hosts", "NAME:ADDRESS", "Add a line to /etc/hosts", many=True),
    Option("-v --volume", "volumes", "HOST:PATH[:ro]", "Bind mount a host path", many=True),
    Option("--mount", "mounts", "type=…,target=…", "Mount a bind or a tmpfs", many=True),
    Option("--tmpfs", "tmpfs", "PATH[:OPTIONS]", "Mount a tmpfs", many=True),
    Option("--read-only", "read_only", "", "Make the root file system read-only"),
    Option("--rootfs", "rootfs", "DIR", "Use a directory, copy-on-write, instead of an image"),
    Option("--shm-size", "shm_size", "SIZE", "Size of /dev/shm (default 64m)"),
    Option("-m --memory", "mem_limit", "SIZE", "Memory limit"),
    Option("--memory-swap", "memswap_limit", "SIZE", "Memory and swap together, -1 unlimited"),
    Option("--memory-reservation", "mem_reservation", "SIZE", "Soft memory limit"),
    Option("--cpus", "cpus", "NUMBER", "CPUs it may use, e.g. 1.5"),
    Option("-c --cpu-shares", "cpu_shares", "WEIGHT", "Relative CPU weight"),
    Option("--cpu-period", "cpu_period", "MICROSECONDS", "CFS period"),
    Option("--cpu-quota", "cpu_quota", "MICROSECONDS", "CFS quota"),
    Option("--cpuset-cpus", "cpuset_cpus", "LIST", "CPUs it may run on, e.g. 0-2,4"),
    Option("--cpuset-mems", "cpuset_mems", "LIST", "Memory nodes it may use"),
    Option("--pids-limit", "pids_limit", "NUMBER", "How many processes it may have"),
    Option("--ulimit", "ulimits", "NAME=SOFT[:HARD]", "Resource limit", many=True),
    Option("--cap-add", "cap_add", "NAME", "Add a capability", many=True),
    Option("--cap-drop", "cap_drop", "NAME", "Drop a capability", many=True),
    Option("--privileged", "privileged", "", "All capabilities and devices, no confinement"),
    Option("--security-opt", "security_opt", "OPTION", "Security option", many=True),
    Option("--sysctl", "sysctls", "NAME=VALUE", "Set a namespaced sysctl", many=True),
    Option("--device", "devices", "HOST[:PATH][:rwm]", "Give it a device", many=True),
    Option("--group-add", "group_add", "GROUP", "Add a supplementary group", many=True),
    Option("--oom-score-adj", "oom_score_adj", "NUMBER", "From -1000 to 1000"),
    Option("--pid", "pid_mode", "MODE", "PID namespace: host or container:NAME"),
    Option("--ipc", "ipc_mode", "MODE", "IPC: private, shareable, host, none, container:NAME"),
    Option("--uts", "uts_mode", "MODE", "UTS namespace: host"),
    Option("--cgroup-parent", "cgroup_parent", "PATH", "Parent cgroup"),
    Option("--stop-signal", "stop_signal", "SIGNAL", "Signal that stops it"),
    Option("--stop-timeout", "stop_timeout", "SECONDS", "How long to wait before SIGKILL"),
    Option("--restart", "restart_policy", "POLICY", "Restart policy: no"),
    Option("--log-driver", "log_driver", "DRIVER", "Where output goes: json-file, local or none"),
    Option("--log-opt", "log_opts", "NAME=VALUE", "Option of the log driver", many=True),
    Option("--cidfile", "cidfile", "FILE", "Write the container's id to a file"),
)
RUN_OPTIONS = (
    Option("-d --detach", "detach", "", "Run in the background and print the id"),
    Option("--detach-keys", "detach_keys", "KEYS", "Keys that detach (default ctrl-p,ctrl-q)"),
    Option("--sig-proxy", "sig_proxy", "", "Forward signals (default true)"),
    Option("--trace", "trace", "FILE", "Write the steps of the start as Chrome trace JSON"),
    *CREATE_OPTIONS,
)
_OWN = ("env", "env_file", "cidfile", "detach_keys", "sig_proxy", "trace", "log_driver", "log_opts")


def keywords(values: Values) -> dict[str, Any]:
    """The options as keywords of `containers.create`. Reads environment and --env-file."""
    from ..model.log_config import parse_log_opts
    from ..model.parse import parse_env, parse_env_file, parse_restart

    found = {name: value for name, value in values.items() if name not in _OWN}
    environment: list[str] = []
    for path in values.get("env_file", ()):
        environment += parse_env_file(_read(path), f"--env-file {path}", os.environ)
    for entry in values.get("env", ()):
        variable = parse_env(entry, environ=os.environ)
        if variable is not None:
            environment.append(variable)
    if environment:
        found["environment"] = environment
    if "entrypoint" in found:
        found["entrypoint"] = [found["entrypoint"]]
    _make_absolute(found)
    if "rootfs" in found:
        found["rootfs"] = os.path.abspath(found["rootfs"])
    parse_restart(found.pop("restart_policy", None))
    if "log_driver" in values or "log_opts" in values:
        options = parse_log_opts(values.get("log_opts", ()))
        found["log_config"] = {"Type": values.get("log_driver", ""), "Config": options}
    return found


def _make_absolute(found: dict[str, Any]) -> None:
    """Sources such as ./data start from where the command is given; the engine has no such place."""
    from ..model.parse import parse_mount, parse_volume

    for name, parse in (("volumes", parse_volume), ("mounts", parse_mount)):
        if name in found:
            found[name] = [parse(entry, absolute=os.path.abspath) for entry in found[name]]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise InvalidParameter(f"--env-file {path} : {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidParameter(f"--env-file {path} : is not UTF-8 text") from error


def create_container(context: Context, values: Values, words: list[str]) -> Container:
    """The container that the command line describes, created."""
    if "rootfs" in values:
        image, command = "", words
    elif words:
        image, *command = words
    else:
        raise UsageError("image : name one, e.g. host, or give --rootfs DIR")
    options = keywords(values)
    with cidfile(values.get("cidfile")) as write:
        container = context.engine.containers.create(image, command or None, **options)
        write(container.id)
    return container


@contextmanager
def cidfile(path: str | None) -> Iterator[Any]:
    """A function that writes the id; the file is claimed before anything else is made."""
    if path is None:
        yield lambda container_id: None
        return
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InvalidParameter(f"--cidfile {path} : {error.strerror}") from error
    try:
        yield lambda container_id: os.write(fd, container_id.encode())
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


@contextmanager
def traced(path: str | None) -> Iterator[None]:
    """Write the steps taken inside to a file, also when they fail."""
    if path is None:
        yield
        return
    from ..trace import Recorder

    try:
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InvalidParameter(f"--trace {path} : {error.strerror}") from error
    with file, Recorder() as recorder:
        try:
            yield
        finally:
            file.write(recorder.chrome_json())


def create(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns create`."""
    show_id(create_container(context, values, words).id, "was created")
    return 0


def show_id(container_id: str, done: str) -> None:
    """Print an id; where that fails the error says what was done all the same."""
    print(container_id)
    try:
        sys.stdout.flush()
    except OutputError as error:
        raise OutputError(error.errno, f"container {container_id} {done}") from error


def run(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns run`; the container's exit code."""
    if values.get("detach"):
        with traced(values.get("trace")):
            container = create_container(context, values, words)
            container.start()
        show_id(container.id, "was started")
        return 0
    return run_attached(context, values, words)


def run_attached(context: Context, values: Values, words: list[str]) -> int:
    """Create, attach, start; copy until it ends."""
    from ..streams.terminal import DETACH_KEYS
    from .session import Session

    started: list[Container] = []
    session = Session(
        tty=values.get("tty", False),
        stdin=values.get("stdin_open", False),
        forward=(lambda number: signal_container(started[0], number))
        if values.get("sig_proxy", True)
        else None,
        resize=lambda rows, columns: started[0].resize(rows, columns),
        detach_keys=values.get("detach_keys", DETACH_KEYS),
    )
    with session:
        with traced(values.get("trace")):
            container = create_container(context, values, words)
            started.append(container)
            container.start(attach=session.attach)
        if session.run():
            return 0
        return session.wait(lambda: container.wait()["StatusCode"])


def signal_container(container: Container, number: int) -> None:
    """Send a signal on; a container that has just ended needs none."""

    try:
        container.kill(number)
    except (Conflict, NotFound):
        return


COMMANDS = {
    "run": Command(
        run,
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and start a container",
        RUN_OPTIONS,
        arguments=(0, -1),
        stop_early=True,
    ),
    "create": Command(
        create,
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container",
        CREATE_OPTIONS,
        arguments=(0, -1),
        stop_early=True,
    ),
}
