"""What the tests of the verbs share: containers on a fake machine, and what is left of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from pynetns.client.containers import Container
from pynetns.testing import FakeEngine

SLEEP = ["sleep", "300"]


def start(engine: FakeEngine, command: Any = SLEEP, **options: Any) -> Container:
    """A container that has been started."""
    return engine.containers.run("host", command, detach=True, **options)


def events(engine: FakeEngine, container: Container | None = None) -> list[str]:
    """What happened to a container, or to all, in order."""
    every = engine.events()
    return [e.action for e in every if container is None or e.actor_id == container.id]


def left(engine: FakeEngine) -> list[str]:
    """What containers have in the kernel, in the exec root and in the store. The engine's own bridge
    and rules, made at first use, are no container's."""
    own = (f"link {engine.network.bridge_name}", f"mount {engine.exec_root}")
    found = [line for line in engine.kernel.left() if line not in own]
    found = [line for line in found if not line.endswith(", 0 ports")]
    for place in ("tasks", "netns", "shm"):
        where = f"{engine.exec_root}/{place}"
        found += [f"{place}/{name}" for name in (os.listdir(where) if os.path.isdir(where) else ())]
    for top, names, _ in os.walk(engine.machine.cgroups):
        found += [f"cgroup {top}/{name}" for name in names if len(name) == 64]
    store = engine.store
    return [*found, *map(str, (*store.sandboxes(), *store.endpoints(), *store.ports()))]


def files(engine: FakeEngine) -> list[str]:
    """The directories and locks of containers."""
    places = (f"{engine.root}/containers", f"{engine.root}/overlay2", f"{engine.exec_root}/locks")
    return [f"{place}/{name}" for place in places for name in os.listdir(place)]


def descriptors(engine: FakeEngine) -> set[str]:
    """Those of this process, without what the fake kernel has of things that are gone."""
    engine.kernel.left()
    return set(os.listdir("/proc/self/fd"))


def failing(engine: FakeEngine, deed: Callable[[], object]) -> Iterator[tuple[str, bool]]:
    """Do `deed` with its first call failing, then its second, …, until none is left to fail: each
    time the name of the call, and whether that was an error to the caller."""
    kernel, position = engine.kernel, 0
    while True:
        position += 1
        first = len(kernel.calls)
        kernel.fail_at(position)
        failed = False
        try:
            deed()
        except Exception:
            failed = True
        reached = len(kernel.calls) - first >= position
        kernel.fail_at(0)
        if not reached:
            assert not failed
            return
        yield kernel.calls[first + position - 1].name, failed
