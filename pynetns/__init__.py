"""pynetns: start Linux containers from Python, at the kernel's own pace.

The public names (all else is internal and may change):

    Engine, Container, Image, Exec, Attach          the engine and its objects
    Recorder                                        trace the steps of a start
    errors                                          the exception tree
    kernel.namespaces, .links, .spawn, .join        low-level parts, no engine involved
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself is not imported: half the time of `pynetns version`

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from .engine.container import Container, ContainerError
    from .engine.core import Engine
    from .engine.exec import Exec
    from .engine.images import Image
    from .runtime.task import Attach
    from .trace import Recorder

__all__ = ["Attach", "Container", "ContainerError", "Engine", "Exec", "Image", "Recorder"]

# Imported when first used: the command line must not pay for what a verb does not need.
_HOMES = {
    "Engine": ".engine.core",
    "Container": ".engine.container",
    "ContainerError": ".engine.container",
    "Exec": ".engine.exec",
    "Image": ".engine.images",
    "Attach": ".runtime.task",
    "Recorder": ".trace",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pynetns' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home, __name__), name)
