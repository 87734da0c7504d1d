"""pynetns: start Linux containers from Python, at the kernel's own pace.

The public names (all else is internal and may change):

    Engine, Container, Image, Exec, Attach          the engine and its objects
    Recorder                                        trace the steps of a start
    errors                                          the exception tree
    lowlevel.namespaces, .links, .spawn, .join      parts that work alone, no engine involved
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself is not imported: half the time of `pynetns version`

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from .client.containers import Container, ContainerError
    from .client.engine import Engine
    from .client.images import Image
    from .engine.verbs.exec import Exec
    from .runtime.task import Attach
    from .trace import Recorder

__all__ = ["Attach", "Container", "ContainerError", "Engine", "Exec", "Image", "Recorder"]

# Imported when first used: the command line must not pay for what a verb does not need.
_HOMES = {
    "Engine": ".client.engine",
    "Container": ".client.containers",
    "ContainerError": ".client.containers",
    "Exec": ".engine.verbs.exec",
    "Image": ".client.images",
    "Attach": ".runtime.task",
    "Recorder": ".trace",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pynetns' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home, __name__), name)
