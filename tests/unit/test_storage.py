"""pynetns/storage: the mask of image `host`, layer directories, the image store."""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pynetns.errors import Conflict, InvalidParameter, NotFound, PynetnsError
from pynetns.kernel import LinuxKernel
from pynetns.model.state import State
from pynetns.storage.host_image import HostMask, MaskEntry, mask_entries, read_mounts
from pynetns.storage.images import ImageStore
from pynetns.storage.layers import create_layer_directory, remove_layer_directory, remove_tree
from pynetns.storage.rootfs import RootfsStore
from pynetns.store import Store

# ---- mask ----


def test_mask_hides_the_engine_and_empties_live_directories():
    entries = mask_entries(["/sys/fs/cgroup", "/mnt/ram", "/dev"], ["/var/lib/pn", "/run/pn"])
    found = {entry.path: entry.mode for entry in entries}
    assert found["/var/lib/pn"] is None
    assert "/run/pn" not in found and "/sys/fs/cgroup" not in found  # below an empty one
    assert found["/tmp"] == 0o1777 and found["/run"] == 0o755
    assert found["/mnt/ram"] == 0o755


def test_mask_entries_come_parents_first():
    paths = [entry.path for entry in mask_entries(["/a/b/c", "/a"], ["/a/x", "/ab"])]
    assert paths == sorted(paths)
    assert "/a" in paths and "/ab" in paths and "/a/b/c" not in paths and "/a/x" not in paths


def test_read_mounts():
    text = (
        "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "31 23 0:28 / /mnt/a\\040b rw master:1 shared:2 - tmpfs tmpfs rw\n"
    )
    assert read_mounts(text) == [("/", "ext4"), ("/mnt/a b", "tmpfs")]


@pytest.mark.root
def test_mask_is_made_once_by_many(tmp_path):
    for name in ("root", "exec"):
        (tmp_path / name).mkdir()
    masks = [
        HostMask(LinuxKernel(), str(tmp_path / "root"), str(tmp_path / "exec")) for _ in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(HostMask.ensure, masks))
    place = tmp_path / "exec/image"
    assert os.listdir(place) == ["mask"]
    assert os.getxattr(place / "mask/run", "trusted.overlay.opaque") == b"y"
    assert os.stat(place / "mask/tmp").st_mode & 0o7777 == 0o1777
    masks[0].remove()
    masks[1].remove()
    assert os.listdir(place) == []


@pytest.mark.root
@pytest.mark.parametrize("top", ["/tmp", "/var/lib"])
def test_mask_is_made_whole_again(tmp_path, top):
    """A cleaner of temporary files has deleted of it what was old."""
    import secrets
    import shutil

    exec_root = tmp_path / "exec"
    exec_root.mkdir()
    mask = HostMask(LinuxKernel(), f"{top}/pn-{secrets.token_hex(4)}", str(exec_root))
    mask.ensure()
    made = {(p.relative_to(mask.path), p.lstat().st_mode) for p in Path(mask.path).rglob("*")}
    for loss in ("run", "var", "tmp"):
        shutil.rmtree(f"{mask.path}/{loss}", ignore_errors=True)
    HostMask(LinuxKernel(), *mask._hidden).ensure()
    again = {(p.relative_to(mask.path), p.lstat().st_mode) for p in Path(mask.path).rglob("*")}
    assert again == made
    assert os.getxattr(f"{mask.path}/tmp", "trusted.overlay.opaque") == b"y"
    mask.remove()


@pytest.mark.root
def test_mask_looks_like_the_host_on_the_way(tmp_path):
    from pynetns.storage.host_image import write_mask

    write_mask(LinuxKernel(), str(tmp_path / "mask"), [MaskEntry("/var/lib/pn-test", None)])
    for path in ("/", "/var", "/var/lib"):
        ours, theirs = os.stat(f"{tmp_path}/mask{path}"), os.stat(path)
        assert (ours.st_mode, ours.st_uid, ours.st_gid) == (
            theirs.st_mode,
            theirs.st_uid,
            theirs.st_gid,
        )
    assert os.stat(tmp_path / "mask/var/lib/pn-test").st_rdev == 0


# ---- layers ----


def test_layer_is_made_and_removed(tmp_path):
    root = str(tmp_path)
    (tmp_path / "overlay2").mkdir()
    old = os.umask(0o077)
    try:
        create_layer_directory(root, "one")
    finally:
        os.umask(old)
    layer = tmp_path / "overlay2/one"
    assert os.stat(layer / "diff").st_mode & 0o7777 == 0o755
    (layer / "work/work").mkdir(mode=0)
    remove_layer_directory(root, "one")
    remove_layer_directory(root, "one")
    assert os.listdir(tmp_path / "overlay2") == []


