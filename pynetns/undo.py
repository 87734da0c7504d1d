"""A stack of undo steps: every deed of a start pushes its undo on the next line.

Owns: the order (last done, first undone) and that one failing undo never stops the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("pynetns")


class Undo:
    """Context manager. Leaving it runs the pushed steps in reverse, unless `dismiss` was called."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def push(self, deed: Callable[..., object], *args: Any) -> None:
        """Register `deed(*args)` as the undo of what was just done."""
        self._steps.append((deed, args))

    def dismiss(self) -> None:
        """Success: forget all steps."""
        self._steps.clear()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._steps:
            deed, args = self._steps.pop()
            try:
                deed(*args)
            except Exception as error:
                name = getattr(deed, "__qualname__", deed)
                log.error("undo of %s failed : %s", name, error)
                log.debug("undo of %s", name, exc_info=True)
