"""An interrupt at any line of the store or of the undo, during whole verbs of an engine."""

from __future__ import annotations

import sqlite3

import pytest

import pynetns
from pynetns.errors import Conflict, NotFound

from ..interrupts import PACKAGE, descriptors, interrupted, kept

pytestmark = pytest.mark.root
WHERE = (f"{PACKAGE}/store/", f"{PACKAGE}/undo.py")


def create(engine: pynetns.Engine) -> None:
    engine.containers.create("host", ["true"], name="victim", network_mode="none")


def start(engine: pynetns.Engine) -> None:
    engine.containers.get("victim").start()


def fail_to_start(engine: pynetns.Engine) -> None:
    """Everything that was made is undone."""
    try:
        engine.containers.get("missing").start()
    except pynetns.errors.StartFailed as error:
        raise Conflict(str(error)) from error


def remove(engine: pynetns.Engine) -> None:
    engine.containers.get("victim").remove(force=True)


def removed(engine: pynetns.Engine) -> None:
    for name in ("victim", "missing"):
        try:
            engine.containers.get(name).remove(force=True)
        except NotFound:
            continue


@pytest.mark.parametrize("verb", [create, start, fail_to_start, remove])
def test_interrupted_verb_locks_nobody_out(place, verb) -> None:
    """Afterwards anybody can write, no descriptor is left, and the container can be removed."""
    engine = place.engine()
    at, came_as_far = 0, True
    while came_as_far:
        at += 3  # each line is tried for the store alone; here every third, a verb takes 20 ms
        if verb in (start, remove):
            create(engine)
        if verb is remove:
            start(engine)
        if verb is fail_to_start:
            engine.containers.create("host", ["/missing"], name="missing", network_mode="none")
        engine.shim.close()
        before = descriptors()
        came_as_far = interrupted(WHERE, at, lambda: verb(engine))
        kept.clear()
        engine.shim.close()
        assert descriptors() <= before, f"line {at}"
        with sqlite3.connect(f"{engine.root}/pynetns.db", timeout=0) as other:
            other.execute("UPDATE meta SET value = value")
        other.close()
        removed(engine)
        if at % 2:  # whatever is left is found by the next who opens the root
            pynetns.Engine(place.root, place.exec_root).close()
        assert engine.store.containers() == [], f"line {at}"
    removed(engine)
    engine.gc()
    assert engine.store.sandboxes() == [] and engine.shim.tasks() == {}
    assert at > 30
