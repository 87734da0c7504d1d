"""Raising an exception at a chosen line of the code, as a signal handler may between any two.

Deterministic: a trace function counts the lines that are executed and raises at the n-th.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pynetns
from pynetns.errors import Conflict

PACKAGE = os.path.dirname(pynetns.__file__)


class Interrupt(BaseException):
    """What the signal handler raises."""


class Injector:
    """Raises Interrupt at the `at`-th line executed below `where`; counts the lines."""

    def __init__(self, where: tuple[str, ...], at: int) -> None:
        self.where, self.at, self.lines = where, at, 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            return self if frame.f_code.co_filename.startswith(self.where) else None
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                raise Interrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return self


def interrupted(where: tuple[str, ...], at: int, work: Callable[[], object]) -> bool:
    """Run `work` with an interrupt at the line; whether it came as far."""
    before = sys.gettrace()
    sys.settrace(Injector(where, at))
    try:
        work()
    except Interrupt as error:
        kept.append(error)  # as pytest.raises or a debugger would: with every frame it has been in
        return True
    except Conflict:
        pass
    finally:
        sys.settrace(before)
    return False


Line = tuple[str, int, int]  # file, line, which of its executions


def lines_of(where: tuple[str, ...], work: Callable[[], object]) -> list[Line]:
    """The lines below `where` that `work` executes in this thread: each one's first and last time."""
    counts: dict[tuple[str, int], int] = {}

    def look(frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if event == "call":
            return look if name.startswith(where) else None
        if event == "line":
            counts[name, frame.f_lineno] = counts.get((name, frame.f_lineno), 0) + 1
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    except Conflict:
        pass
    finally:
        sys.settrace(before)
    return [(*line, n) for line, count in counts.items() for n in sorted({1, count})]


def interrupted_at(file: str, number: int, time: int, work: Callable[[], object]) -> bool:
    """Run `work` with an interrupt at that execution of a line; whether it came as far."""
    left = time

    def look(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        if event == "call":
            return look if frame.f_code.co_filename == file else None
        if event == "line" and frame.f_lineno == number:
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise Interrupt(f"{file}:{number}")
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        work()
    except Interrupt as error:
        kept.append(error)
        return True
    except Conflict:
        pass
    finally:
        sys.settrace(before)
    return False


kept: list[BaseException] = []


def descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue
    return found
