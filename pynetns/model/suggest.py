"""What somebody may have meant who typed a word that is not known. Pure."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself is not imported: the command line starts with this
if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean X?)" for a word that is nearly a known one, else ""."""
    from difflib import get_close_matches

    names = {name.lstrip("-"): name for name in known}
    word = word.lstrip("-")
    if not 1 < len(word) < 40:
        return ""  # a letter resembles many; comparing a long one takes quadratic time
    found = get_close_matches(word, names, n=1, cutoff=0.65)
    return f" (did you mean {names[found[0]]}?)" if found else ""
