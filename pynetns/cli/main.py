"""The command line's entry: global options, the table of verbs, errors to exit codes.

Owns: which verbs there are, and the one place that turns a failure into a line and an exit code.
A verb's module is imported when the verb is used, the engine when the verb needs it.
"""

from __future__ import annotations

import os
import sys

from ..errors import InvalidParameter, PynetnsError
from ..model.suggest import did_you_mean
from .options import (
    HELP,
    Command,
    Option,
    UsageError,
    check_arguments,
    help_text,
    parse_options,
)
from .stdio import OutputError, complain, set_up

TYPE_CHECKING = False  # typing itself is not imported, see options.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from ..client.engine import Engine
    from .options import Values

# verb -> the module beside this one whose COMMANDS has it
VERBS = {
    "run": "create",
    "create": "create",
    "start": "lifecycle",
    "stop": "lifecycle",
    "kill": "lifecycle",
    "rm": "lifecycle",
    "wait": "lifecycle",
    "ps": "listing",
    "logs": "logs",
    "inspect": "listing",
    "exec": "exec",
    "images": "images",
    "import": "images",
    "rmi": "images",
    "info": "system",
    "version": "system",
    "doctor": "system",
    "gc": "system",
    "completion": "completion",
}

# docker's verbs that there are not, and what to do instead
ABSENT = {
    "pull": "images are imported (pynetns import FILE|DIR NAME), or image host is used",
    "load": "it takes an image's layers; a root file system is imported (pynetns import)",
    "build": "make a directory or an archive and import it (pynetns import)",
    "save": "images are directories below --root",
    "network": "containers are on the network bridge, host or none, or on another's (run --network)",
    "volume": "directories of the host are mounted (run -v /HOST:/CONTAINER)",
    "restart": "pynetns stop, then pynetns start",
    "attach": "run it in the foreground, or start -a; what it has written: pynetns logs -f",
    "top": "pynetns exec NAME ps",
    "stats": "see the container's cgroup (pynetns info has the layout)",
    "cp": "mount a directory (run -v), or pynetns exec NAME tar",
    "system": "pynetns info, pynetns gc",
    "container": "pynetns ps, run, rm and so on stand alone",
    "image": "pynetns images, import and rmi stand alone",
    "compose": "one container is started at a time",
}

GLOBAL_OPTIONS = (
    Option("--root", "root", "DIR", "Durable state (default /var/lib/pynetns, or $PYNETNS_ROOT)"),
    Option("--exec-root", "exec_root", "DIR", "What a reboot voids (default /run/pynetns)"),
    Option("--bridge", "bridge", "NAME", "The bridge device (default pynetns0)"),
    Option("--bip", "bip", "CIDR", "The bridge's address, e.g. 172.30.0.1/16"),
    Option("--mtu", "mtu", "BYTES", "Largest packet on the bridge (default 1500)"),
    Option("--dns", "dns", "ADDRESS", "Name server of containers that name none", many=True),
    Option("--dns-search", "dns_search", "DOMAIN", "Likewise, a search domain", many=True),
    Option("--dns-opt", "dns_options", "OPTION", "Likewise, an option of resolv.conf", many=True),
    Option("--log-driver", "log_driver", "DRIVER", "Likewise, the log driver (default json-file)"),
    Option("--log-opt", "log_opts", "NAME=VALUE", "Likewise, an option of it", many=True),
    Option("--config-file", "config_file", "FILE", "Defaults (/etc/pynetns/daemon.json)"),
    Option("--debug", "debug", "", "Log every step, and a traceback with an error"),
    Option("-v --version", "version", "", "Print the version"),
    HELP,
)

RUN_ERROR = 125  # docker's code for "it was not the container that failed", and for bad usage
ENGINE_ERROR = 1  # of every other verb
_LONGEST = 4000  # characters of a message: it may quote what the user gave
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE
STARTING = ("run", "create", "start")  # whose error a bad configuration is
ATTACHED = ("run", "start", "exec")  # a program goes on when our reader has gone: docker says so


