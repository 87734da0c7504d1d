"""The kernel as the upper layers see it: one object, so that a fake can take its place.

Owns: the list of what the C core offers to the engine. fake.py has a FakeKernel for unit tests.
"""

from __future__ import annotations

from . import bpf, link, mount, namespace, process


class Kernel:
    """The real kernel. All methods raise KernelError; descriptors handed out are the caller's."""

    netns_create = staticmethod(namespace.netns_create)
    netns_begin = staticmethod(namespace.PendingNamespace)
    ns_pin = staticmethod(namespace.ns_pin)
    ns_unpin = staticmethod(namespace.ns_unpin)
    ns_open = staticmethod(namespace.ns_open)
    ns_enter = staticmethod(namespace.ns_enter)
    process_namespace = staticmethod(process.process_namespace)

    nl_open = staticmethod(link.nl_open)
    veth_create = staticmethod(link.veth_create)
    link_configure = staticmethod(link.link_configure)
    bridge_create = staticmethod(link.bridge_create)
    link_index = staticmethod(link.link_index)
    link_set_up = staticmethod(link.link_set_up)
    link_delete = staticmethod(link.link_delete)
    address_add = staticmethod(link.address_add)
    route_add = staticmethod(link.route_add)

    overlay_mount = staticmethod(mount.overlay_mount)
    tree_clone = staticmethod(mount.tree_clone)
    proc_clone = staticmethod(mount.proc_clone)
    mount_attach = staticmethod(mount.mount_attach)
    tmpfs_mount = staticmethod(mount.tmpfs_mount)
    umount = staticmethod(mount.umount)
    open_in_root = staticmethod(mount.open_in_root)

    bpf_device_load = staticmethod(bpf.bpf_device_load)
    bpf_device_attach = staticmethod(bpf.bpf_device_attach)
