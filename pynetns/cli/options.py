"""Options of the command line: declared as rows, read as docker reads them.

Owns: the syntax (`-it`, `-p8080:80`, `--name=x`, `--rm=false`, `--`), usage errors and help text.
Knows nothing of what an option means: values stay text, only flags become bool. argparse is not
used: it abbreviates, reads "-1" as an option, cannot stop at the first argument, and costs start-up
time. Source: `docker --help`; the behaviour of spf13/pflag.
"""

from __future__ import annotations

from ..errors import InvalidParameter
from ..model.suggest import did_you_mean

TYPE_CHECKING = False  # typing itself is not imported: half the time of `pynetns version`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Values = dict[str, Any]

_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class Option:
    """One option. `names` as typed ("-e --env"), `dest` its key among the values; `metavar` ""
    makes it a flag; `many` collects every occurrence in a list."""

    __slots__ = ("dest", "help", "many", "metavar", "names")

    def __init__(
        self, names: str, dest: str, metavar: str, help: str, *, many: bool = False
    ) -> None:
        self.names = tuple(names.split())
        self.dest, self.metavar, self.help, self.many = dest, metavar, help, many


class Command:
    """One verb. `usage` is what follows its name; `arguments` (least, most) how many words, most -1
    without limit. `stop_early`: everything from the first word on is words (run, exec)."""

    __slots__ = ("arguments", "options", "run", "stop_early", "summary", "usage")

    def __init__(
        self,
        run: Callable[..., int],
        usage: str,
        summary: str,
        options: Iterable[Option] = (),
        *,
        arguments: tuple[int, int] = (0, 0),
        stop_early: bool = False,
    ) -> None:
        self.run, self.usage, self.summary = run, usage, summary
        self.options = (*options, HELP)
        self.arguments, self.stop_early = arguments, stop_early


HELP = Option("-h --help", "help", "", "Print usage")


class UsageError(InvalidParameter):
    """The command line itself is wrong."""


def parse_options(
    options: Sequence[Option], words: Sequence[str], *, stop_early: bool
) -> tuple[Values, list[str]]:
    """(values by dest, the other words). Options not given are absent. UsageError."""
    table: dict[str, Option] = {}
    for option in options:  # the first owner of a name keeps it: run's -h is the host name
        for name in option.names:
            table.setdefault(name, option)
    values: Values = {}
    rest: list[str] = []
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        if word == "--":
            rest += reversed(queue)
            break
        if word.startswith("--"):
            _read_long(table, word, queue, values)
        elif word.startswith("-") and len(word) > 1:
            _read_short(table, word, queue, values)
        else:
            rest.append(word)
            if stop_early:
                rest += reversed(queue)
                break
    return values, rest


def _read_long(table: dict[str, Option], word: str, queue: list[str], values: Values) -> None:
    name, equals, value = word.partition("=")
    option = _find(table, name)
    if not option.metavar:
        _store(option, _boolean(name, value) if equals else True, values)
    else:
        _store(option, value if equals else _next(name, queue), values)


def _read_short(table: dict[str, Option], word: str, queue: list[str], values: Values) -> None:
    """A cluster of one-letter options; the first that takes a value takes what is left."""
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _find(table, name)
        if option.metavar:
            _store(option, letters.removeprefix("=") if letters else _next(name, queue), values)
            return
        if letters.startswith("="):
            _store(option, _boolean(name, letters[1:]), values)
            return
        _store(option, True, values)


def _find(table: dict[str, Option], name: str) -> Option:
    option = table.get(name)
    if option is None:
        raise UsageError(f"{name} : unknown option{did_you_mean(name, table)}, see --help")
    return option


def _next(name: str, queue: list[str]) -> str:
    if not queue:
        raise UsageError(f"{name} : needs a value")
    return queue.pop()


def _boolean(name: str, text: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise UsageError(f"{name} {text!r} : must be true or false")
    return value


def _store(option: Option, value: Any, values: Values) -> None:
    if option.many:
        values.setdefault(option.dest, []).append(value)
    else:
        values[option.dest] = value


def check_arguments(command: Command, verb: str, words: Sequence[str]) -> None:
    """Raise UsageError when there are too few or too many words."""
    least, most = command.arguments
    if least <= len(words) and (most < 0 or len(words) <= most):
        return
    if least == most:
        wanted = f"{least or 'no'} argument{'' if least == 1 else 's'}"
    elif most < 0:
        wanted = f"at least {least} argument{'' if least == 1 else 's'}"
    else:
        wanted = f"{least} to {most} arguments"
    raise UsageError(f"{verb} : takes {wanted}, see pynetns {verb} --help")


def help_text(head: str, summary: str, options: Sequence[Option]) -> str:
    """Usage line, summary, one line an option."""
    taken: set[str] = set()
    rows = []
    for option in options:
        names = [name for name in option.names if name not in taken]
        taken.update(names)
        if not names:
            continue
        indent = "" if len(names[0]) == 2 else "    "
        rows.append((f"{indent}{', '.join(names)} {option.metavar}".rstrip(), option.help))
    width = min(38, max(len(left) for left, _ in rows))
    lines = [f"Usage:  {head}", "", summary, "", "Options:"]
    lines += [f"  {left:<{width}}   {right}" for left, right in rows]
    return "\n".join(lines) + "\n"
