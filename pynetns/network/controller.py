"""The network controller: what happens to a container's network at start, stop and repair.

Owns: the order of the steps, under moby's names, and the default network. The steps' work is in the
modules beside this one. Knows nothing of processes. moby daemon/container_operations.go; seed
sections 1.2.1 to 1.2.1.2.

Order of record and deed: rows first (one transaction), then namespace, link, rules; on the way back
rules, namespace, then rows. So the store knows of everything that may exist, and `sandbox_destroy`
is at once the undo of a start, the end of a stop and the repair after a crash.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace

from ..errors import KernelError, NotFound, Unavailable
from ..forks import Descriptors
from ..kernel import Kernel
from ..model.config import Config, HostConfig
from ..model.network import DEFAULT_NETWORK, EndpointSettings, NetworkSettings
from ..store import SandboxRow, Store
from ..trace import step
from ..undo import Undo
from . import nftables, repair
from .default_network import DefaultNetwork, delete_links
from .endpoint import (
    Endpoint,
    EndpointOptions,
    Network,
    build_create_endpoint_options,
    build_endpoint_info,
    create_endpoint,
    get_port_map_info,
    host_interface_name,
    update_container_network_settings,
)
from .host_files import HOST_GATEWAY, ResolvConf, ResolverOptions, build_hostname_file
from .ports import PortAllocator
from .sandbox import (
    Sandbox,
    SandboxRequest,
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

# Networks that are no more than a name: no address, no link. Docker's null and host drivers.
_WITHOUT_ENDPOINT = frozenset({"none", "host"})
_LINK_TRIES = 3
_BRIDGE_GONE = ("ENODEV", "EINVAL")  # how a veth whose bridge is gone fails


class NetworkController:
    """The networks of one engine. Thread-safe; several processes may use one store.

    bridge_name: the default network's device. bip: its address as CIDR (None: a free pool is
    chosen); mtu in bytes; dns, dns_search, dns_options: for containers that name none of a kind.
    Bridge and rules are made when the first container needs them. `<exec_root>/netns` must exist.
    """

    def __init__(
        self,
        store: Store,
        kernel: Kernel,
        exec_root: str,
        *,
        bridge_name: str,
        bip: str | None = None,
        mtu: int = 1500,
        dns: Sequence[str] = (),
        dns_search: Sequence[str] = (),
        dns_options: Sequence[str] = (),
    ) -> None:
        self.bridge_name = bridge_name
        self._store = store
        self._kernel = kernel
        self._netns_dir = f"{exec_root}/netns"
        self._default = DefaultNetwork(
            store, kernel, f"{exec_root}/network.lock", bridge_name, bip, mtu
        )
        self._dns = ResolverOptions(tuple(dns), tuple(dns_search), tuple(dns_options))
        self._ports = PortAllocator(store)
        self._resolv_conf = ResolvConf()

    # ---- start ----

    def validate(self, config: Config, host_config: HostConfig) -> None:
        """Raise InvalidParameter, NotFound or Conflict for what could never start."""
        validate(config, host_config)

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
        """Connect a container to its networks. Seed section 1.2.1.1."""
        with step("allocate_network"):
            self.sandbox_destroy(request.container_id)  # left by a run that ended ungracefully
            sandbox = stub_sandbox(request)
            undo.push(sandbox.close)
            networks = update_container_network_settings(request.host_config, request.settings)
            connected: list[Endpoint] = []
            for name, settings in networks.items():
                if name not in _WITHOUT_ENDPOINT:
                    connected.append(
                        self.connect_to_network(request, name, settings, sandbox, connected, undo)
                    )
            if not connected:
                self._without_network(request, sandbox, networks, undo)
            return sandbox

    def join_sandbox(self, sandbox: Sandbox) -> None:
        """Make the links and rules of every endpoint allocated: the second half of a start, which
        can go on while the container's process prepares itself. Seed section 1.2.1.1.2.10."""
        for index, endpoint in enumerate(sandbox.endpoints):
            self.join(endpoint, sandbox, index)
        sandbox.close_netlink()

    def _without_network(
        self,
        request: SandboxRequest,
        sandbox: Sandbox,
        networks: dict[str, EndpointSettings],
        undo: Undo,
    ) -> None:
        """A container on no network still gets a sandbox."""
        row = self._sandbox_row(request)
        self._store.add_sandbox(row)
        undo.push(self.sandbox_destroy, request.container_id)
        self.new_sandbox(request, sandbox, row, ())
        sandbox.settings = replace(sandbox.settings, networks=networks)
        if request.host_config.port_bindings or request.host_config.publish_all_ports:
            mode = request.host_config.network_mode
            log.warning("Published ports are discarded when using %s network mode", mode)

    def connect_to_network(
        self,
        request: SandboxRequest,
        name: str,
        settings: EndpointSettings,
        sandbox: Sandbox,
        connected: Sequence[Endpoint],
        undo: Undo,
    ) -> Endpoint:
        """One endpoint, joined; the sandbox is made with the first. Seed section 1.2.1.1.2."""
        with step("connect_to_network"):
            network = self.find_network(name)
            options = build_create_endpoint_options(
                request.container_name, request.config, request.host_config, name, settings
            )
            row = self.get_network_sandbox(request.container_id) if connected else None
            row = row or self._sandbox_row(request)
            endpoint = self.create_endpoint(
                network, options, row, sandbox, undo, first=not connected
            )
            if not connected:
                self.new_sandbox(request, sandbox, row, (endpoint.address,))
            sandbox.endpoints.append(endpoint)
            self._update_settings(request, endpoint, sandbox)
            return endpoint

    def _sandbox_row(self, request: SandboxRequest) -> SandboxRow:
        sandbox_id = secrets.token_hex(32)
        host = request.host_config.network_mode == "host"
        key = "" if host else f"{self._netns_dir}/{sandbox_id[:12]}"
        return SandboxRow(request.container_id, sandbox_id, key)

    def _update_settings(
        self, request: SandboxRequest, endpoint: Endpoint, sandbox: Sandbox
    ) -> None:
        """moby updateEndpointNetworkSettings and updateJoinInfo."""
        old, network = sandbox.settings, endpoint.network
        ports = old.ports
        if not old.networks or endpoint.ports:
            ports = get_port_map_info(request.config, endpoint.ports)
        sandbox.settings = NetworkSettings(
            bridge=network.bridge if network.name == DEFAULT_NETWORK else old.bridge,
            sandbox_id=old.sandbox_id,
            sandbox_key=old.sandbox_key,
            ports=ports,
            networks={**old.networks, network.name: build_endpoint_info(endpoint)},
        )

    def find_network(self, name: str) -> Network:
        """The network of that name; the default one is made at its first use. NotFound."""
        if name != DEFAULT_NETWORK:
            raise NotFound(f"network {name} not found")
        return self._default.get()

    def get_network_sandbox(self, container_id: str) -> SandboxRow | None:
        """The sandbox on record for a container. Seed section 1.2.1.1.2.2."""
        return self._store.sandbox_of(container_id)

    def create_endpoint(
        self,
        network: Network,
        options: EndpointOptions,
        row: SandboxRow,
        sandbox: Sandbox,
        undo: Undo,
        *,
        first: bool,
    ) -> Endpoint:
        """Reserve ports and address, and put on record all that is about to be made."""
        with step("create_endpoint"):
            reserved = self._ports.reserve(options.ports, sandbox.held_fds)
            endpoint = create_endpoint(self._store, network, options, row, reserved, first=first)
            undo.push(self.sandbox_destroy, row.container_id)
            return endpoint

    def new_sandbox(
        self,
        request: SandboxRequest,
        sandbox: Sandbox,
        row: SandboxRow,
        addresses: Sequence[str],
    ) -> None:
        """Files and namespace of a sandbox on record. Seed section 1.2.1.1.2.7."""
        with step("new_sandbox"):
            options = build_sandbox_options(
                request, sandbox, self._dns, self._host_gateway(request)
            )
            setup_resolution_files(request.directory, options, self._resolv_conf, addresses)
            if not options.use_default_sandbox:
                new_namespace(self._kernel, sandbox, row, request.namespace)
            sandbox.settings = NetworkSettings(sandbox_id=row.id, sandbox_key=row.key)

    def join(self, endpoint: Endpoint, sandbox: Sandbox, index: int) -> None:
        """Make the endpoint's link and its rules. Seed section 1.2.1.1.2.10."""
        with step("join"):
            self.populate_network_resources(endpoint, sandbox, index)
            self.program_external_connectivity(endpoint)

    def populate_network_resources(self, endpoint: Endpoint, sandbox: Sandbox, index: int) -> None:
        """The veth pair, and the container's end of it configured. Seed 1.2.1.1.2.10.2."""
        with step("add_link"), Descriptors() as fds:
            nl = fds.open(self._kernel.nl_open)
            self._add_link(nl, endpoint, sandbox.netns_fd, interface_name(index))
        with step("add_interface"):
            add_interface(self._kernel, sandbox, endpoint, index)

    def _add_link(self, nl: int, endpoint: Endpoint, netns: int, peer: str) -> None:
        """The pair, made in place. Another name when the chosen one is taken (it is put on record
        first); another try when somebody deleted the bridge, which is made again."""
        network, name = endpoint.network, endpoint.row.host_ifname
        for left in reversed(range(_LINK_TRIES)):
            try:
                self._kernel.veth_create(
                    nl,
                    name,
                    peer,
                    peer_netns=netns,
                    master=network.ifindex,
                    mtu=network.mtu,
                    peer_mac=endpoint.mac,
                    hairpin=True,
                    no_ipv6=True,
                )
                return
            except KernelError as error:
                if error.name == "EXFULL":
                    raise Unavailable(
                        f"network {network.name}: its bridge {network.bridge} has all the 1,023 "
                        "ports that Linux gives a bridge: remove containers, "
                        "or use --network host or none"
                    ) from error
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
        try:
            if self._kernel.link_index(nl, network.bridge) == network.ifindex:
                return False
        except KernelError as missing:
            if missing.name != "ENODEV":
                raise
        self._default.ensure(network)
        return True

    def _host_gateway(self, request: SandboxRequest) -> str:
        """What "host-gateway" stands for, where an extra host says so. moby HostGatewayIP."""
        wanted = any(
            entry.endswith(f":{HOST_GATEWAY}") for entry in request.host_config.extra_hosts
        )
        return self._default.gateway() if wanted else ""

    def program_external_connectivity(self, endpoint: Endpoint) -> None:
        """Publish the endpoint's ports; outbound traffic is masqueraded by one rule for all. Rules
        that somebody flushed are made again."""
        if not endpoint.ports:
            return
        with step("program_external_connectivity"):
            try:
                nftables.add_ports(self._store.engine_id, endpoint.ports)
            except Unavailable:
                self._default.ensure(endpoint.network)
                nftables.add_ports(self._store.engine_id, self._store.ports())

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
                nftables.remove_ports(self._store.engine_id, ports)
            if links:
                ends = self._store.endpoints_of(container_id)
                delete_links(self._kernel, [end.host_ifname for end in ends])
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
            self._default,
            self._netns_dir,
            live_container_ids,
            lambda container_id: self.sandbox_destroy(container_id, links=True),
        )

    def remove_all(self) -> list[str]:
        """Remove the default network; what was removed. Conflict while a container is on it."""
        return self._default.remove()
