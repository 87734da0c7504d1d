"""csrc/namespace.c and lowlevel/namespaces.py: network namespaces made, pinned, entered, ended."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import LinuxKernel, netns
from pynetns.lowlevel.namespaces import CLONE_NEWNET, NetworkNamespace

from ..interrupts import PACKAGE, descriptors, interrupted, kept

pytestmark = pytest.mark.root
CLONE_NEWUTS = 0x04000000


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with NetworkNamespace.create() as namespace:
        yield namespace


def own_namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def link_names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def test_new_namespace_is_another_and_the_thread_stays(namespace):
    before = own_namespace()
    assert os.fstat(namespace.fd).st_ino != before
    assert namespace.run(own_namespace) == os.fstat(namespace.fd).st_ino
    assert own_namespace() == before
    assert namespace.run(link_names) == ["lo"]


def test_loopback_is_up_and_ipv6_off(namespace):
    with namespace.run(socket.create_server, ("127.0.0.1", 0)) as server:
        namespace.run(socket.create_connection, server.getsockname()).close()
    text = namespace.run(Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").read_text)
    assert text == "1\n"
    assert namespace.run(Path("/proc/thread-self/net/if_inet6").read_text) == ""


def test_loopback_down_and_ipv6_on():
    with NetworkNamespace.create(ipv6_off=False, lo_up=False) as namespace:
        flags = namespace.run(Path("/proc/thread-self/net/if_inet6").read_text)
        assert flags == ""
        text = namespace.run(Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text)
        assert text == "0\n"
        with pytest.raises(OSError):
            namespace.run(socket.create_connection, ("127.0.0.1", 9))


def test_descriptors_are_close_on_exec(namespace):
    assert not os.get_inheritable(namespace.fd)
    assert not os.get_inheritable(namespace.netlink())


def test_no_child_is_left_to_wait_for_and_no_signal_sent(namespace):
    seen = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
    try:
        NetworkNamespace.create().close()
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000)  # __WALL
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert seen == []


def test_ignored_sigchld_is_no_obstacle():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        NetworkNamespace.create().close()
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_many_threads_at_once_get_a_namespace_each():
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: NetworkNamespace.create(), range(40)))
    try:
        assert len({os.fstat(namespace.fd).st_ino for namespace in made}) == 40
    finally:
        for namespace in made:
            namespace.close()


@pytest.mark.parametrize("free", [0, 1])
def test_running_out_of_descriptors_leaks_none(free):
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        filler = []
        stack.callback(lambda: [os.close(fd) for fd in filler])
        with contextlib.suppress(OSError):
            while True:
                filler.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        for _ in range(free):
            os.close(filler.pop())
        with pytest.raises(KernelError) as caught:
            LinuxKernel.netns_create()
        assert caught.value.errno == errno.EMFILE
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_pin_outlives_the_object_and_delete_ends_it(tmp_path):
    pin = tmp_path / "pin"
    with NetworkNamespace.create() as namespace:
        inode = os.fstat(namespace.fd).st_ino
        namespace.pin(pin)
        with pytest.raises(KernelError) as caught:
            namespace.pin(pin)
        assert caught.value.errno == errno.EEXIST
    with NetworkNamespace.open(pin) as again:
        assert os.fstat(again.fd).st_ino == inode
        assert again.run(link_names) == ["lo"]
    NetworkNamespace.delete(pin)
    assert not pin.exists()
    NetworkNamespace.delete(pin)


def test_delete_removes_a_file_that_was_never_mounted_on(tmp_path):
    pin = tmp_path / "pin"
    pin.touch()
    NetworkNamespace.delete(pin)
    assert not pin.exists()


def test_failed_pin_leaves_no_file(tmp_path):
    reader, writer = os.pipe()
    try:
        with pytest.raises(KernelError) as caught:
            LinuxKernel.ns_pin(reader, str(tmp_path / "pin"))
        assert caught.value.step == "mount"
    finally:
        os.close(reader)
        os.close(writer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/ns/uts", "/"])
def test_open_refuses_what_is_no_network_namespace(path):
    with pytest.raises(KernelError) as caught:
        NetworkNamespace.open(path)
    assert caught.value.errno == errno.EINVAL


def test_open_absent_and_open_of_any_type():
    with pytest.raises(KernelError) as caught:
        NetworkNamespace.open("/proc/self/ns/none")
    assert (caught.value.errno, caught.value.detail) == (errno.ENOENT, "/proc/self/ns/none")
    os.close(LinuxKernel.ns_open("/proc/self/ns/uts"))
    os.close(LinuxKernel.ns_open("/proc/self/ns/uts", CLONE_NEWUTS))


def test_run_passes_arguments_results_exceptions_and_context(namespace):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")
    assert namespace.run(lambda *args, key: (args, key, variable.get()), 1, 2, key=3) == (
        (1, 2),
        3,
        "seen",
    )
    with pytest.raises(ZeroDivisionError):
        namespace.run(lambda: 1 // 0)
    assert "pynetns-netns" not in {thread.name for thread in threading.enumerate()}


def test_run_starts_processes_inside(namespace):
    done = namespace.run(
        subprocess.run, ["readlink", "/proc/self/ns/net"], capture_output=True, text=True
    )
    assert done.stdout == f"net:[{os.fstat(namespace.fd).st_ino}]\n"


def test_closed_namespace_cannot_be_entered(namespace):
    namespace.close()
    namespace.close()
    with pytest.raises(KernelError) as caught:
        namespace.run(own_namespace)
    assert caught.value.errno == errno.EBADF


def test_enter_checks_the_type(namespace):
    def enter() -> None:
        netns.ns_enter(namespace.fd, CLONE_NEWUTS)

    with pytest.raises(KernelError) as caught:
        namespace.run(enter)
    assert (caught.value.errno, caught.value.step) == (errno.EINVAL, "setns")
    assert CLONE_NEWNET != CLONE_NEWUTS


WITHOUT_PROC = """
import os, sys
from pynetns.errors import KernelError
from pynetns.kernel import LinuxKernel
from pynetns.kernel.mount import overlay_mount
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.kernel.netns import PendingNamespace

