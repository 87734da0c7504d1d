"""The leak check: everything a container can leave behind, counted before and after.

Only what this process and its engines could have made is looked at: descriptors of this process,
children, links, mounts below the test's own directories, cgroups, nf_tables tables, namespaces.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import struct
from pathlib import Path

_RTMGRP_LINK = 1
_RUN = f"pynetns-test-{secrets.token_hex(4)}"
_our_directories: set[str] = set()


def descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"fd {fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue  # the listing's own
    return found


def children() -> set[str]:
    """Living children, and orphans that became ours; zombies of detached shims are init's affair."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = os.fsdecode(Path(f"/proc/{pid}/stat").read_bytes())
            command = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))
        except OSError:
            continue
        name, fields = stat.split("(", 1)[1].rsplit(")", 1)[0], stat.rsplit(")", 1)[1].split()
        if fields[0] == "Z" and fields[1] != str(os.getpid()):
            continue
        ours = name == "pynetns-shim" and any(mark in command for mark in _our_directories)
        if fields[1] == str(os.getpid()) or ours:
            found.add(f"process {pid} {name} {command}".strip())
    return found


def links() -> set[str]:
    return {f"link {name}" for _, name in socket.if_nameindex()}


def mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return {f"mount {p}" for p in points if any(mark in p for mark in _our_directories)}


def cgroups() -> set[str]:
    """Those below the parents of the tests' own engines, and of the cgroup tests."""
    found = set()
    for parent in _our_cgroup_parents | {f"{_RUN}-*"}:
        for pattern in (f"*/{parent}", f"*/{parent}/*", parent, f"{parent}/*"):
            found |= {f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(pattern) if p.is_dir()}
    return found


_our_cgroup_parents: set[str] = set()


def cgroup_name() -> str:
    """One for a test's own cgroup. It names this run: cgroups are the machine's, and another run's
    are nothing that was left behind."""
    return f"{_RUN}-{secrets.token_hex(4)}"


def watch_directory(directory: str) -> None:
    """From now on mounts and shims below `directory` count."""
    _our_directories.add(f"{directory}/")


def watch_root(root: str) -> None:
    """From now on look at what the engine of `root` makes."""
    from pynetns.engine.services import default_cgroup_parent

    _our_cgroup_parents.add(default_cgroup_parent(root).strip("/"))


def nft_tables() -> set[str]:
    """Names of the nf_tables tables of this network namespace, asked by netlink."""
    found = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP
        sock.send(struct.pack("=IHHII4s", 20, 10 << 8 | 1, 0x301, 1, 0, b"\0\0\0\0"))
        while True:
            data = sock.recv(65536)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind in (2, 3):  # error, done
                    return found
                attr_size = struct.unpack_from("=H", data, 20)[0]
                found.add(f"table {data[24 : 20 + attr_size].rstrip(bytes(1)).decode()}")
                data = data[(size + 3) & ~3 :]


KINDS = (descriptors, children, links, mounts, cgroups, nft_tables)


def snapshot() -> set[str]:
    found: set[str] = set()
    for kind in KINDS:
        found |= kind()
    return found


def wait_for_links(before: set[str], timeout: float = 10.0) -> None:
    """The kernel deletes a dead namespace's links in the background: wait for its messages."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, _RTMGRP_LINK))
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while links() - before:
            if not poll.poll(timeout * 1000):
                return
            sock.recv(65536)


def new_things(before: set[str]) -> list[str]:
    """What is there now and was not `before`."""
    wait_for_links(before)
    return sorted(snapshot() - before)
