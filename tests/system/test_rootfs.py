"""Images and root file systems (S5): host, --rootfs, import; overlays, isolation, hostile input."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from pynetns import errors

from .. import leaks

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path) -> Path:
    """A root file system of one static program: the shell of busybox would do as well."""
    root = tmp_path / "tree"
    for name in ("bin", "etc", "lib", "lib64", "usr/bin"):
        (root / name).mkdir(parents=True)
    source = tmp_path / "hello.c"
    source.write_text(
        '#include <stdio.h>\nint main(void) { char b[99] = ""; FILE *f = fopen("/etc/motd", "r");'
        ' if (f) fread(b, 1, 98, f); puts(b); f = fopen("/written", "w"); return f ? 0 : 1; }\n'
    )
    subprocess.run(
        ["gcc", "-static", "-w", "-o", root / "bin/hello", source], check=True, capture_output=True
    )
    (root / "etc/motd").write_text("from the tree")
    return root


def test_host_image_is_this_machine_copy_on_write(engine, run):
    assert run(["cat", "/etc/passwd"]) == Path("/etc/passwd").read_text()
    container = engine.containers.create("host", ["sh", "-c", "rm /etc/passwd; echo x > /etc/made"])
    container.start()
    assert container.wait()["StatusCode"] == 0
    assert os.path.exists("/etc/passwd") and not os.path.exists("/etc/made")
    upper = Path(engine.root, "overlay2", container.id, "diff", "etc")
    assert (upper / "made").read_text() == "x\n"
    assert (
        run(["sh", "-c", "test -e /etc/passwd && test ! -e /etc/made && echo apart"]) == "apart\n"
    )


def test_host_image_hides_the_engines_own_directories(engine, run):
    other = engine.containers.run("host", ["sleep", "1000"], detach=True)
    script = f"ls {engine.root}/containers {engine.exec_root} 2>&1 | grep -c {other.id[:6]}; true"
    assert run(["sh", "-c", script]).strip() == "0"


def test_host_image_shows_no_socket_of_run(engine, run, tmp_path):
    """A socket on a disk-backed /run would be a way out."""
    path = f"/run/pynetns-test-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        try:
            assert run(["sh", "-c", f"test -e {path} || echo hidden"]) == "hidden\n"
            assert run(["find", "/run", "/tmp", "!", "-type", "d"]) == ""
        finally:
            os.unlink(path)


def test_rootfs_directory_is_used_and_not_changed(engine, tree):
    before = sorted(p for p in tree.rglob("*"))
    out = engine.containers.run(rootfs=str(tree), command=["/bin/hello"], remove=True)
    assert out == b"from the tree\n"
    assert sorted(p for p in tree.rglob("*")) == before


@pytest.mark.parametrize("what", ["missing", "file", "parent"])
def test_bad_rootfs(engine, tmp_path, what):
    (tmp_path / "file").write_text("")
    path = {
        "missing": tmp_path / "no",
        "file": tmp_path / "file",
        "parent": Path(engine.root).parent,
    }
    with pytest.raises(errors.InvalidParameter, match="--rootfs"):
        engine.containers.create(rootfs=str(path[what]), command=["true"])
    assert engine.containers.list(all=True) == []


def make_tar(tree: Path, kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(tree, arcname=".")
    data = buffer.getvalue()
    if kind == "gzip":
        return gzip.compress(data)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


@pytest.mark.parametrize("kind", ["directory", "plain", "gzip", "zstd"])
def test_import(engine, tree, tmp_path, kind):
    source = str(tree)
    if kind != "directory":
        source = str(tmp_path / "tree.tar")
        Path(source).write_bytes(make_tar(tree, kind))
    image = engine.images.import_rootfs(source, "small:v1")
    assert image.tags == ["small:v1"]
    assert engine.containers.run("small:v1", ["/bin/hello"], remove=True) == b"from the tree\n"
    container = engine.containers.create(image.id, ["/bin/hello"])
    with pytest.raises(errors.Conflict):
        engine.images.remove("small:v1")
    # the kernel takes the link of the namespace that is gone away in the background
    leaks.wait_for_links({"link lo", f"link {engine.network.bridge_name}"})
    assert engine.gc() == []
    container.start()
    assert container.wait() == {"StatusCode": 0}
    container.remove()
    engine.images.remove("small:v1")
    with pytest.raises(errors.NotFound, match="No such image"):
        engine.images.get("small:v1")


def test_import_keeps_modes_owners_links_and_devices(engine, tree):
    os.chmod(tree / "bin/hello", 0o4755)
    os.chown(tree / "etc/motd", 12, 34)
    os.link(tree / "etc/motd", tree / "etc/motd2")
    os.symlink("/absolute", tree / "etc/link")
    os.mknod(tree / "etc/null", 0o20666, os.makedev(1, 3))
    image = engine.images.import_rootfs(str(tree), "kept")
    layer = Path(engine.image_store.resolve(image.id).lowers[0])
    assert (layer / "bin/hello").stat().st_mode & 0o7777 == 0o4755
    info = (layer / "etc/motd").stat()
    assert (info.st_uid, info.st_gid, info.st_nlink) == (12, 34, 2)
    assert os.readlink(layer / "etc/link") == "/absolute"
    assert (layer / "etc/null").stat().st_rdev == os.makedev(1, 3)


def test_damaged_archive_leaves_nothing(engine, tmp_path, tree):
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(make_tar(tree, "gzip")[:-200])
    before = sorted(os.listdir(f"{engine.root}/overlay2"))
    with pytest.raises(errors.PynetnsError):
        engine.images.import_rootfs(str(bad), "bad")
    assert sorted(os.listdir(f"{engine.root}/overlay2")) == before
    assert os.listdir(f"{engine.root}/tmp") == []
    assert [i.tags for i in engine.images.list() if "bad" in str(i.tags)] == []


def test_archive_cannot_write_outside(engine, tmp_path):
    target = tmp_path / "outside"
    target.mkdir()
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as tar:
        for name, link in (("link", str(target)), ("up", "..")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
        for name in ("link/a", "up/up/up/b", "../../c", "/d", f"{target}/e"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    try:
        engine.images.import_rootfs(str(evil), "evil")
    except errors.PynetnsError:
        pass
    assert os.listdir(target) == []
    for where in (engine.root, f"{engine.root}/overlay2", f"{engine.root}/tmp", "/"):
        assert not {"b", "c", "d"} & set(os.listdir(where)), where


@pytest.mark.parametrize("name", ["Upper", "a b", "x:", "a//b", "-x", ":tag"])
def test_bad_image_name(engine, tree, name):
    with pytest.raises(errors.InvalidParameter):
        engine.images.import_rootfs(str(tree), name)
    assert os.listdir(f"{engine.root}/tmp") == []


def test_unknown_image(engine):
    with pytest.raises(errors.NotFound, match="No such image: nothing"):
        engine.containers.create("nothing", ["true"])
    assert engine.containers.list(all=True) == []
