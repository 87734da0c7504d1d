"""nf_tables on paper: tables, maps and rules as nfnetlink messages make them.

Owns: what a transaction does to them, and which errors the real one would give. No packet meets them.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import KernelError
from ..kernel import nfnetlink as nf
from ..kernel.netlink import attributes, nest, parse, string, text


@dataclass
class FakeTable:
    """One table: the elements of its maps by key, and its rules in order."""

    chains: list[str] = field(default_factory=list)
    maps: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    rules: list[bytes] = field(default_factory=list)


class FakeRuleset:
    """All tables of a machine."""

    def __init__(self) -> None:
        self.tables: dict[str, FakeTable] = {}

    def transaction(self, messages: Sequence[nf.Message]) -> None:
        """All of them or none; KernelError of the first that fails."""
        before = copy.deepcopy(self.tables)
        try:
            for message in messages:
                self._apply(message)
        except BaseException:
            self.tables = before
            raise

    def _apply(self, message: nf.Message) -> None:
        attrs = parse(message.body)
        name = string(attrs[1])
        if message.kind == nf.NEWTABLE:
            self.tables.setdefault(name, FakeTable())
            return
        table = self.tables.get(name)
        if table is None:
            raise KernelError(errno.ENOENT, "nf_tables", name)
        if message.kind == nf.DELTABLE:
            del self.tables[name]
        elif message.kind == nf.NEWCHAIN:
            table.chains += [string(attrs[3])] * (string(attrs[3]) not in table.chains)
        elif message.kind == nf.NEWSET:
            table.maps.setdefault(string(attrs[2]), {})
        elif message.kind == nf.DELRULE:
            table.rules.clear()
        elif message.kind == nf.NEWRULE:
            table.rules.append(message.body)
        else:
            self._elements(message.kind, table.maps.get(string(attrs[2])), attrs[3])

    @staticmethod
    def _elements(kind: int, elements: dict[bytes, bytes] | None, listed: bytes) -> None:
        for _, element in attributes(listed):
            fields = parse(element)
            if elements is None or (kind == nf.DELSETELEM and fields[1] not in elements):
                raise KernelError(errno.ENOENT, "nf_tables", "element")
            if kind == nf.DELSETELEM:
                del elements[fields[1]]
            elif elements.setdefault(fields[1], fields[2]) != fields[2]:
                raise KernelError(errno.EEXIST, "nf_tables", "element")

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """What a GET request lists; of an absent table no rules, and ENOENT for its elements."""
        if kind == nf.GETTABLE:
            return [text(1, name) for name in self.tables]
        attrs = parse(body)
        table = self.tables.get(string(attrs[1]))
        if kind == nf.GETRULE:
            return list(table.rules) if table is not None else []
        elements = table.maps.get(string(attrs[2])) if table is not None else None
        if elements is None:
            raise KernelError(errno.ENOENT, "nf_tables", "list ports")
        return [nest(3, *(nest(1, nest(1, k), nest(2, v)) for k, v in elements.items()))]
