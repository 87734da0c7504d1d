"""The command line's entry: global options, the table of verbs, errors to exit codes.

Owns: which verbs there are, and the one place that turns a failure into a line and an exit code.
A verb's module is imported when the verb is used, the engine when the verb needs it.
"""

from __future__ import annotations

import os
import sys

from ..errors import InvalidParameter, PynetnsError
from .options import (
    HELP,
    Command,
    Option,
    UsageError,
    check_arguments,
    did_you_mean,
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

GLOBAL_OPTIONS = (
    Option("--root", "root", "DIR", "Durable state (default /var/lib/pynetns, or $PYNETNS_ROOT)"),
    Option("--exec-root", "exec_root", "DIR", "What a reboot voids (default /run/pynetns)"),
    Option("--bridge", "bridge", "NAME", "The bridge device (default pynetns0)"),
    Option("--bip", "bip", "CIDR", "The bridge's address, e.g. 172.30.0.1/16"),
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
            self._engine = self._open_engine(**given)
        return self._engine

    def close(self) -> None:
        """Close the engine, if one was opened."""
        if self._engine is not None:
            self._engine.close()


_ENGINE_OPTIONS = ("root", "exec_root", "bridge", "bip", "config_file")


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
        raise UsageError(f"{verb} : no such command{did_you_mean(verb, VERBS)}, see pynetns --help")
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
        return command.run(context, values, arguments)
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
