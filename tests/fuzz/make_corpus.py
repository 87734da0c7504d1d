"""Writes the fuzzers' starting inputs from real plans, frames and acknowledgements.

    python tests/fuzz/make_corpus.py DIRECTORY    makes DIRECTORY/{plan,frame,netlink}

Run it when a plan or frame gets a new form, and commit what it writes to tests/fuzz/corpus.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from pynetns.kernel import frame  # noqa: E402
from pynetns.kernel.operations import Plan  # noqa: E402
from pynetns.runtime.plan.handles import Handles  # noqa: E402
from pynetns.runtime.plan.render import render_exec_plan, render_plan  # noqa: E402

DEFAULT_SPEC = HERE.parent / "golden/spec_default.json"
FILTER = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)  # BPF_RET ALLOW


def plans() -> Iterator[bytes]:
    """(room for descriptors, plan): a container's, an exec's, and each operation's in one."""
    spec = json.loads(DEFAULT_SPEC.read_text())
    for namespace in spec["linux"]["namespaces"]:
        namespace.pop("path", None)
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "bind"]
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}  # what FILTER says
    handles = Handles(rootfs=5, cgroup=6, go=7)
    container = render_plan(spec, handles, FILTER)
    executed = render_exec_plan(spec, spec["process"], Handles(rootfs=-1, pidfd=5), FILTER)
    small = Plan(0)
    small.exec(["/bin/echo", "hello"], {"PATH": "/bin"})
    for plan in (container, executed, small, every_operation()):
        yield bytes((len(plan.fds),)) + plan.encode()


def every_operation() -> Plan:
    plan = Plan(0x20000, cgroup=9)
    plan.setns(5, 0x40000000)
    plan.fork()
    plan.hostname("name")
    plan.stdio()
    plan.tty(24, 80, socket=6)
    plan.cwd("/")
    plan.wait(7, 8)
    plan.exec(["sh", "-c", "true"], {"PATH": "/bin:/usr/bin", "A": "b"})
    return plan


def frames() -> Iterator[bytes]:
    """(descriptors, room for them, room for the payload, datagram) of each kind of request."""
    kinds = (
        frame.HELLO, frame.SPAWN, frame.WAIT, frame.ATTACH, frame.SIGNAL, frame.RESIZE,
        frame.CLOSE_STDIN, frame.LIST, frame.OK, frame.ERROR, frame.EXITED, frame.TASK,
    )  # fmt: skip
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        for number, kind in enumerate(kinds):
            frame.send(a.fileno(), kind, key="0123456789ab" * 5, serial=number, arg=number)
            datagram = b.recv(1 << 17)
            yield bytes((number % 4, 3, 2)) + datagram
            yield bytes((number % 4, 8, 4)) + datagram + bytes(range(64)) * 3


def acknowledgements() -> Iterator[bytes]:
    """The kernel's own answers to requests that succeed and fail, and one with its request echoed."""
    for cap in (1, 0):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            sock.setsockopt(270, 11, 1)  # NETLINK_EXT_ACK
            sock.setsockopt(270, 10, cap)  # NETLINK_CAP_ACK
            for kind, body in (
                (16, struct.pack("=BBHiII", 0, 0, 0, 1, 0, 0)),  # RTM_NEWLINK of lo: nothing to do
                (17, struct.pack("=BBHiII", 0, 0, 0, 1 << 30, 0, 0)),  # RTM_DELLINK of none
                (20, struct.pack("=BBBBi", 2, 99, 0, 0, 1)),  # RTM_NEWADDR, nonsense
                (
                    24,
                    struct.pack("=BBBBBBBBI", 2, 40, 0, 0, 0, 0, 0, 0, 0),
                ),  # RTM_NEWROUTE, nonsense
            ):
                sock.sendto(struct.pack("=IHHII", 16 + len(body), kind, 5, 7, 0) + body, (0, 0))
                yield sock.recv(1 << 16, socket.MSG_DONTWAIT)


def write(directory: Path, inputs: Iterator[bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> None:
    top = Path(sys.argv[1])
    for name, inputs in (("plan", plans()), ("frame", frames()), ("netlink", acknowledgements())):
        write(top / name, inputs)


if __name__ == "__main__":
    main()
