"""`start`, `stop`, `kill`, `rm`, `wait`: one engine call for each container named.

Owns: their options and output. A failure is reported and the other containers still get their turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Conflict
from .main import for_each
from .options import Command, Option, UsageError

if TYPE_CHECKING:
    from .main import Context
    from .options import Values


def start(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns start`; with --attach the container's exit code."""
    if values.get("attach") or values.get("interactive"):
        return start_attached(context, values, names)

    def act(name: str) -> None:
        context.engine.containers.get(name).start()
        print(name)

    return for_each(context, "start", names, act)


def start_attached(context: Context, values: Values, names: list[str]) -> int:
    """Start one container in the foreground."""
    from ..streams.terminal import DETACH_KEYS
    from .create import signal_container
    from .session import Session

    if len(names) != 1:
        raise UsageError("--attach : only one container can be attached to at a time")
    container = context.engine.containers.get(names[0])
    if container.status == "running":
        raise Conflict(f"--attach : container {container.name} is already {container.status}")
    config = container.attrs["Config"]
    session = Session(
        tty=config["Tty"],
        stdin=values.get("interactive", False) and config["OpenStdin"],
        forward=(lambda number: signal_container(container, number))
        if values.get("sig_proxy", True)
        else None,
        resize=container.resize,
        detach_keys=values.get("detach_keys", DETACH_KEYS),
    )
    with session:
        container.start(attach=session.attach)
        if session.run():
            return 0
        return session.wait(lambda: container.wait()["StatusCode"])


def stop(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns stop`."""
    from ..model.parse import parse_stop_timeout

    timeout = parse_stop_timeout(values.get("time"), "--time")

    def act(name: str) -> None:
        context.engine.containers.get(name).stop(timeout=timeout)
        print(name)

    return for_each(context, "stop", names, act)


def kill(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns kill`."""
    from ..model.parse import parse_signal

    number = parse_signal(values.get("signal", "SIGKILL"))

    def act(name: str) -> None:
        context.engine.containers.get(name).kill(number)
        print(name)

    return for_each(context, "kill", names, act)


def rm(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns rm`."""

    def act(name: str) -> None:
        context.engine.containers.get(name).remove(force=values.get("force", False))
        print(name)

    return for_each(context, "rm", names, act)


def wait(context: Context, values: Values, names: list[str]) -> int:
    """`pynetns wait`: prints the exit codes."""

    def act(name: str) -> None:
        print(context.engine.containers.get(name).wait()["StatusCode"], flush=True)

    return for_each(context, "wait", names, act)


_SOME = "CONTAINER [CONTAINER...]"
COMMANDS = {
    "start": Command(
        start,
        f"[OPTIONS] {_SOME}",
        "Start containers that do not run",
        (
            Option("-a --attach", "attach", "", "Show its output, forward signals"),
            Option("-i --interactive", "interactive", "", "Attach our standard input too"),
            Option("--sig-proxy", "sig_proxy", "", "Forward signals (default true)"),
            Option("--detach-keys", "detach_keys", "KEYS", "Keys that detach"),
        ),
        arguments=(1, -1),
    ),
    "stop": Command(
        stop,
        f"[OPTIONS] {_SOME}",
        "Stop running containers",
        (Option("-t --time --timeout", "time", "SECONDS", "How long to wait before SIGKILL"),),
        arguments=(1, -1),
    ),
    "kill": Command(
        kill,
        f"[OPTIONS] {_SOME}",
        "Send a signal to running containers",
        (Option("-s --signal", "signal", "SIGNAL", "Which signal (default SIGKILL)"),),
        arguments=(1, -1),
    ),
    "rm": Command(
        rm,
        f"[OPTIONS] {_SOME}",
        "Remove containers",
        (Option("-f --force", "force", "", "Kill those that run"),),
        arguments=(1, -1),
    ),
    "wait": Command(
        wait, _SOME, "Wait until containers have ended, print their exit codes", arguments=(1, -1)
    ),
}
