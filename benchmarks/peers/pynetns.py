"""pynetns, by its Python API, in the harness's own process."""

from __future__ import annotations

import time
from typing import Any

from . import Peer, Times


class Pynetns(Peer):
    name = "pynetns"
    does = "the whole of container.start(), durable state, log and exit code included"
    helper = "pynetns-shim, pynetns-keeper"

    _engine: Any = None

    def available(self) -> str | None:
        try:
            import pynetns

            pynetns.Engine  # noqa: B018 - imported lazily: a part that is not built shows here
        except (ImportError, AttributeError) as error:
            return f"pynetns cannot be imported: {error}"
        return None

    def prepare(self) -> None:
        import pynetns

        root = self.work.directory("pynetns")
        self._engine = pynetns.Engine(root=str(root / "root"), exec_root=str(root / "exec"))
        self._containers: dict[int, Any] = {}

    def create(self, i: int) -> None:
        work = self.work
        image: dict[str, Any] = (
            {"image": "host"} if work.rootfs == "host" else {"rootfs": str(work.plain)}
        )
        self._containers[i] = self._engine.containers.create(
            command=work.command(),
            volumes={str(work.mark): {"bind": work.mark_destination, "mode": "rw"}},
            network_mode="bridge",
            **image,
        )

    def start(self, i: int) -> Times:
        container = self._containers[i]
        called = time.monotonic_ns()
        container.start()
        return Times(called, time.monotonic_ns())

    def remove(self, i: int) -> None:
        container = self._containers.pop(i)
        if not self.work.stay:
            container.wait()
        container.remove(force=True)

    def close(self) -> None:
        if self._engine is None:
            return
        for container in self._containers.values():
            container.remove(force=True)
        self._engine.gc(all=True)
        self._engine.close()
