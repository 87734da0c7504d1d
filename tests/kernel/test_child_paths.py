"""csrc/child_path.c, child_mount.c: no path of an image leads out, or to where nothing belongs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import LinuxKernel
from pynetns.kernel.mount import MS_PRIVATE
from pynetns.kernel.operations import Plan
from pynetns.lowlevel.join import CLONE_NEWNS, CLONE_NEWPID
from pynetns.lowlevel.spawn import spawn

from .child_root import ENV, ChildRoot

pytestmark = pytest.mark.root


@pytest.fixture
def outside(tmp_path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    return path


@pytest.fixture
def root(tmp_path, outside) -> ChildRoot:
    return ChildRoot(tmp_path / "root")


@pytest.fixture
def volume(tmp_path):
    """A directory, and a detached mount of it."""
    directory = tmp_path / "volume"
    directory.mkdir()
    (directory / "marker").write_text("volume")
    fd = LinuxKernel.tree_clone(str(directory), recursive=False, propagation=MS_PRIVATE)
    yield directory, fd
    os.close(fd)


@pytest.fixture
def file_mount(tmp_path):
    """A detached mount of one file."""
    (tmp_path / "file").write_text("mounted")
    fd = LinuxKernel.tree_clone(str(tmp_path / "file"), recursive=False, propagation=MS_PRIVATE)
    yield fd
    os.close(fd)


def entries(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


# ---- making directories ----


@pytest.mark.parametrize("tail", ["x", "../x", "../../x", "../../../../tmp/x"])
def test_no_directory_is_made_through_a_descriptor(root, outside, tail):
    leaky = os.open(outside, os.O_RDONLY)
    os.set_inheritable(leaky, True)
    before = entries(outside.parent)
    try:
        for number in range(12):
            with pytest.raises(KernelError) as caught:
                root.run(lambda plan, n=number: plan.mkdir(f"/proc/self/fd/{n}/{tail}"))
            assert caught.value.step == "mkdir"
    finally:
        os.close(leaky)
    assert entries(outside.parent) == before


@pytest.mark.parametrize("magic", ["/proc/self/fd/0", "/proc/self/exe", "/proc/self/ns/mnt"])
@pytest.mark.parametrize("how", ["mkdir", "mknod", "symlink", "mount", "cwd"])
def test_magic_links_are_refused_by_every_operation(root, magic, how):
    (root.top / "link").symlink_to(magic)

    def steps(plan):
        {
            "mkdir": lambda: plan.mkdir("/link/sub"),
            "mknod": lambda: plan.mknod("/link/node", 0o020600, os.makedev(1, 3)),
            "symlink": lambda: plan.symlink("x", "/link/sub"),
            "mount": lambda: plan.mount("tmpfs", "tmpfs", "/link", 0),
            "cwd": lambda: plan.cwd("/link"),
        }[how]()

    with pytest.raises(KernelError) as caught:
        root.run(steps)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


@pytest.mark.parametrize(
    "target", ["{outside}", "../../../../../../..{outside}", "/../..{outside}"]
)
def test_links_are_followed_inside_the_root(root, outside, target):
    (root.top / "app").symlink_to(target.format(outside=outside))
    root.run(lambda plan: plan.mkdir("/app/data"))
    assert entries(outside) == []
    assert (root.top / str(outside).lstrip("/") / "data").is_dir()


def test_a_chain_of_links_with_dots_ends_inside(root, outside):
    (root.top / "a").mkdir()
    (root.top / "a/one").symlink_to("../b")
    (root.top / "b").symlink_to("./a/../c/./d/..")
    root.run(lambda plan: plan.mkdir("/a/one/new"))
    assert (root.top / "c/d").is_dir()
    assert (root.top / "c/new").is_dir()


def test_links_in_a_circle_are_refused(root):
    (root.top / "a").symlink_to("b")
    (root.top / "b").symlink_to("a")
    with pytest.raises(KernelError) as caught:
        root.run(lambda plan: plan.mkdir("/a/x"))
    assert caught.value.errno == errno.ELOOP


def test_a_file_on_the_way_is_refused(root):
    (root.top / "file").write_text("")
    with pytest.raises(KernelError) as caught:
        root.run(lambda plan: plan.mkdir("/file/x"))
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("size", [255, 256, 5000])
def test_long_names(root, size):
    name = "n" * size
    if size == 255:
        root.run(lambda plan: plan.mkdir(f"/{name}/{name}"))
        assert (root.top / name / name).is_dir()
        return
    with pytest.raises(KernelError) as caught:
        root.run(lambda plan: plan.mkdir(f"/missing/{name}"))
    assert caught.value.errno == errno.ENAMETOOLONG


# ---- mount points ----


def test_a_missing_mount_point_behind_a_dangling_link_is_made_inside(root, file_mount):
    (root.top / "etc/localtime").symlink_to("/usr/share/zi/City")
    code, out = root.run(
        lambda plan: plan.attach(file_mount, "/etc/localtime", is_dir=False),
        "cat /etc/localtime /usr/share/zi/City",
    )
    assert (code, out) == (0, "mountedmounted")
    assert (root.top / "usr/share/zi/City").read_text() == ""
    assert not Path("/usr/share/zi/City").exists()


@pytest.mark.parametrize(
    "target", ["/proc", "/sys", "/dev", "/dev/sub", "/", "..", "/proc/self/.."]
)
@pytest.mark.parametrize("hops", [1, 2])
def test_a_volume_lands_in_none_of_the_kernels_places(root, volume, target, hops):
    (root.top / "data").symlink_to(target if hops == 1 else "/etc/second")
    (root.top / "etc/second").symlink_to(target)

    def steps(plan):
        plan.mount("tmpfs", "tmpfs", "/sys", 0)
        plan.mkdir("/dev/sub")
        plan.attach(volume[1], "/data")

    with pytest.raises(KernelError) as caught:
        root.run(steps)
    assert caught.value.step == "move_mount"
    assert caught.value.errno in (errno.EXDEV, errno.ELOOP)
    assert caught.value.detail == "/data"


def test_what_asks_for_a_kernels_place_by_its_name_gets_it(root, volume):
    code, out = root.run(lambda plan: plan.attach(volume[1], "/dev/shm"), "cat /dev/shm/marker")
    assert (code, out) == (0, "volume")


def test_a_name_that_only_begins_like_dev_is_an_ordinary_one(root, volume):
    (root.top / "real").mkdir()
    (root.top / "devdata").symlink_to("real")
    code, out = root.run(lambda plan: plan.attach(volume[1], "/devdata"), "cat /real/marker")
    assert (code, out) == (0, "volume")


def test_a_volume_inside_a_volume(root, volume):
    directory, fd = volume
    (directory / "link").symlink_to("/data/sub")
    (directory / "sub").mkdir()

    def steps(plan):
        plan.attach(fd, "/data")
        plan.mount("tmpfs", "tmpfs", "/data/link", 0, "mode=700")

    assert root.run(steps, "stat -c %a /data/sub") == (0, "700\n")


# ---- masked paths ----


@pytest.mark.parametrize("kind", ["file", "link", "zero"])
def test_masks_do_not_trust_what_lies_at_dev_null(root, volume, kind):
    """A volume over /dev brings its own /dev/null: what is masked must not show that."""
    directory, fd = volume
    null = directory / "null"
    if kind == "file":
        null.write_text("of the volume")
    elif kind == "link":
        null.symlink_to("/etc/secret")
    else:
        os.mknod(null, 0o020666, os.makedev(1, 5))
    (root.top / "etc/secret").write_text("secret")
    (root.top / "etc/masked").write_text("masked")

    def steps(plan):
        plan.attach(fd, "/dev", mode=3)
        plan.mask("/etc/masked")

    with pytest.raises(KernelError) as caught:
        root.run(steps)
    assert (caught.value.step, caught.value.errno) == ("mask", errno.EXDEV)


def test_stdio_gets_the_null_device_of_the_root(root):
    """The spawner's is an inode of the host, whose mode and owner root inside could change."""

    def steps(plan):
        plan.stdio(own_null=True)

    code, out = root.run(steps, "stat -L -c %d /proc/self/fd/0; stat -c %d /dev/null", null=True)
    inside, dev = out.split()
    assert (code, inside) == (0, dev)
    assert int(dev) != os.stat("/dev/null").st_dev


