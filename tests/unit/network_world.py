"""The network layer on a kernel of paper: what its tests work in.

A directory is root and exec root at once; every container has the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pynetns.model.config import Config, HostConfig
from pynetns.model.network import NetworkSettings
from pynetns.network import pools
from pynetns.network.controller import NetworkController
from pynetns.network.mark import mark_of
from pynetns.network.options import BridgeOptions
from pynetns.network.request import SandboxRequest, container_options
from pynetns.network.rules import Rules
from pynetns.network.sandbox import Sandbox
from pynetns.store import Store
from pynetns.testing import FakeKernel
from pynetns.undo import Undo

from .rows import add_container

BRIDGE = "pn-test"
ID = "c" * 64


class World:
    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        (top / "netns").mkdir()
        (top / "c").mkdir()
        self.store = Store(str(top / "db"))
        self.kernel = FakeKernel()
        monkeypatch.setattr(pools, "_RESOLV_CONF", str(top / "no"))
        self.controller = self.another()

    def another(
        self,
        bridge: str | None = None,
        bip: str | None = None,
        mtu: int | None = None,
        labels: dict[str, str] | None = None,
        **options: Any,
    ) -> NetworkController:
        return NetworkController(
            self.store,
            self.kernel,
            str(self.top),
            bridge_name=BRIDGE,
            options=BridgeOptions(bridge, bip, mtu, labels or {}),
            **options,
        )

    def rules(self) -> Rules:
        mark = mark_of(self.store.engine_id, str(self.top))
        return Rules(self.kernel, mark)

    def ports(self) -> set[tuple[Any, ...]]:
        """What is published, as (protocol, host ip, host port, container ip, container port)."""
        return {tuple(port) for port in self.rules().published()}

    def recorded_ports(self) -> set[tuple[Any, ...]]:
        return {
            (row.proto, row.host_ip, row.host_port, row.container_ip, row.container_port)
            for row in self.store.ports()
        }

    def deeds(self) -> list[str]:
        """The calls that changed something, in order."""
        looks = ("nl_open", "link_get", "links_dump", "addresses_dump", "routes_dump", "nft_dump")
        return [name for name, _ in self.kernel.calls if name not in looks]

    def set_ups(self) -> int:
        return [name for name, _ in self.kernel.calls].count("bridge_create")

    def request(self, id: str = ID, **changes: Any) -> SandboxRequest:
        config = changes.pop("config", Config())
        settings = changes.pop("settings", NetworkSettings())
        networked = changes.pop("networked", None)
        host_config = HostConfig(**changes)
        options = container_options(config, host_config)
        return SandboxRequest(
            id, "web-" + id[:4], options, str(self.top / "c"), settings, networked
        )

    def start(self, id: str = ID, **changes: Any) -> Sandbox:
        add_container(self.store, id)
        with Undo() as undo:
            sandbox = self.controller.initialize_networking(self.request(id, **changes), undo)
            self.controller.join_sandbox(sandbox)
            undo.dismiss()
        sandbox.close()
        return sandbox

    def text(self, name: str) -> str:
        return (self.top / "c" / name).read_text()

    def assert_empty(self) -> None:
        assert self.store.sandboxes() == []
        assert self.store.endpoints() == []
        assert self.store.ports() == []
        assert self.kernel.pins == set()
        assert self.ports() == set()


def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """For a fixture: no descriptor is left afterwards."""
    before = set(os.listdir("/proc/self/fd"))
    world = World(tmp_path, monkeypatch)
    yield world
    world.store.close()
    world.kernel.close()
    assert set(os.listdir("/proc/self/fd")) == before
