"""csrc/mount.c: detached mounts, and paths resolved below a root."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import LinuxKernel, mount
from pynetns.kernel.mount import MOUNT_ATTR_RDONLY, MS_PRIVATE

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path) -> Path:
    for name in ("low1", "low2", "diff", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "low1/both").write_text("one")
    (tmp_path / "low2/both").write_text("two")
    (tmp_path / "low2/below").write_text("two")
    return tmp_path


@contextlib.contextmanager
def overlay(*args, **options):
    fd = LinuxKernel.overlay_mount(*args, **options)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_overlay_joins_layers_top_first_and_writes_to_upper(layers):
    lowers = [str(layers / "low1"), str(layers / "low2")]
    with overlay(lowers, str(layers / "diff"), str(layers / "work")) as top:
        assert (top / "both").read_text() == "one"
        assert (top / "below").read_text() == "two"
        (top / "made").write_text("x")
        (top / "below").unlink()
    assert (layers / "diff/made").read_text() == "x"
    assert (layers / "low2/below").exists()
    assert (layers / "diff/below").is_char_device()


def test_overlay_is_in_no_mount_table(layers):
    with overlay([str(layers / "low1")], str(layers / "diff"), str(layers / "work")):
        assert str(layers) not in Path("/proc/self/mountinfo").read_text()


def test_read_only_union(layers):
    with overlay([str(layers / "low1"), str(layers / "low2")], readonly=True) as top:
        assert (top / "below").read_text() == "two"
        with pytest.raises(OSError, match="Read-only"):
            (top / "made").write_text("x")


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", 'a"b', "x" * 200 + "/" + "y" * 200])
def test_any_directory_name(tmp_path, name):
    for part in ("low", "diff", "work"):
        (tmp_path / name / part).mkdir(parents=True)
    (tmp_path / name / "low/file").write_text("here")
    paths = [str(tmp_path / name / part) for part in ("low", "diff", "work")]
    with overlay([paths[0], "/etc"], paths[1], paths[2]) as top:
        assert (top / "file").read_text() == "here"
        assert (top / "passwd").exists()
        (top / "made").write_text("x")
    assert (tmp_path / name / "diff/made").exists()


@pytest.mark.parametrize("count", [2, 8, 60])
def test_many_layers(tmp_path, count):
    lowers = []
    for number in range(count):
        lower = tmp_path / f"a-rather-long-name-of-a-layer-{number}"
        lower.mkdir()
        (lower / "top").write_text(str(number))
        (lower / f"own{number}").touch()
        lowers.append(str(lower))
    with overlay(lowers, readonly=True) as top:
        assert (top / "top").read_text() == "0"
        assert len(os.listdir(top)) == count + 1


def stack_of(directory: Path, count: int) -> list[str]:
    """Layers, top first; each has a file of its own, and all have `top` and `hidden`, which the
    topmost but one removes."""
    lowers = []
    for number in range(count):
        lower = directory / f"a-rather-long-name-of-a-layer-{number}"
        lower.mkdir()
        (lower / "top").write_text(str(number))
        (lower / f"own{number}").touch()
        if number == 1:
            os.mknod(lower / "hidden", 0o20000, os.makedev(0, 0))
        elif number > 1:
            (lower / "hidden").touch()
        lowers.append(str(lower))
    return lowers


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("count", [16, 20, 100, 127, 500])
def test_many_layers_without_appending(tmp_path, count):
    """As on Linux 5.15 to 6.6: the options of all layers go into one page."""
    lowers, before = stack_of(tmp_path, count), mounts()
    for part in ("diff", "work"):
        (tmp_path / part).mkdir()
    with overlay(lowers, str(tmp_path / "diff"), str(tmp_path / "work"), append=False) as top:
        assert mounts() == before
        assert (top / "top").read_text() == "0"
        assert not (top / "hidden").exists()
        assert {f"own{number}" for number in range(count)} <= set(os.listdir(top))
        (top / "made").write_text("x")
        (top / f"own{count - 1}").unlink()
        assert not os.path.ismount(tmp_path / "diff")
    assert (tmp_path / "diff/made").read_text() == "x"
    assert (tmp_path / f"diff/own{count - 1}").is_char_device()
    assert Path(lowers[-1], f"own{count - 1}").exists()
    assert mounts() == before


def test_union_without_appending_is_read_only(tmp_path):
    with overlay(stack_of(tmp_path, 40), readonly=True, append=False) as top:
        with pytest.raises(OSError, match="Read-only"):
            (top / "made").write_text("x")
        assert os.statvfs(top).f_flag & os.ST_RDONLY


def test_relative_paths_without_appending(tmp_path, monkeypatch):
    lowers = [os.path.basename(lower) for lower in stack_of(tmp_path, 40)]
    monkeypatch.chdir(tmp_path)
    with overlay(lowers, readonly=True, append=False) as top:
        assert len(os.listdir(top)) == 41


def test_nothing_of_the_many_layers_reaches_a_shared_mount(tmp_path):
    """The scratch mount over "/" must not propagate: not even where "/" is shared."""
    lowers = stack_of(tmp_path, 40)
    script = (
        "import os, sys; from pynetns.kernel import LinuxKernel;"
        "read = lambda: open('/proc/self/mountinfo').read();"
        "before = read(); fd = LinuxKernel.overlay_mount(sys.argv[1:], readonly=True, append=False);"
        "assert os.path.exists(f'/proc/self/fd/{fd}/own39'); os.close(fd); assert read() == before"
    )
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "shared", sys.executable, "-c", script, *lowers],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_many_layers_in_a_chroot_are_refused_by_name(tmp_path):
    """Its "/" is no mount point, so that it cannot be kept from propagating."""
    lowers = [f"/{os.path.basename(lower)}" for lower in stack_of(tmp_path, 40)]
    script = (
        "import os, sys; from pynetns.kernel import LinuxKernel; from pynetns.errors import KernelError\n"
        "os.chroot(sys.argv[1]); os.chdir('/')\n"
        "try: LinuxKernel.overlay_mount(sys.argv[2:], readonly=True, append=False)\n"
        "except KernelError as error: assert '/ must be a mount point' in str(error), error\n"
        "else: sys.exit('mounted')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *lowers],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_more_than_500_layers_are_refused(tmp_path):
    for count in (0, 501):
        with pytest.raises(KernelError, match="1 to 500 layers"):
            LinuxKernel.overlay_mount([str(tmp_path)] * count, readonly=True)


FAULTS = {
    "lower missing": (["low1", "none"], "diff", "work", errno.ENOENT, "lowerdir {}/none"),
    "lower a file": (["low1", "low1/both"], "diff", "work", errno.ENOTDIR, "lowerdir {}/low1/both"),
    "upper missing": (["low1"], "none", "work", errno.ENOENT, "upperdir {}/none"),
    "upper a file": (["low1"], "low1/both", "work", errno.ENOTDIR, "upperdir {}/low1/both"),
    "work missing": (["low1"], "diff", "none", errno.ENOENT, "workdir {}/none"),
    "work elsewhere": (["low1"], "diff", "/dev/shm", errno.EINVAL, "workdir /dev/shm: must be on"),
    "work the upper": (["low1"], "diff", "diff", errno.EINVAL, "workdir {}/diff: must not be"),
    "upper on overlay": (
        ["low1"],
        "over/diff",
        "over/work",
        errno.EINVAL,
        "not supported as upper",
    ),
}


@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_failing_overlay_names_the_directory(layers, fault, append):
    """Up to Linux 6.4 the kernel tells nobody but its log; mount(2) does so to this day."""
    lowers, upper, work, code, text = FAULTS[fault]
    lowers = [str(layers / lower) for lower in lowers]
    lowers += [] if append else stack_of(layers, 40)
    with contextlib.ExitStack() as scope:
        if fault == "upper on overlay":
            (layers / "over").mkdir()
            (layers / "low2/diff").mkdir()
            (layers / "low2/work").mkdir()
            with overlay([str(layers / "low2")], str(layers / "diff"), str(layers / "work")) as top:
                mount.mount_attach(int(top.name), str(layers / "over"))
            scope.callback(LinuxKernel.umount, str(layers / "over"))
        with pytest.raises(KernelError) as caught:
            LinuxKernel.overlay_mount(
                lowers, str(layers / upper), str(layers / work), append=append
            )
    assert caught.value.errno == code
    assert text.format(layers) in caught.value.detail


def test_failing_overlay_keeps_the_end_of_a_long_path(tmp_path):
    lower = str(tmp_path / ("x" * 200) / ("y" * 200) / "none")
    with pytest.raises(KernelError) as caught:
        LinuxKernel.overlay_mount([lower], readonly=True)
    assert caught.value.detail.startswith("lowerdir ...")
    assert caught.value.detail.endswith("y/none")


def test_layer_inside_another_one_is_refused(layers):
    with pytest.raises(KernelError) as caught:
        LinuxKernel.overlay_mount([str(layers / "low1"), str(layers)], readonly=True)
    assert caught.value.errno == errno.ELOOP


def test_upper_below_its_own_lower_cannot_be_entered(layers):
    """Allowed since Linux 5.13; what image `host` rests on."""
    with overlay([str(layers)], str(layers / "diff"), str(layers / "work")) as top:
        assert (top / "low1/both").read_text() == "one"
        with pytest.raises(OSError, match="symbolic links"):
            os.listdir(top / "diff")


def test_whiteout_and_opaque_directory_of_a_layer_on_tmpfs(layers):
    mask = layers / "mask"
    mask.mkdir()
    LinuxKernel.tmpfs_mount(str(mask), "mode=755")
    try:
        os.mknod(mask / "low1", 0o20000, os.makedev(0, 0))
        (mask / "low2").mkdir()
        os.setxattr(mask / "low2", "trusted.overlay.opaque", b"y")
        work = (str(layers / "diff"), str(layers / "work"))
        with overlay([str(mask), str(layers)], *work) as top:
            assert not (top / "low1").exists()
            assert os.listdir(top / "low2") == []
    finally:
        LinuxKernel.umount(str(mask))


def test_stack_of_three_is_refused(layers):
    stack = [str(layers / "low1")]
    with contextlib.ExitStack() as scope:
        for depth in range(2):
            point = layers / f"mnt{depth}"
            point.mkdir()
            with overlay([*stack, str(layers / "low2")], readonly=True) as top:
                mount.mount_attach(int(top.name), str(point))
            scope.callback(LinuxKernel.umount, str(point))
            stack = [str(point)]
        with pytest.raises(KernelError) as caught:
            LinuxKernel.overlay_mount([*stack, str(layers / "low2")], readonly=True)
    assert (caught.value.errno, caught.value.step) == (errno.EINVAL, "overlay")


def test_tree_clone_is_read_only_and_private(layers):
    fd = LinuxKernel.tree_clone(str(layers), attr_set=MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE)
    try:
        copy = Path(f"/proc/self/fd/{fd}")
        assert (copy / "low1/both").read_text() == "one"
        with pytest.raises(OSError, match="Read-only"):
            (copy / "made").touch()
        (layers / "made").touch()
        assert (copy / "made").exists()
    finally:
        os.close(fd)


def test_tree_clone_of_a_file_by_descriptor(layers):
    origin = os.open(layers / "low1/both", os.O_PATH)
    target = layers / "target"
    target.touch()
    try:
        fd = LinuxKernel.tree_clone("", dirfd=origin, recursive=False)
        try:
            mount.mount_attach(fd, str(target))
            assert target.read_text() == "one"
        finally:
            os.close(fd)
            LinuxKernel.umount(str(target))
    finally:
        os.close(origin)
    assert target.read_text() == ""


def test_tree_clone_noatime_replaces_the_atime_setting(layers):
    os.close(LinuxKernel.tree_clone(str(layers), attr_set=0x10))
    with pytest.raises(KernelError) as caught:
        LinuxKernel.tree_clone(str(layers / "none"))
    assert (caught.value.step, caught.value.errno) == ("open_tree", errno.ENOENT)


def test_tmpfs_is_private_and_umount_is_idempotent(tmp_path):
    point = str(tmp_path)
    LinuxKernel.tmpfs_mount(point, "mode=700,size=64k")
    try:
        line = next(x for x in Path("/proc/self/mountinfo").read_text().splitlines() if point in x)
        assert "shared:" not in line and "tmpfs" in line and "size=64k" in line
        assert os.stat(point).st_mode & 0o777 == 0o700
    finally:
        LinuxKernel.umount(point)
    LinuxKernel.umount(point)
    LinuxKernel.umount(f"{point}/none")
    with pytest.raises(KernelError):
        LinuxKernel.tmpfs_mount(f"{point}/none", "")
    with pytest.raises(KernelError):
        LinuxKernel.tmpfs_mount(point, "nonsense=1")


def test_umount_does_not_follow_a_symlink(tmp_path):
    (tmp_path / "point").mkdir()
    (tmp_path / "link").symlink_to("point")
    LinuxKernel.tmpfs_mount(str(tmp_path / "point"), "")
    try:
        LinuxKernel.umount(str(tmp_path / "link"))
        assert os.path.ismount(tmp_path / "point")
    finally:
        LinuxKernel.umount(str(tmp_path / "point"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/inside").write_text("inside")
    (tmp_path / "outside").write_text("outside")
    (tmp_path / "root/up").symlink_to("../outside")
    (tmp_path / "root/absolute").symlink_to("/etc/inside")
    (tmp_path / "root/loop").symlink_to("loop")
    (tmp_path / "root/magic").symlink_to("/proc/self/root")
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("path", ["etc/inside", "/etc/inside", "absolute", "../../etc/inside"])
def test_open_in_root_stays_inside(root, path):
    fd = LinuxKernel.open_in_root(root, path, os.O_RDONLY)
    try:
        assert os.read(fd, 99) == b"inside"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "code"), [("up", errno.ENOENT), ("loop", errno.ELOOP), ("magic", errno.ENOENT)]
)
def test_open_in_root_refuses(root, path, code):
    with pytest.raises(KernelError) as caught:
        LinuxKernel.open_in_root(root, path, os.O_RDONLY)
    assert (caught.value.errno, caught.value.step) == (code, "resolve")


def test_open_in_root_takes_no_magic_link():
    fd = os.open("/", os.O_PATH)
    try:
        with pytest.raises(KernelError) as caught:
            LinuxKernel.open_in_root(fd, "/proc/self/root/etc", os.O_PATH)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(fd)


def test_open_in_root_while_directories_move(root, tmp_path):
    """Renames meanwhile make the kernel unsure of ".."; it is asked again."""
    (tmp_path / "root/a/b").mkdir(parents=True)
    ended = threading.Event()

    def move():
        while not ended.is_set():
            os.rename(tmp_path / "root/a", tmp_path / "root/c")
            os.rename(tmp_path / "root/c", tmp_path / "root/a")

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(500):
            os.close(LinuxKernel.open_in_root(root, "etc/../etc/inside", os.O_RDONLY))
    finally:
        ended.set()
        thread.join()
