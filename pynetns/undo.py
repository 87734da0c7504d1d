"""A stack of undo steps: every deed of a start pushes its undo on the next line.

Owns: the order (last done, first undone) and that nothing stops the others: no failing undo, and no
exception that a signal handler raises meanwhile, which passes once all are done. Python may raise the
latter before the first line of `__exit__`; hence the stack may be entered twice, and what the inner
exit had no chance to do, the outer one does: `with Undo() as undo, undo:`. A child forked meanwhile
undoes nothing of its parent's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any

from .forks import make_anew

log = logging.getLogger("pynetns")


class Undo:
    """Context manager. Leaving it runs the pushed steps in reverse, unless `dismiss` was called."""

    def __init__(self) -> None:
        self._steps: list[partial[object]] = []
        make_anew(self)

    def forked(self) -> None:
        self.dismiss()

    def push(self, deed: Callable[..., object], *args: Any) -> None:
        """Register `deed(*args)` as the undo of what was just done. One that does no harm where
        nothing was done is better pushed before the deed."""
        self._steps.append(partial(deed, *args))

    def dismiss(self) -> None:
        """Success: forget all steps."""
        self._steps.clear()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *exc: object) -> None:
        interrupt: BaseException | None = None
        while self._steps:
            step = self._steps[-1]
            try:
                self._steps.pop()()  # in one line: an interrupt finds it done or still there
            except Exception as error:
                _report(step, error)
            except BaseException as error:
                interrupt = interrupt or error
                self._again(step)
        if interrupt is not None:
            raise interrupt

    def _again(self, step: partial[object]) -> None:
        """A step that was interrupted half way is done once more; but a call into C was done."""
        if not isinstance(step.func, BuiltinFunctionType):
            try:
                step()
            except Exception as error:
                _report(step, error)


def _report(step: partial[object], error: Exception) -> None:
    name = getattr(step.func, "__qualname__", step.func)
    log.error("undo of %s failed : %s", name, error)
    log.debug("undo of %s", name, exc_info=True)
