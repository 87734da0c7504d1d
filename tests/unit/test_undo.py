"""undo.py: all steps, the last one first, whatever becomes of each. Interrupts: test_interrupts.py."""

from __future__ import annotations

import logging
import os

import pytest

from pynetns.undo import Descriptors, Undo


def fail(text: str = "no") -> None:
    raise OSError(text)


def test_the_last_one_first_and_the_error_passes() -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), Undo() as undo:
        for number in range(4):
            undo.push(done.append, number)
        raise ZeroDivisionError
    assert done == [3, 2, 1, 0]


def test_a_failing_step_keeps_no_other_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), Undo() as undo, undo:
        undo.push(done.append, 1)
        undo.push(fail, "first")
        undo.push(done.append, 2)
        undo.push(fail, "second")
        raise ZeroDivisionError
    assert done == [2, 1]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert told == ["undo of fail failed : second", "undo of fail failed : first"]


def test_without_dismiss_the_steps_are_done_also_without_an_error() -> None:
    """As a scope of what is given back in any case."""
    done: list[int] = []
    with Undo() as undo:
        undo.push(done.append, 1)
    assert done == [1]


def test_dismissed_steps_are_forgotten_and_later_ones_are_not() -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), Undo() as undo:
        undo.push(done.append, 1)
        undo.dismiss()
        undo.push(done.append, 2)
        raise ZeroDivisionError
    assert done == [2]


def test_a_step_is_done_once_however_often_the_stack_is_left() -> None:
    done: list[int] = []
    with Undo() as undo, undo:
        undo.push(done.append, 1)
    undo.__exit__()
    assert done == [1]


def test_descriptors_are_closed_once() -> None:
    opened = Descriptors()
    for _ in range(3):
        opened.append(os.open("/dev/null", os.O_RDONLY))
    numbers = list(opened)
    opened.close()
    opened.close()
    assert opened == []
    for fd in numbers:
        with pytest.raises(OSError):
            os.fstat(fd)
