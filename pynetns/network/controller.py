"""The network controller: what happens to a container's network at start, stop and repair.

Owns: the order of the steps, under moby's names. The steps' work is in the modules beside this one,
which networks there are in networks.py. Knows nothing of processes. moby
daemon/container_operations.go; seed sections 1.2.1 to 1.2.1.2.

Order of record and deed: rows first (one transaction), then namespace, link, rules; on the way back
rules, namespace, then rows. So the store knows of everything that may exist, and `sandbox_destroy`
is at once the undo of a start, the end of a stop and the repair after a crash.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import KernelError, Unavailable
from ..kernel import Kernel
from ..model.network import DEFAULT_NETWORK, EndpointSettings, NetworkSettings
from ..store import NetworkGone, SandboxRow, Store
from ..trace import step
from ..undo import Undo
from . import repair
from .drivers.base import Network
from .endpoint import (
    Endpoint,
    EndpointOptions,
    build_create_endpoint_options,
    build_endpoint_info,
    create_endpoint,
    default_route_of,
    get_port_map_info,
    host_interface_name,
    update_container_network_settings,
)
from .host_files import HOST_GATEWAY, ResolvConf, ResolverOptions, build_hostname_file
from .mark import mark_of
from .networks import Networks
from .options import BridgeOptions
from .ports import PortAllocator, Reserved
from .request import ContainerOptions, SandboxRequest
from .rules import Rules
from .sandbox import (
    Sandbox,
    add_interface,
    build_sandbox_options,
    interface_name,
    join_networked,
    new_namespace,
    setup_resolution_files,
    stub_sandbox,
)
from .validate import validate

log = logging.getLogger("pynetns")

_LINK_TRIES = 3
_NETWORK_TRIES = 3
_BRIDGE_GONE = ("ENODEV", "EINVAL")  # how a veth whose bridge is gone fails


class NetworkController:
    """The networks of one engine. Thread-safe; several processes may use one store.

    bridge_name: the default network's device where `options` give none. dns, dns_search, dns_options:
    for containers that name none of a kind. Bridge and rules are made when the first container needs
    them. `<exec_root>/netns` must exist. InvalidParameter for bad options.
    """

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        exec_root: str,
        *,
        bridge_name: str,
        options: BridgeOptions | None = None,
        dns: Sequence[str] = (),
        dns_search: Sequence[str] = (),
        dns_options: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._kernel = kernel
        self._netns_dir = f"{exec_root}/netns"
        mark = mark_of(store.engine_id, os.path.dirname(store.path))
        self._rules = Rules(kernel, mark)
        self._networks = Networks(
            store, kernel, self._rules, mark, exec_root, bridge_name, options or BridgeOptions()
        )
        self._dns = ResolverOptions(tuple(dns), tuple(dns_search), tuple(dns_options))
        self._ports = PortAllocator(store, kernel)
        self._resolv_conf = ResolvConf()

    # ---- the default network ----

    @property
    def bridge_name(self) -> str:
        """The device of the default network, as it is or will be made."""
        return str(self.describe()["Bridge"])

    def describe(self) -> dict[str, Any]:
        """The default network for `info`, as it is or will be made: Bridge, MTU in bytes, and BIP,
        "" until a subnet is chosen."""
        options = self._networks.effective_options()
        return {"Bridge": options.bridge, "BIP": options.bip or "", "MTU": options.mtu}

    # ---- start ----

    def validate(self, options: ContainerOptions) -> None:
        """Raise InvalidParameter, NotFound or Conflict for what could never start."""
        validate(options, self._networks.exists)

    def initialize_networking(self, request: SandboxRequest, undo: Undo) -> Sandbox:
        """Everything network of a start; the caller closes the sandbox. Seed section 1.2.1.

        Raises NotFound (no such network), Conflict (address or port in use), InvalidParameter,
        Unavailable, KernelError. What was made is on `undo`.
        """
        if request.networked is not None:
            return join_networked(self._kernel, request.networked)
        sandbox = self.allocate_network(request, undo)
        build_hostname_file(request.directory, sandbox.hostname)
        return sandbox

    def allocate_network(self, request: SandboxRequest, undo: Undo) -> Sandbox:
        """Connect a container to its networks: everything on record, and its namespace. Seed
        section 1.2.1.1."""
        with step("allocate_network"):
            self.sandbox_destroy(request.container_id)  # left by a run that ended ungracefully
            wanted = update_container_network_settings(request.options, request.settings)
            networks = {name: self.find_network(name) for name in wanted}
            own = all(network.driver.own_namespace for network in networks.values())
            sandbox = stub_sandbox(request, own_namespace=own)
            undo.push(sandbox.close)
            row = self._sandbox_row(request, own_namespace=own)
            for name, network in networks.items():
                if network.driver.has_endpoints:
                    self.connect_to_network(request, network, wanted[name], sandbox, row, undo)
            if not sandbox.endpoints:
                self._without_endpoint(request, row, undo)
            self.new_sandbox(request, sandbox, row)
            if not sandbox.endpoints:
                sandbox.settings = replace(sandbox.settings, networks=wanted)
            return sandbox

    def join_sandbox(self, sandbox: Sandbox) -> None:
        """Make the links and rules of every endpoint allocated: the second half of a start, which
        can go on while the container's process prepares itself. Seed section 1.2.1.1.2.10."""
        gateway = default_route_of(sandbox.endpoints)
        for index, endpoint in enumerate(sandbox.endpoints):
            self.join(endpoint, sandbox, index, default_route=endpoint is gateway)
        sandbox.close_netlink()

    def _without_endpoint(self, request: SandboxRequest, row: SandboxRow, undo: Undo) -> None:
        """A container on no network still gets a sandbox."""
        self._store.add_sandbox(row)
        undo.push(self.sandbox_destroy, request.container_id)
        if request.options.publishes:
            mode = request.options.mode
            log.warning("Published ports are discarded when using %s network mode", mode)

    def connect_to_network(
        self,
        request: SandboxRequest,
        network: Network,
        settings: EndpointSettings,
        sandbox: Sandbox,
        row: SandboxRow,
        undo: Undo,
    ) -> None:
        """One endpoint, on record; the sandbox is with the first. Seed section 1.2.1.1.2."""
        with step("connect_to_network"):
            options = build_create_endpoint_options(
                request.container_name, request.options, network.name, settings
            )
            endpoint = self.create_endpoint(network, options, row, sandbox, undo)
            sandbox.endpoints.append(endpoint)

    def _sandbox_row(self, request: SandboxRequest, *, own_namespace: bool) -> SandboxRow:
        sandbox_id = secrets.token_hex(32)
        key = f"{self._netns_dir}/{sandbox_id[:12]}" if own_namespace else ""
        return SandboxRow(request.container_id, sandbox_id, key)

    def find_network(self, name: str) -> Network:
        """The network of that name; the default one is made at its first use. NotFound."""
        return self._networks.get(name)

    def create_endpoint(
        self,
        network: Network,
        options: EndpointOptions,
        row: SandboxRow,
        sandbox: Sandbox,
        undo: Undo,
    ) -> Endpoint:
        """Reserve ports and address, and put on record all that is about to be made."""
        with step("create_endpoint"):
            reserved = self._ports.reserve(options.ports, sandbox.held_fds)
            endpoint = self._record_endpoint(
                network, options, row, reserved, first=not sandbox.endpoints
            )
            undo.push(self.sandbox_destroy, row.container_id)
            return endpoint

    def _record_endpoint(
        self,
        network: Network,
        options: EndpointOptions,
        row: SandboxRow,
        reserved: Sequence[Reserved],
        *,
        first: bool,
    ) -> Endpoint:
        """On the network as it is: another engine may have taken it down and made it anew."""
        for left in reversed(range(_NETWORK_TRIES)):
            try:
                return create_endpoint(self._store, network, options, row, reserved, first=first)
            except NetworkGone:
                if left == 0:
                    raise
                network = self._networks.ensure(network.name, network)
        raise AssertionError

    def new_sandbox(self, request: SandboxRequest, sandbox: Sandbox, row: SandboxRow) -> None:
        """Files and namespace of a sandbox on record, and its settings. Seed section 1.2.1.1.2.7."""
        with step("new_sandbox"):
            options = build_sandbox_options(
                request,
                sandbox,
                self._dns,
                self._host_gateway(request),
                own_namespace=bool(row.key),
            )
            addresses = [endpoint.address for endpoint in sandbox.endpoints]
            setup_resolution_files(request.directory, options, self._resolv_conf, addresses)
            if row.key:
                new_namespace(self._kernel, sandbox, row.key, request.namespace)
            sandbox.settings = self._settings(request, row, sandbox.endpoints)

    @staticmethod
    def _settings(
        request: SandboxRequest, row: SandboxRow, endpoints: Sequence[Endpoint]
    ) -> NetworkSettings:
        """moby updateEndpointNetworkSettings and updateJoinInfo."""
        default = next((end for end in endpoints if end.network.name == DEFAULT_NETWORK), None)
        ports = [port for endpoint in endpoints for port in endpoint.ports]
        return NetworkSettings(
            bridge=default.network.options.bridge if default is not None else "",
            sandbox_id=row.id,
            sandbox_key=row.key,
            ports=get_port_map_info(request.options.exposed_ports, ports) if endpoints else {},
            networks={end.network.name: build_endpoint_info(end) for end in endpoints},
        )

    def join(
        self, endpoint: Endpoint, sandbox: Sandbox, index: int, *, default_route: bool
    ) -> None:
        """Make the endpoint's link and its rules. Seed section 1.2.1.1.2.10."""
        with step("join"):
            self.populate_network_resources(endpoint, sandbox, index, default_route=default_route)
            self.program_external_connectivity(endpoint)

    def populate_network_resources(
        self, endpoint: Endpoint, sandbox: Sandbox, index: int, *, default_route: bool
    ) -> None:
        """The veth pair, and the container's end of it configured. Seed 1.2.1.1.2.10.2."""
        with step("add_link"):
            nl = self._kernel.nl_open()
            try:
                self._add_link(nl, endpoint, sandbox.netns_fd, interface_name(index))
            finally:
                os.close(nl)
        with step("add_interface"):
            add_interface(self._kernel, sandbox, endpoint, index, default_route=default_route)

    def _add_link(self, nl: int, endpoint: Endpoint, netns: int, peer: str) -> None:
        """The pair, made in place. Another name when the chosen one is taken (it is put on record
        first); another try when somebody deleted the bridge, which is made again."""
        network, name = endpoint.network, endpoint.row.host_ifname
        for left in reversed(range(_LINK_TRIES)):
            try:
                network.driver.join(nl, network, name, peer=peer, netns=netns, mac=endpoint.mac)
                return
            except KernelError as error:
                if left == 0 or not self._mend(nl, error, network):
                    raise
                if error.name == "EEXIST":
                    name = host_interface_name()
                    self._store.rename_host_interface(endpoint.row, name)
                network = self.find_network(network.name)

    def _mend(self, nl: int, error: KernelError, network: Network) -> bool:
        """Whether another try at a link can succeed; the bridge is made again if it is gone."""
        if error.name not in _BRIDGE_GONE:
            return error.name == "EEXIST"
        if network.driver.is_there(nl, network):
            return False
        self._networks.ensure(network.name, network)
        return True

    def _host_gateway(self, request: SandboxRequest) -> str:
        """What "host-gateway" stands for, where an extra host says so. moby HostGatewayIP."""
        wanted = any(entry.endswith(f":{HOST_GATEWAY}") for entry in request.options.extra_hosts)
        return self.find_network(DEFAULT_NETWORK).pool.gateway if wanted else ""

    def program_external_connectivity(self, endpoint: Endpoint) -> None:
        """Publish the endpoint's ports; outbound traffic is masqueraded by one rule for all. Rules
        that somebody flushed are made again."""
        if not endpoint.ports:
            return
        with step("program_external_connectivity"):
            try:
                self._rules.publish(endpoint.ports)
            except Unavailable:
                self._networks.ensure(endpoint.network.name, endpoint.network)
                self._rules.publish(self._store.ports())

    # ---- stop, undo, repair ----

    def sandbox_destroy(self, container_id: str, *, links: bool = False) -> None:
        """Give back everything network of a container; of one that has nothing, nothing.

        The link goes with its namespace, which the kernel takes down by itself once the last
        process is gone (deleting it here would wait for an RCU grace period). `links`: delete it
        nevertheless, for a container whose namespace others go on using.
        """
        row = self._store.sandbox_of(container_id)
        if row is None:
            return
        with step("sandbox_destroy"):
            ports = self._store.ports_of(container_id)
            if ports:
                self._rules.withdraw(ports)
            if links:
                self._networks.leave(self._store.endpoints_of(container_id))
            if row.key:
                self._kernel.ns_unpin(row.key)
            self._store.remove_sandbox(container_id)

    def restore(self, live_container_ids: Collection[str]) -> list[str]:
        """Remove what nobody owns, put back bridge and rules where live containers need them.

        A line for each thing removed. Safe beside starts of other processes; see repair.py.
        """
        return repair.restore(
            self._store,
            self._kernel,
            self._rules,
            self._networks,
            self._netns_dir,
            live_container_ids,
            lambda container_id: self.sandbox_destroy(container_id, links=True),
        )

    def remove_all(self) -> list[str]:
        """Remove every network; what was removed. Conflict while a container is on one."""
        return self._networks.remove_all()
