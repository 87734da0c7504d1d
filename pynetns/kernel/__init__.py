"""The kernel as the upper layers see it: one object, so that a fake can take its place.

Owns: the list of what the C core offers to the engine. fake.py has a FakeKernel for unit tests.
"""

from __future__ import annotations

from . import bpf, mount, netns, process, rtnetlink


class Kernel:
    """The real kernel. All methods raise KernelError; descriptors handed out are the caller's."""

    netns_create = staticmethod(netns.netns_create)
    netns_begin = staticmethod(netns.PendingNamespace)
    ns_pin = staticmethod(netns.ns_pin)
    ns_unpin = staticmethod(netns.ns_unpin)
    ns_open = staticmethod(netns.ns_open)
    ns_enter = staticmethod(netns.ns_enter)
    process_namespace = staticmethod(process.process_namespace)

    nl_open = staticmethod(rtnetlink.nl_open)
    veth_create = staticmethod(rtnetlink.veth_create)
    link_configure = staticmethod(rtnetlink.link_configure)
    bridge_create = staticmethod(rtnetlink.bridge_create)
    link_index = staticmethod(rtnetlink.link_index)
    link_set_up = staticmethod(rtnetlink.link_set_up)
    link_delete = staticmethod(rtnetlink.link_delete)
    address_add = staticmethod(rtnetlink.address_add)
    route_add = staticmethod(rtnetlink.route_add)

    overlay_mount = staticmethod(mount.overlay_mount)
    tree_clone = staticmethod(mount.tree_clone)
    proc_clone = staticmethod(mount.proc_clone)
    mount_attach = staticmethod(mount.mount_attach)
    tmpfs_mount = staticmethod(mount.tmpfs_mount)
    umount = staticmethod(mount.umount)
    open_in_root = staticmethod(mount.open_in_root)

    bpf_device_load = staticmethod(bpf.bpf_device_load)
    bpf_device_attach = staticmethod(bpf.bpf_device_attach)