assert not os.path.exists("/proc/self")
pin, low = sys.argv[1:]
with NetworkNamespace.create(ipv6_off=False) as made:
    made.pin(pin)
    with NetworkNamespace.open(pin) as opened:
        assert os.path.samestat(os.fstat(made.fd), os.fstat(opened.fd))
    NetworkNamespace.delete(pin)
for fd in PendingNamespace(ipv6_off=False).finish():
    os.close(fd)
for begin in (lambda: LinuxKernel.netns_create(), lambda: PendingNamespace().finish()):
    try:
        begin()
    except KernelError as error:
        assert "/proc/sys/net/ipv6" in str(error), error  # never silently left on
    else:
        sys.exit("IPv6 was left on without a word")
os.close(overlay_mount([low, "/etc"], readonly=True))
"""


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the address sanitizer reads /proc"
)
@pytest.mark.parametrize("umount", ["umount -l /proc", "mount -t tmpfs none /proc"])
def test_without_proc(tmp_path, umount):
    """Another pid namespace's /proc, or none: nothing here needs to find itself in it."""
    low = tmp_path / "a,b"
    low.mkdir()
    command = 'eval "$1"; shift; exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", command, "sh", umount),
            *(sys.executable, "-c", WITHOUT_PROC, str(tmp_path / "pin"), str(low)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_in_a_process_with_much_thread_local_storage(tmp_path):
    """The C library takes it out of a thread's stack; the namespace's thread starts all the same."""
    source = tmp_path / "tls.c"
    source.write_text("__thread char big[300000]; char *touch(void) { return big; }")
    library = tmp_path / "tls.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    script = (
        "import os; from pynetns.kernel.netns import PendingNamespace;"
        "[os.close(fd) for fd in PendingNamespace().finish()]"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_interrupt_at_any_line_loses_no_namespace():
    """What the thread made is the sandbox's, or closed."""
    from pynetns.network.sandbox import Sandbox, new_namespace

    class Unpinned(LinuxKernel):
        @staticmethod
        def ns_pin(fd: int, where: str) -> None:
            assert fd >= 0 and where

    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        before = descriptors()
        sandbox = Sandbox()
        begun: list = []

        def work(begun=begun, sandbox=sandbox):
            begun.append(LinuxKernel.netns_begin())
            new_namespace(Unpinned(), sandbox, "/k", begun[0])

        files = (f"{PACKAGE}/kernel/netns.py", f"{PACKAGE}/network/sandbox.py")
        came_as_far = interrupted(files, at, work)
        kept.clear()  # or the frames keep what was begun, but not handed out
        sandbox.close()
        for namespace in begun:
            namespace.close()
        assert descriptors() == before, f"line {at}"
    assert at > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_at_any_line_loses_no_port(tmp_path):
    from pynetns.network.ports import PortAllocator, PortRequest
    from pynetns.store import Store

    store = Store(str(tmp_path / "db"))
    requests = [
        PortRequest("tcp", 80, "127.0.0.1", 0, 0),
        PortRequest("udp", 80, "127.0.0.1", 0, 0),
    ]
    store.highest_port("tcp", 1, 2)
    at, came_as_far = 0, True
    while came_as_far:
        at += 1
        before = descriptors()
        held: list[int] = []
        came_as_far = interrupted(
            (f"{PACKAGE}/network/ports.py", f"{PACKAGE}/kernel/system.py"),
            at,
            lambda held=held: PortAllocator(store, LinuxKernel()).reserve(requests, held),
        )
        kept.clear()
        for fd in held:
            os.close(fd)
        assert descriptors() == before, f"line {at}"
    store.close()
    assert at > 10
