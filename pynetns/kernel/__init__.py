"""The one door to the kernel: `Kernel` is what can be asked, `LinuxKernel` asks.

Owns: which function of this package answers which call. Whoever is above gets a `Kernel` handed to it;
the engine opens with a `LinuxKernel`, a test with `pynetns.testing.FakeKernel`.
"""

from __future__ import annotations

from . import (
    bpf,
    conntrack,
    interfaces,
    mount,
    netns,
    nfnetlink,
    pidfd,
    process,
    rtnetlink,
    system,
)
from .protocol import Kernel, Pending

__all__ = ["Kernel", "LinuxKernel", "Pending"]


class LinuxKernel:
    """The real kernel; without state, so one is as good as another. See protocol.Kernel."""

    netns_create = staticmethod(netns.netns_create)
    netns_begin = staticmethod(netns.PendingNamespace)
    ns_pin = staticmethod(netns.ns_pin)
    ns_unpin = staticmethod(netns.ns_unpin)
    ns_open = staticmethod(netns.ns_open)

    nl_open = staticmethod(rtnetlink.nl_open)
    veth_create = staticmethod(rtnetlink.veth_create)
    link_configure = staticmethod(rtnetlink.link_configure)
    bridge_create = staticmethod(rtnetlink.bridge_create)
    link_index = staticmethod(rtnetlink.link_index)
    link_set_up = staticmethod(rtnetlink.link_set_up)
    link_delete = staticmethod(rtnetlink.link_delete)
    address_add = staticmethod(rtnetlink.address_add)

    link_get = staticmethod(interfaces.link_get)
    links_dump = staticmethod(interfaces.links_dump)
    addresses_dump = staticmethod(interfaces.addresses_dump)
    routes_dump = staticmethod(interfaces.routes_dump)
    link_sysctl = staticmethod(interfaces.link_sysctl)

    nft_transaction = staticmethod(nfnetlink.nft_transaction)
    nft_dump = staticmethod(nfnetlink.nft_dump)
    conntrack_dump = staticmethod(conntrack.conntrack_dump)
    conntrack_delete = staticmethod(conntrack.conntrack_delete)

    overlay_mount = staticmethod(mount.overlay_mount)
    tree_clone = staticmethod(mount.tree_clone)
    proc_clone = staticmethod(mount.proc_clone)
    tmpfs_mount = staticmethod(mount.tmpfs_mount)
    umount = staticmethod(mount.umount)
    is_mounted = staticmethod(system.is_mounted)
    open_in_root = staticmethod(mount.open_in_root)
    mknod = staticmethod(system.mknod)
    chown = staticmethod(system.chown)
    setxattr = staticmethod(system.setxattr)

    bpf_device_load = staticmethod(bpf.bpf_device_load)
    bpf_device_attach = staticmethod(bpf.bpf_device_attach)

    privileged = staticmethod(system.privileged)
    boot_id = staticmethod(process.boot_id)
    start_ticks = staticmethod(process.start_ticks)
    process_lives = staticmethod(process.ProcessIdentity.lives)
    process_is_ending = staticmethod(process.ProcessIdentity.is_ending)
    process_open = staticmethod(process.ProcessIdentity.open)
    process_namespace = staticmethod(process.process_namespace)
    proc_shows = staticmethod(process.proc_shows)
    process_root = staticmethod(process.process_root)
    pidfd_send_signal = staticmethod(pidfd.send_signal)
    pidfd_exit_code = staticmethod(pidfd.exit_code)

    port_bind = staticmethod(system.port_bind)


def _is_whole(kernel: LinuxKernel) -> Kernel:
    """For the type checker: the real one is all that is asked for."""
    return kernel
