"""`exec`: one more program in a running container, in the foreground or not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .options import Command, Option

if TYPE_CHECKING:
    from ..engine.verbs.exec import Exec
    from .main import Context
    from .options import Values


def exec_(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns exec`; the program's exit code."""
    from ..model.parse import parse_env, parse_user
    from ..streams.terminal import DETACH_KEYS
    from .session import Session

    name, *command = words
    entries = (parse_env(entry, environ=os.environ) for entry in values.get("env", ()))
    environment = [entry for entry in entries if entry is not None]
    user = parse_user(values.get("user"))
    container = context.engine.containers.get(name)
    tty, privileged = values.get("tty", False), values.get("privileged", False)
    workdir = values.get("workdir", "")
    if values.get("detach"):
        container.exec_start(
            command, tty=tty, environment=environment, workdir=workdir, user=user,
            privileged=privileged, detach=True,
        )  # fmt: skip
        return 0
    running: list[Exec] = []
    session = Session(
        tty=tty,
        stdin=values.get("interactive", False),
        resize=lambda rows, columns: running[0].resize(rows, columns),
        detach_keys=values.get("detach_keys", DETACH_KEYS),
    )
    with session:
        process = container.exec_start(
            command, tty=tty, stdin=values.get("interactive", False), environment=environment,
            workdir=workdir, user=user, privileged=privileged, attach=session.attach,
            winsize=session.window_size() if tty else (0, 0),
        )  # fmt: skip
        running.append(process)
        with process.ending() as ended:
            if session.run(ended):
                return 0
        return session.wait(process.wait)


COMMANDS = {
    "exec": Command(
        exec_,
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
        (
            Option("-d --detach", "detach", "", "Run it in the background"),
            Option("-i --interactive", "interactive", "", "Forward our standard input"),
            Option("-t --tty", "tty", "", "Give it a terminal"),
            Option("-e --env", "env", "NAME=VALUE", "Set a variable", many=True),
            Option("-w --workdir", "workdir", "DIR", "Working directory"),
            Option("-u --user", "user", "USER[:GROUP]", "User, by name or number"),
            Option("--privileged", "privileged", "", "All capabilities, no confinement"),
            Option("--detach-keys", "detach_keys", "KEYS", "Keys that detach"),
        ),
        arguments=(2, -1),
        stop_early=True,
    ),
}