def test_layer_with_files_is_removed_and_links_are_not_followed(tmp_path):
    root = str(tmp_path)
    (tmp_path / "overlay2").mkdir()
    (tmp_path / "kept").write_text("x")
    create_layer_directory(root, "one")
    (tmp_path / "overlay2/one/diff/link").symlink_to(tmp_path)
    (tmp_path / "overlay2/one/diff/dir").mkdir()
    remove_layer_directory(root, "one")
    assert (tmp_path / "kept").exists()
    assert not (tmp_path / "overlay2/one").exists()


def test_very_deep_tree_is_removed(tmp_path):
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    os.close(top)
    remove_tree(str(tmp_path / "d"))
    assert os.listdir(tmp_path) == []


# ---- images ----


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    for name in ("overlay2", "tmp", "image"):
        (path / name).mkdir(parents=True)
    return path


@pytest.fixture
def images(root):
    store = Store(f"{root}/pynetns.db")
    yield ImageStore(store, LinuxKernel(), str(root), f"{root}-exec")
    store.close()


def archive(text: str = "x") -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size, info.uid, info.gid = len(text), os.getuid(), os.getgid()
        tar.addfile(info, io.BytesIO(text.encode()))
    buffer.seek(0)
    return buffer


def test_host_is_always_there(images):
    host = images.resolve("host")
    assert images.resolve("host:latest") is host and images.resolve(host.id[:20]) is host
    assert images.list() == [host]
    with pytest.raises(Conflict, match="own root"):
        images.remove("host")
    with pytest.raises(InvalidParameter, match="host"):
        images.import_rootfs(archive(), "host")


def test_import_find_and_remove(images, root):
    image = images.import_rootfs(archive(), "app:v1", changes=["CMD run", "ENV A=b"])
    assert image.names == ("app:v1",)
    assert image.config["Env"] == ["A=b"]
    digits = image.id.removeprefix("sha256:")
    for reference in ("app:v1", image.id, digits, digits[:6], image.id[:14]):
        assert images.resolve(reference) == image
    for reference in ("app", "app:v2", "App", "", "ffff" * 16):
        with pytest.raises(NotFound, match="No such image"):
            images.resolve(reference)
    assert images.owns_layer(os.listdir(root / "overlay2")[0])
    images._store.add_container("abc", "web", "", State(), image.id)
    with pytest.raises(Conflict, match="used by container abc"):
        images.remove("app:v1")
    assert images.resolve("app:v1") == image
    images._store.remove_container("abc")
    images.remove("app:v1")
    assert os.listdir(root / "overlay2") == os.listdir(root / "tmp") == []


def test_same_content_is_one_image_and_one_layer(images, root):
    first = images.import_rootfs(archive(), "one")
    again = images.import_rootfs(archive(), "two")
    assert again.id == first.id and again.names == ("one:latest", "two:latest")
    other = images.import_rootfs(archive(), "three", changes=["USER 5"])
    assert other.id != first.id and other.lowers == first.lowers
    assert len(os.listdir(root / "overlay2")) == 1
    with pytest.raises(Conflict, match="several names"):
        images.remove(first.id)
    images.remove("one")
    assert images.resolve("two").id == first.id
    images.remove("two")
    assert os.path.exists(other.lowers[0])
    images.remove(other.id)
    assert os.listdir(root / "overlay2") == []


def test_name_moves_to_the_new_image(images):
    old = images.import_rootfs(archive("old"), "app")
    new = images.import_rootfs(archive("new"), "app")
    assert images.resolve("app").id == new.id
    assert images.resolve(old.id).names == ()


def test_many_imports_at_once(images, root):
    with ThreadPoolExecutor(6) as pool:
        texts = ["a", "b"] * 6
        made = list(pool.map(lambda text: images.import_rootfs(archive(text), f"n{text}"), texts))
    assert len({image.id for image in made}) == 2
    assert len(os.listdir(root / "overlay2")) == 2
    assert os.listdir(root / "tmp") == []


