"""An engine for the command line's tests: it writes down what it is told, and starts nothing."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from pynetns.errors import NotFound
from pynetns.model.parse import build_configs


class FakeContainer:
    """A container that only writes down what it is told."""

    def __init__(self, engine: FakeEngine, name: str) -> None:
        self.engine, self.name = engine, name
        self.id = (name.encode().hex() * 64)[:64]
        self.short_id = self.id[:12]
        self.status = "created"
        self.code = 0
        self.attrs: dict[str, Any] = {
            "Name": f"/{name}",
            "Args": ["a", "b"],
            "State": {"Pid": 7, "Running": True, "Error": None},
            "Config": {"Tty": False, "OpenStdin": False},
        }

    @property
    def row(self) -> FakeContainer:
        return self

    def start(self, attach: Any = None) -> None:
        self.engine.calls.append(("start", self.name))
        if self.engine.start_error is not None:
            raise self.engine.start_error

    def stop(self, timeout: float | None = None) -> None:
        self.engine.calls.append(("stop", self.name, timeout))

    def kill(self, signal: int) -> None:
        self.engine.calls.append(("kill", self.name, signal))

    def remove(self, force: bool = False) -> None:
        self.engine.calls.append(("remove", self.name, force))

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.code}

    def exec_start(self, cmd: list[str], **options: Any) -> Any:
        self.engine.calls.append(("exec", self.name, cmd, options))
        return SimpleNamespace(
            wait=lambda: 3, resize=lambda rows, columns: None, ending=lambda: nullcontext(-1)
        )


class FakeEngine:
    """`engine.containers` and `engine.images` in one."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.known: dict[str, FakeContainer] = {}
        self.start_error: Exception | None = None
        self.opened_with: dict[str, Any] = {}
        self.containers = self.images = self

    def __call__(self, **options: Any) -> FakeEngine:
        self.opened_with = options
        return self

    def close(self) -> None:
        self.calls.append("close")

    def create(self, image: str, command: Any = None, name: str = "new", **options: Any) -> Any:
        self.calls.append(("create", image, command, build_configs(image, command, **options)))
        return self.add(name)

    def add(self, name: str) -> FakeContainer:
        self.known[name] = FakeContainer(self, name)
        return self.known[name]

    def get(self, name: str) -> FakeContainer:
        if name not in self.known:
            raise NotFound(f"No such container: {name}")
        return self.known[name]

    def list(self, **options: Any) -> list[FakeContainer]:
        self.calls.append(("list", options))
        return list(self.known.values())

    def gc(self, all: bool = False) -> list[str]:
        return ["link veth1", *(["mount /run/x"] if all else [])]

    def info(self) -> dict[str, Any]:
        return {"Containers": 2}
