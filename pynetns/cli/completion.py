"""`completion`: a shell script made from the same tables that parse the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import InvalidParameter
from .main import GLOBAL_OPTIONS, VERBS, command_of
from .options import Command, Option

if TYPE_CHECKING:
    from .main import Context
    from .options import Values

# What the words of a verb name; the completion asks the engine for them.
_NAMES = {
    "start": "ps -a", "stop": "ps", "kill": "ps", "rm": "ps -a", "wait": "ps", "logs": "ps -a",
    "inspect": "ps -a", "exec": "ps", "run": "images", "create": "images", "rmi": "images",
}  # fmt: skip
_TEMPLATES = {"ps": "{{.Names}}", "images": "{{.Repository}}:{{.Tag}}"}

_SCRIPT = """\
# bash completion of pynetns; load it with: source <(pynetns completion bash)
_pynetns() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" verb="" at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${{COMP_WORDS[at]}}" in
            {valued}) ((at++)) ;;
            -*) ;;
            *) verb="${{COMP_WORDS[at]}}"; break ;;
        esac
    done
    local options names=""
    case "$verb" in
        "") options="{top}"; names="{verbs}" ;;
{cases}
    esac
    if [[ "$word" == -* ]]; then names="$options"; fi
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -F _pynetns pynetns
"""


def completion(context: Context, values: Values, words: list[str]) -> int:
    """`pynetns completion SHELL`."""
    if words[0] != "bash":
        raise InvalidParameter(f"completion {words[0]!r} : must be bash")
    print(bash_script(), end="")
    return 0


def bash_script() -> str:
    """The script."""
    cases = []
    for verb in VERBS:
        options = _option_names(command_of(verb).options)
        listing = _NAMES.get(verb)
        names = ""
        if listing:
            form = _TEMPLATES[listing.split()[0]]
            names = f" names=\"$(pynetns {listing} --format '{form}' 2>/dev/null)\";"
        cases.append(f'        {verb}) options="{options}";{names} ;;')
    valued = [name for option in GLOBAL_OPTIONS if option.metavar for name in option.names]
    return _SCRIPT.format(
        top=_option_names(GLOBAL_OPTIONS),
        verbs=" ".join(VERBS),
        valued="|".join(valued),
        cases="\n".join(cases),
    )


def _option_names(options: Iterable[Option]) -> str:
    return " ".join(dict.fromkeys(name for option in options for name in option.names))


COMMANDS = {
    "completion": Command(
        completion, "bash", "Print a completion script for the shell", arguments=(1, 1)
    ),
}
