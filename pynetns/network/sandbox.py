"""A sandbox: the network namespace of one container, its files, and the links inside.

Owns: making and pinning the namespace, the resolution files, the container's end of a link. Knows
nothing of addresses being free, of rules, or of which networks there are. libnetwork
controller.NewSandbox, sandbox.populateNetworkResources; seed sections 1.2.1.1.2.6-7 and .10.2.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ..errors import KernelError
from ..files import make_directories
from ..kernel import Kernel, Pending
from ..model.network import NetworkSettings
from . import host_files
from .endpoint import CONTAINER_INTERFACE_PREFIX, Endpoint
from .host_files import ResolvConf, ResolverOptions
from .request import Networked, SandboxRequest

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What goes into the sandbox's files. `use_default_sandbox`: the host's own namespace."""

    hostname: str
    domainname: str
    extra_hosts: tuple[tuple[str, str], ...]
    resolver: ResolverOptions
    use_default_sandbox: bool


@dataclass(slots=True)
class Sandbox:
    """The network a container starts with. Owns `netns_fd`, `netlink_fd` and `held_fds`.

    `netns_fd` is -1 in host mode (the host's own namespace, `key` is "" then); `held_fds` are the
    sockets that reserve its host ports, for the shim to keep; `netlink_fd` acts inside and is
    closed (-1) once the links are made.
    """

    key: str = ""
    netns_fd: int = -1
    netlink_fd: int = -1
    settings: NetworkSettings = field(default_factory=NetworkSettings)
    hostname: str = ""
    domainname: str = ""
    hosts_path: str = ""
    hostname_path: str = ""
    resolv_conf_path: str = ""
    held_fds: list[int] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)  # allocated, not joined yet

    def close(self) -> None:
        """Close every descriptor. Idempotent."""
        self.close_netlink()
        fds, self.held_fds = self.held_fds, []
        if self.netns_fd >= 0:
            fds.append(self.netns_fd)
            self.netns_fd = -1
        for fd in fds:
            os.close(fd)

    def close_netlink(self) -> None:
        """The links are made."""
        fd, self.netlink_fd = self.netlink_fd, -1
        if fd >= 0:
            os.close(fd)


def stub_sandbox(request: SandboxRequest, *, own_namespace: bool) -> Sandbox:
    """A sandbox that holds nothing yet but knows where its files are. Its name is the container's,
    else the host's own where it is in the host's namespace, else the short id."""
    options, directory = request.options, request.directory
    default = request.container_id[:12] if own_namespace else os.uname().nodename
    return Sandbox(
        hostname=options.hostname or default,
        domainname=options.domainname,
        hosts_path=f"{directory}/hosts",
        hostname_path=f"{directory}/hostname",
        resolv_conf_path=f"{directory}/resolv.conf",
    )


def join_networked(kernel: Kernel, networked: Networked) -> Sandbox:
    """The sandbox of another container: its namespace, names and files. moby
    initializeNetworkingPaths. KernelError when its namespace is gone."""
    key = networked.sandbox_key
    if key:
        namespace = kernel.ns_open(key, CLONE_NEWNET)
    else:
        key = f"/proc/{networked.process.pid}/ns/net"
        namespace = kernel.process_namespace(networked.process, "net")
    return Sandbox(
        key=key,
        netns_fd=namespace,
        hostname=networked.hostname,
        domainname=networked.domainname,
        hosts_path=networked.hosts_path,
        hostname_path=networked.hostname_path,
        resolv_conf_path=networked.resolv_conf_path,
    )


def build_sandbox_options(
    request: SandboxRequest,
    sandbox: Sandbox,
    defaults: ResolverOptions,
    host_gateway: str,
    *,
    own_namespace: bool,
) -> SandboxOptions:
    """Options of a sandbox: the container's, else the engine's. `host_gateway` is the address that
    an extra host of that name stands for. moby buildSandboxOptions, seed 1.2.1.1.2.6."""
    options = request.options
    extra = tuple(host_files.parse_extra_host(entry) for entry in options.extra_hosts)
    resolver = defaults
    if options.dns or options.dns_search or options.dns_options:
        resolver = ResolverOptions(
            options.dns or defaults.dns,
            options.dns_search or defaults.dns_search,
            options.dns_options or defaults.dns_options,
        )
    return SandboxOptions(
        hostname=sandbox.hostname,
        domainname=sandbox.domainname,
        extra_hosts=tuple(
            (name, host_gateway if address == host_files.HOST_GATEWAY else address)
            for name, address in extra
        ),
        resolver=resolver,
        use_default_sandbox=not own_namespace,
    )


def setup_resolution_files(
    directory: str, options: SandboxOptions, resolv_conf: ResolvConf, addresses: Sequence[str]
) -> None:
    """hosts and resolv.conf. The addresses of all endpoints are known already, so each file is
    written once; moby writes hosts in setupResolutionFiles and again in Join."""
    if options.use_default_sandbox and not options.extra_hosts:
        hosts = host_files.read_text(host_files.HOST_HOSTS)
    else:
        hosts = host_files.render_hosts(
            options.extra_hosts, addresses, options.hostname, options.domainname
        )
    host_files.build_hosts_file(directory, hosts)
    if options.use_default_sandbox and not options.resolver:
        text = host_files.read_text(host_files.HOST_RESOLV_CONF)
        host_files.setup_dns(directory, text.encode("utf-8", "surrogateescape"))
    else:
        host_files.setup_dns(directory, resolv_conf.render(options.resolver))


def new_namespace(
    kernel: Kernel, sandbox: Sandbox, key: str, pending: Pending | None = None
) -> None:
    """Make the namespace (or take the one begun), loopback up and IPv6 off, and pin it at
    the path `key`. osl.NewSandbox."""
    make = pending.finish if pending else partial(kernel.netns_create, ipv6_off=True, lo_up=True)
    # in one line: an interrupt finds them the sandbox's, or still the pending namespace's
    sandbox.netns_fd, sandbox.netlink_fd = make()
    try:
        kernel.ns_pin(sandbox.netns_fd, key)
    except KernelError as error:
        if error.name != "ENOENT":
            raise
        make_directories(os.path.dirname(key), 0o700)  # somebody has deleted it
        kernel.ns_pin(sandbox.netns_fd, key)
    sandbox.key = key


def add_interface(
    kernel: Kernel, sandbox: Sandbox, endpoint: Endpoint, index: int, *, default_route: bool
) -> None:
    """Configure the container's end: address, up, and the `default_route` where it has it. osl
    AddInterface, updateGateway.

    The link was made in place under its final name, so nothing is moved or renamed.
    """
    pool = endpoint.network.pool
    kernel.link_configure(
        sandbox.netlink_fd,
        interface_name(index),
        endpoint.address,
        pool.subnet.prefix,
        pool.gateway if default_route else None,
        pool.broadcast,
    )


def interface_name(index: int) -> str:
    """ "eth0" for the first endpoint of a container."""
    return f"{CONTAINER_INTERFACE_PREFIX}{index}"
