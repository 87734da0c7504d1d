"""Typed wrapper of csrc/bpf.c: the device policy of a v2 cgroup."""

from __future__ import annotations

from .lib import call, lib, out_fd


def bpf_device_load(insns: bytes) -> int:
    """Load a BPF_PROG_TYPE_CGROUP_DEVICE program (8 bytes an instruction); its descriptor."""
    return out_fd(lib.pn_bpf_device_load, insns, len(insns) // 8)


def bpf_device_attach(cgroup: int, prog: int, flags: int) -> None:
    """Attach a device program to the cgroup directory `cgroup`."""
    call(lib.pn_bpf_device_attach, cgroup, prog, flags)