def test_stdio_has_a_null_device_where_the_root_has_none(root, volume):
    def steps(plan):
        plan.attach(volume[1], "/dev", mode=3)
        plan.stdio(own_null=True)

    code, out = root.run(
        steps, "cat < /proc/self/fd/0; stat -L -c %t:%T:%d /proc/self/fd/0", null=True
    )
    assert code == 0
    assert out.startswith("1:3:") and int(out.split(":")[2]) != os.stat("/dev/null").st_dev


def test_masks_of_files_and_directories(root):
    (root.top / "etc/d").mkdir()
    (root.top / "etc/d/x").write_text("x")
    (root.top / "etc/e").mkdir()
    (root.top / "etc/e/y").write_text("y")
    (root.top / "etc/f").write_text("f")

    def steps(plan):
        for name in ("d", "e", "f", "missing"):
            plan.mask(f"/etc/{name}")
        plan.mask("/etc/f/below-a-file")

    code, out = root.run(steps, "ls /etc/d /etc/e; cat /etc/f; : > /etc/d/new")
    assert out.split()[:2] == ["/etc/d:", "/etc/e:"]
    assert "x" not in out.split() and "y" not in out.split()
    assert code != 0 and "Read-only" in out


def test_device_node_over_something_else_is_refused(root):
    (root.top / "opt").mkdir()
    (root.top / "opt/d").write_text("a file")
    with pytest.raises(KernelError) as caught:
        root.run(lambda plan: plan.mknod("/opt/d", 0o020666, os.makedev(1, 3)))
    assert caught.value.errno == errno.EEXIST