class Context:
    """What a verb is given: the global options, and the engine once it is asked for."""

    def __init__(self, options: Values, open_engine: Callable[..., Any] | None = None) -> None:
        self.options = options
        self._open_engine = open_engine
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine of --root and --exec-root, opened at the first use."""
        if self._engine is None:
            if self._open_engine is None:
                from ..client.engine import Engine

                self._open_engine = Engine
            given = {k: v for k, v in self.options.items() if k in _ENGINE_OPTIONS}
            if "log_opts" in given:
                from ..model.log_config import parse_log_opts

                given["log_opts"] = parse_log_opts(given["log_opts"])
            self._engine = self._open_engine(**given)
        return self._engine

    def tell_configuration(self) -> None:
        """Say, beside what a verb has done, that the configuration is bad, where an engine met it."""
        error = getattr(self._engine, "bad_configuration", None)
        if error is not None:
            complain(f"pynetns: {error} (until it is mended nothing is created or started)")

    def close(self) -> None:
        """Close the engine, if one was opened."""
        if self._engine is not None:
            self._engine.close()


_ENGINE_OPTIONS = frozenset(
    "root exec_root config_file bridge bip mtu dns dns_search dns_options log_driver log_opts".split()
)


def command_of(verb: str) -> Command:
    """A verb's command; its module is imported."""
    from importlib import import_module

    module = import_module(f".{VERBS[verb]}", __package__)
    command: Command = module.COMMANDS[verb]
    return command


def entry() -> NoReturn:
    """The console script."""
    set_up()
    sys.exit(main(sys.argv[1:]))


def main(words: Sequence[str], open_engine: Callable[..., Any] | None = None) -> int:
    """Run one command line; its exit code. `open_engine` replaces Engine (tests)."""
    options: Values = {}
    verb = "command"
    try:
        given, rest = parse_options(GLOBAL_OPTIONS, words, stop_early=True)
        options.update(given)
        verb = rest[0] if rest else verb
        code = _dispatch(options, rest, open_engine)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read us has gone; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OutputError as error:
        if error.reader_gone and verb not in ATTACHED:
            return BROKEN_PIPE
        complain(f"pynetns: {error}")
        return ENGINE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if options.get("debug"):
            import traceback

            traceback.print_exc()
        return report(error, verb)


def _dispatch(options: Values, rest: list[str], open_engine: Callable[..., Any] | None) -> int:
    if options.get("version"):
        return _print_version()
    if options.get("help") or not rest:
        sys.stdout.write(general_help())
        return 0
    verb, *arguments = rest
    if verb not in VERBS:
        why = did_you_mean(verb, VERBS) if verb not in ABSENT else f": {ABSENT[verb]}"
        raise UsageError(f"{verb} : no such command{why}, see pynetns --help")
    command = command_of(verb)
    values, arguments = parse_options(command.options, arguments, stop_early=command.stop_early)
    if values.pop("help", False):
        head = f"pynetns {verb} {command.usage}"
        sys.stdout.write(help_text(head, command.summary, command.options))
        return 0
    check_arguments(command, verb, arguments)
    if options.get("debug"):
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    context = Context(options, open_engine)
    try:
        code = command.run(context, values, arguments)
        if verb not in STARTING:
            context.tell_configuration()
        return code
    finally:
        context.close()


def _print_version() -> int:
    from .. import __version__

    print(f"pynetns version {__version__}")
    return 0


def general_help() -> str:
    """The help of the program itself: its verbs and global options."""
    text = help_text(
        "pynetns [OPTIONS] COMMAND",
        "Start Linux containers at the kernel's own pace.",
        GLOBAL_OPTIONS,
    )
    lines = [f"  {verb:<12}{command_of(verb).summary}" for verb in VERBS]
    more = "Run 'pynetns COMMAND --help' for more about a command.\n"
    return f"{text}\nCommands:\n" + "\n".join(lines) + f"\n\n{more}"


def report(error: BaseException, verb: str) -> int:
    """One line on stderr for a failure; the exit code that belongs to it."""
    message = " ".join(_message(error).split())
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}…"
    if " : " not in message:
        message = f"{verb} : {message}"
    complain(f"pynetns: {message}")
    code = getattr(error, "exit_code", 0)
    if code in (126, 127) and verb in ("run", "exec"):
        return int(code)
    if isinstance(error, OutputError):
        return ENGINE_ERROR
    usage = isinstance(error, InvalidParameter)
    return RUN_ERROR if verb == "run" or usage else ENGINE_ERROR


def _message(error: BaseException) -> str:
    if isinstance(error, PynetnsError):
        return str(error)
    if isinstance(error, OSError):
        what = f"{error.filename} : " if error.filename else ""
        return f"{what}{error.strerror or error}"
    return f"internal error, {type(error).__name__}: {error} (--debug shows where)"


def for_each(context: Context, verb: str, names: Sequence[str], act: Callable[[str], None]) -> int:
    """Do `act` for every name; report each failure and go on. The exit code of the last one."""
    code = 0
    for name in names:
        try:
            act(name)
        except PynetnsError as error:
            code = report(error, verb)
    return code