def test_nobody_else_is_at_the_layers_while_an_image_comes_or_goes(images, root, monkeypatch):
    """An import may find its layer there, which a removal of another image is about to take."""
    alone: list[str] = []

    def watched(verb):
        real = getattr(Store, verb)

        def call(store, *args):
            with open_directory(root / "image") as fd, pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone.append(verb)
            return real(store, *args)

        monkeypatch.setattr(Store, verb, call)

    for verb in ("add_image", "tag_image", "untag_image", "remove_image"):
        watched(verb)
    images.import_rootfs(archive(), "one")
    images.import_rootfs(archive(), "two")
    images.remove("one")
    images.remove("two")
    assert alone == ["add_image", "tag_image", "untag_image", "remove_image"]
    with open_directory(root / "image") as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def open_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_failing_import_leaves_nothing(images, root, tmp_path):
    for source in (io.BytesIO(b"x" * 5000), str(tmp_path / "none"), str(tmp_path), str(root)):
        with pytest.raises(PynetnsError, match="import: "):
            images.import_rootfs(source, "bad")
    assert os.listdir(root / "overlay2") == os.listdir(root / "tmp") == []
    assert len(images.list()) == 1


def test_collect_takes_what_a_dead_import_left(images, root):
    (root / "tmp/import-0123/diff").mkdir(parents=True)
    (root / "tmp/other").mkdir()
    assert images.collect() == [f"import {root}/tmp/import-0123"]
    assert os.listdir(root / "tmp") == ["other"]


def test_collect_leaves_an_import_that_is_at_work(images, root):
    collected = []

    class Source(io.BytesIO):
        def read(self, size=-1):
            collected.append(images.collect())
            return super().read(size)

    image = images.import_rootfs(Source(archive().getvalue()), "app")
    assert collected and not any(collected)
    assert os.path.exists(f"{image.lowers[0]}/file")
    assert images.collect() == []


def test_by_id_and_force_all_names_go(images, root):
    image = images.import_rootfs(archive(), "one")
    images.import_rootfs(archive(), "two")
    with pytest.raises(Conflict, match="several names"):
        images.remove(image.id)
    images.remove(image.id, force=True)
    assert len(images.list()) == 1 and os.listdir(root / "overlay2") == []
    for name in ("one", "two", image.id):
        with pytest.raises(NotFound):
            images.remove(name)


# ---- rootfs ----


@pytest.mark.parametrize(
    ("path", "reason"),
    [("relative", "absolute"), ("/none", "no such"), ("/etc/passwd", "no such"), ("/", "host")],
)
def test_check_directory(root, path, reason):
    rootfs = RootfsStore(LinuxKernel(), str(root), f"{root}-exec")
    with pytest.raises(InvalidParameter, match=reason):
        rootfs.check_directory(path)


def test_root_itself_and_links_to_its_parents_are_refused(root, tmp_path):
    rootfs = RootfsStore(LinuxKernel(), str(root), f"{root}-exec")
    (tmp_path / "link").symlink_to(root.parent)
    for path in (root, root.parent, tmp_path / "link"):
        with pytest.raises(InvalidParameter, match="own root"):
            rootfs.check_directory(str(path))
    (tmp_path / "root-like").mkdir()
    rootfs.check_directory(str(tmp_path / "root-like"))


@pytest.mark.root
def test_shm_is_shared_and_given_back(root, tmp_path):
    rootfs = RootfsStore(LinuxKernel(), str(root), str(tmp_path / "exec"))
    assert rootfs.shm_path("a", "private") == rootfs.shm_path("a", "none") == ""
    assert rootfs.shm_path("a", "host") == "/dev/shm"
    path = rootfs.shm_path("a", "shareable", 1 << 20)
    try:
        assert rootfs.shm_path("b", "container:a") == path
        assert rootfs.shm_path("a", "shareable") == path
        assert os.statvfs(path).f_frsize * os.statvfs(path).f_blocks == 1 << 20
    finally:
        rootfs.release_shm("a")
    rootfs.release_shm("a")
    assert not os.path.exists(path)


@pytest.mark.root
def test_mount_of_host_shows_the_host_and_not_the_engine(root, tmp_path):
    """The exec root is a tmpfs, as the engine makes it; the layer lies wherever tests do."""
    exec_root = tmp_path / "exec"
    exec_root.mkdir()
    LinuxKernel.tmpfs_mount(str(exec_root), "mode=700")
    try:
        rootfs = RootfsStore(LinuxKernel(), str(root), str(exec_root))
        mask = HostMask(LinuxKernel(), str(root), str(exec_root))
        rootfs.create_layer("one")
        fd = rootfs.mount("one", mask.lowers)
        try:
            inside = f"/proc/self/fd/{fd}"
            with open(f"{inside}/etc/passwd") as ours, open("/etc/passwd") as theirs:
                assert ours.read() == theirs.read()
            assert not os.path.exists(f"{inside}{root}")
            assert os.listdir(f"{inside}/dev") == []
            assert os.listdir(f"{inside}/run") == ["lock"]
        finally:
            os.close(fd)
        rootfs.remove_layer("one")
    finally:
        LinuxKernel.umount(str(exec_root))