def test_device_node_that_is_there_already_is_fine(root):
    os.mkdir(root.top / "opt")
    os.mknod(root.top / "opt/d", 0o020600, os.makedev(1, 5))
    root.run(lambda plan: plan.mknod("/opt/d", 0o020666, os.makedev(1, 5), 7, 8))
    info = (root.top / "opt/d").stat()
    assert (info.st_uid, info.st_gid) == (7, 8)


# ---- procfs ----


@pytest.mark.parametrize(
    ("file", "place", "name"),
    [("sys/value", "/proc", "value"), ("hostname", "/proc/sys/kernel", "kernel.hostname")],
    ids=["instead of procfs", "inside procfs"],
)
def test_values_go_to_a_real_procfs_only(root, volume, file, place, name):
    """A file that stands where a value of the kernel should be is not written to."""
    directory, fd = volume
    (directory / file).parent.mkdir(exist_ok=True)
    (directory / file).write_text("untouched")

    def steps(plan):
        plan.attach(fd, place, mode=3)
        plan.sysctl(name, "x")

    with pytest.raises(KernelError) as caught:
        root.run(steps)
    assert caught.value.errno == errno.EXDEV
    assert (directory / file).read_text() == "untouched"


def test_working_directory_follows_links_inside(root):
    (root.top / "tmp/real").mkdir()
    (root.top / "work").symlink_to("../../../tmp/real")
    assert root.run(lambda plan: plan.cwd("/work"), "readlink /proc/self/cwd") == (0, "/tmp/real\n")


# ---- another's /proc ----


@pytest.mark.parametrize("what", ["procfs", "tmpfs", "part of a procfs"])
def test_proc_of_another_mount_namespace(root, what):
    """It is taken over as a mount of its own if it is a whole procfs; nothing else is."""
    reader, writer = os.pipe()
    rootfs = LinuxKernel.tree_clone(str(root.top), recursive=False, propagation=MS_PRIVATE)
    plan = Plan(CLONE_NEWNS | CLONE_NEWPID)
    plan.private()
    plan.root(rootfs)
    if what == "tmpfs":
        plan.mount("tmpfs", "tmpfs", "/proc", 0)
    else:
        plan.mount("proc", "proc", "/proc", 0)
    part = os.open("/proc/sys", os.O_PATH)
    bind = LinuxKernel.tree_clone("", dirfd=part, recursive=False, propagation=MS_PRIVATE)
    if what == "part of a procfs":
        plan.attach(bind, "/proc", mode=3)
    plan.stdio()
    plan.exec(["/bin/sh", "-c", "echo ready; exec sleep 1000"], ENV)
    with spawn(plan, stdio=(0, writer, writer)) as process:
        assert os.read(reader, 100) == b"ready\n"
        namespace = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY)
        try:
            if what == "procfs":
                fd = LinuxKernel.proc_clone(namespace)
                assert [n for n in os.listdir(f"/proc/self/fd/{fd}") if n.isdigit()] == ["1"]
                os.close(fd)
            else:
                with pytest.raises(KernelError) as caught:
                    LinuxKernel.proc_clone(namespace)
                assert caught.value.errno == errno.EXDEV
        finally:
            process.kill()
            process.wait()
            for fd in (namespace, reader, writer, rootfs, part, bind):
                os.close(fd)
