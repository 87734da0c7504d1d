"""What a root left behind that was removed (`rm -rf ROOT`) while its network lived.

Owns: telling it from everything else, by the mark that only an engine sets, and removing it. What no
container is on any more is in the way of the next engine at that place, and nobody else would ever
remove it. A container that still runs keeps its network until `gc` has ended it.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from ..kernel import Kernel
from ..kernel.interfaces import Link
from ..store import Store
from .drivers.bridge import bridge_ports, remove_bridge
from .mark import Mark, parse_alias
from .rules import Rules


def reclaim(
    kernel: Kernel, rules: Rules, mark: Mark, on_record: Collection[str], *, used: bool
) -> list[str]:
    """Remove bridges and rules of engines whose root was where this one's is, and bridges of this
    engine that are not `on_record` (names); what was removed. Not those on which there are links of
    containers, unless `used`.

    A network is on record before its bridge exists: the caller has read `on_record` after no other
    process could make one (see Networks).
    """
    removed, kept = [], set(on_record)
    for link in lost_bridges(kernel, mark, on_record):
        if used or not bridge_ports(kernel, link.ifindex):
            removed += remove_bridge(kernel, link)
        else:
            kept.add(link.name)
    if not on_record and rules.delete():
        removed.append(f"rules {rules.table}")
    return removed + rules.remove_inherited(kept)


def lost_bridges(kernel: Kernel, mark: Mark, on_record: Collection[str]) -> list[Link]:
    """The bridges of which no engine knows any more."""
    found = []
    for link in kernel.links_dump():
        whose = parse_alias(link.alias) if link.kind == "bridge" else None
        if mark.inherits(whose) or (mark.owns(whose) and link.name not in on_record):
            found.append(link)
    return found


def remove_namespaces(kernel: Kernel, store: Store, netns_dir: str) -> list[str]:
    """Unpin namespaces of no sandbox; what was removed. Files are listed before rows are read, and a
    row precedes its file: so another process's start loses nothing."""
    files = os.listdir(netns_dir)
    strays = set(files) - {os.path.basename(sandbox.key) for sandbox in store.sandboxes()}
    for name in strays:
        kernel.ns_unpin(f"{netns_dir}/{name}")
    return [f"namespace {name}" for name in sorted(strays)]
