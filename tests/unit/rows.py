"""Rows that other rows refer to, for tests that care about the latter."""

from __future__ import annotations

from pynetns.errors import Conflict
from pynetns.model.state import State
from pynetns.store import SandboxRow, Store


def add_container(store: Store, id: str, name: str = "") -> None:
    """A container, if there is none of that id yet."""
    if store.container(id) is None:
        store.add_container(id, name or id, "2024-01-01T00:00:00Z", State())


def add_sandbox(store: Store, id: str) -> None:
    """A container with a sandbox."""
    add_container(store, id)
    try:
        store.add_sandbox(SandboxRow(id, "s", "/k"))
    except Conflict:
        pass  # it has one
