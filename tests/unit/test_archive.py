"""pynetns/storage/archive.py and reference.py: tar in, nothing outside; names and --change."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import tracemalloc
import zlib

import pytest

from pynetns.errors import InvalidParameter, NotFound, Unavailable
from pynetns.storage.archive import decompressed, import_directory, import_tar
from pynetns.storage.reference import apply_changes, id_prefix, parse_reference

from ..tars import make_tar, member, symlink


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor(level=1).compress(data)


COMPRESSIONS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
TREE = make_tar(
    member("./", type=tarfile.DIRTYPE, mode=0o750),
    member("etc", type=tarfile.DIRTYPE, mode=0o755),
    member("etc/motd", b"hello\n", mode=0o640),
    member("etc/also", type=tarfile.LNKTYPE, linkname="etc/motd"),
    member("big", os.urandom(1_100_000)),
    symlink("link", "/absolute/elsewhere"),
    member("\u00fcml\u00e4ut/" + "long" * 40, b"x"),
)


@pytest.fixture
def target(tmp_path) -> str:
    path = tmp_path / "top/target"
    path.mkdir(parents=True)
    return str(path)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_import_tar(target, kind):
    content = import_tar(io.BytesIO(COMPRESSIONS[kind](TREE)), target)
    assert content.size == len(TREE)
    with open(f"{target}/etc/motd") as file:
        assert file.read() == "hello\n"
    info = os.stat(f"{target}/etc/motd")
    assert (info.st_mode & 0o7777, info.st_nlink) == (0o640, 2)
    assert os.stat(target).st_mode & 0o7777 == 0o750
    assert os.readlink(f"{target}/link") == "/absolute/elsewhere"
    assert os.path.getsize(f"{target}/big") == 1_100_000


def test_digest_is_of_the_plain_content(tmp_path):
    found = set()
    for kind, compress in COMPRESSIONS.items():
        (tmp_path / kind).mkdir()
        found.add(import_tar(io.BytesIO(compress(TREE)), str(tmp_path / kind)).digest)
    assert len(found) == 1


def test_a_source_that_gives_little_at_a_time(target):
    class Slow:
        def __init__(self) -> None:
            self.data = io.BytesIO(gzip.compress(TREE))

        def read(self, size: int) -> bytes:
            return self.data.read(min(size, 1000))

    assert import_tar(Slow(), target).size == len(TREE)  # type: ignore[arg-type]


def test_concatenated_frames():
    for compress in (gzip.compress, zstd, bz2.compress, lzma.compress):
        data = compress(b"one") + compress(b"two")
        assert b"".join(decompressed(io.BytesIO(data))) == b"onetwo"


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (kind, damage)
        for kind in COMPRESSIONS
        for damage in ("cut", "changed", "cut early")
        if (kind, damage) != ("zstd", "changed")  # without a checksum it cannot tell
    ],
)
def test_damaged_archive_is_refused(target, kind, damage):
    data = bytearray(COMPRESSIONS[kind](TREE))
    if damage == "cut":
        del data[-len(data) // 3 :]
    elif damage == "cut early":
        del data[100:]
    elif kind == "plain":
        data[300] ^= 255  # in the checksummed header
    else:
        data[len(data) // 2] ^= 255
        data[len(data) // 2 + 1] ^= 255
    with pytest.raises(InvalidParameter, match="import: "):
        import_tar(io.BytesIO(data), target)


@pytest.mark.parametrize("data", [b"", b"x", b"no archive at all" * 100])
def test_no_archive_is_refused(target, data):
    with pytest.raises(InvalidParameter):
        import_tar(io.BytesIO(data), target)


def test_archive_cut_between_members_is_refused(target):
    data = make_tar(member("one", b"1"))
    with pytest.raises(InvalidParameter, match="cut off"):
        import_tar(io.BytesIO(data[:1024]), target)


def test_what_follows_the_end(target):
    """Ignored, as by docker import; but another archive would be lost without a word."""
    content = import_tar(io.BytesIO(TREE + bytes(20_000) + b"trailing bytes" * 100), target)
    assert content.size == len(TREE) + 20_000 + 1400
    other = make_tar(member("other", b"1"))
    for gap in (0, 512, 1 << 21):
        with pytest.raises(InvalidParameter, match=r"another archive follows.*--concatenate"):
            import_tar(io.BytesIO(TREE + bytes(gap) + other), target)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz"])
def test_what_follows_compressed_data(target, kind):
    with pytest.raises(InvalidParameter, match="import: "):
        import_tar(io.BytesIO(COMPRESSIONS[kind](TREE) + b"trailing bytes"), target)


def test_one_block_of_zeros_is_an_end(target):
    import_tar(io.BytesIO(make_tar(member("one", b"1"))[: 1024 + 512]), target)


def test_damage_says_where(target):
    data = bytearray(make_tar(member("one", b"1"), member("two", b"2")))
    data[1024] ^= 255
    with pytest.raises(InvalidParameter, match="damaged at byte 1536"):
        import_tar(io.BytesIO(data), target)
    with pytest.raises(InvalidParameter, match="no tar archive"):
        import_tar(io.BytesIO(b"no archive" * 500), target)


MANIFEST = b'[{"Config": "a.json", "RepoTags": null, "Layers": ["a/layer.tar"]}]'
SAVED = {
    "docker save": [
        member("a.json", b"{}"),
        member("a/layer.tar"),
        member("manifest.json", MANIFEST),
    ],
    "an OCI layout": [
        *(member("oci-layout", b"{}"), member("index.json", b"{}")),
        member("blobs/sha256/0", b"x"),
    ],
}


@pytest.mark.parametrize("kind", SAVED)
def test_a_saved_image_is_recognised(target, tmp_path, kind):
    for _, data in SAVED[kind]:
        data.seek(0)
    archive = make_tar(*SAVED[kind])
    with pytest.raises(InvalidParameter, match=rf"{kind}.*docker export"):
        import_tar(io.BytesIO(archive), target)
    (tmp_path / "copy").mkdir()
    with pytest.raises(InvalidParameter, match=f"{kind}.*docker export"):
        import_directory(target, str(tmp_path / "copy"))


@pytest.mark.parametrize("text", [b"{}", b"[]", b"[1]", b"no JSON", b"[" * 100_000])
def test_a_manifest_of_something_else_is_a_file(target, text):
    import_tar(io.BytesIO(make_tar(member("manifest.json", text), member("etc/x"))), target)
    import_tar(io.BytesIO(make_tar(symlink("manifest.json", "etc/x"))), target)


@pytest.mark.security
def test_compressed_zeros_take_no_memory():
    """256 MiB of zeros: what is held of it at a time is some MiB."""
    data, member_of_zeros = bytearray(), gzip.compress(bytes(1 << 24), 1)
    for _ in range(16):
        data += member_of_zeros
    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in decompressed(io.BytesIO(data))) == 1 << 28
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.security
def test_xz_that_wants_gigabytes(target):
    header = bytearray(lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]))
    # the dictionary's size is a byte of the block header (offset 12 of the stream): 4 GiB less one
    size = (header[12] + 1) * 4
    header[12 + 4] = 40
    header[12 + size - 4 : 12 + size] = zlib.crc32(bytes(header[12 : 12 + size - 4])).to_bytes(
        4, "little"
    )
    with pytest.raises(InvalidParameter, match=r"[Mm]emory"):
        import_tar(io.BytesIO(header), target)


def test_without_tar(target, monkeypatch):
    """Only directories need it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    import_tar(io.BytesIO(TREE), target)
    with pytest.raises(Unavailable, match="GNU tar"):
        import_directory(target, target)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").write_text("x")
    os.chmod(root / "sub/file", 0o4711)
    os.link(root / "sub/file", root / "sub/same")
    (root / "link").symlink_to("/elsewhere")
    os.mkfifo(root / "pipe")
    with open(root / "sparse", "wb") as file:
        file.truncate(8 << 20)
    return root


def test_import_directory(tree, target):
    import_directory(str(tree), target)
    info = os.stat(f"{target}/sub/file")
    assert (info.st_mode & 0o7777, info.st_nlink) == (0o4711, 2)
    assert os.readlink(f"{target}/link") == "/elsewhere"
    assert os.path.getsize(f"{target}/sparse") == 8 << 20
    assert os.stat(f"{target}/sparse").st_blocks < 100
    assert os.path.exists(f"{target}/pipe")


def test_sockets_are_left_out_and_the_digest_stays(tree, tmp_path):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(import_directory(str(tree), str(tmp_path / name)).digest)
        with socket.socket(socket.AF_UNIX) as server:
            if name == "one":
                times = os.stat(tree)
                server.bind(str(tree / "socket"))
                os.utime(tree, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found[0] == found[1]
    assert not (tmp_path / "two/socket").exists()


def test_user_attributes_are_kept_and_overlays_are_not(tree, target):
    try:
        os.setxattr(tree / "sub", "user.color", b"red")
        os.setxattr(tree / "sub", "trusted.overlay.opaque", b"y")
    except OSError:
        pytest.skip("no such attributes here")
    import_directory(str(tree), target)
    assert os.listxattr(f"{target}/sub") == ["user.color"]


def test_missing_directory(target):
    with pytest.raises(NotFound):
        import_directory(f"{target}/none", target)


# ---- names and changes ----


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a", "a:latest"),
        ("repo:v1.2_x", "repo:v1.2_x"),
        ("host.example:5000/team/app:tag", "host.example:5000/team/app:tag"),
        ("a__b/c-d", "a__b/c-d:latest"),
    ],
)
def test_reference(text, parsed):
    assert parse_reference(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "A", "a b", ":x", "a:", "a/", "/a", "a//b", "a:" + "t" * 129, "f" * 64, "a@sha256:1"],
)
def test_bad_reference(text):
    with pytest.raises(InvalidParameter):
        parse_reference(text)


def test_id_prefix():
    assert id_prefix("ab12") == "sha256:ab12"
    assert id_prefix("sha256:ab12") == "sha256:ab12"
    assert id_prefix("xyz") == id_prefix("sha256:") == id_prefix("a" * 65) == ""


def test_changes():
    changes = [
        'CMD ["sh", "-c", "ls"]',
        "entrypoint run it",
        "ENV A=1 B='two words'",
        "ENV A three",
        "EXPOSE 80 53/udp",
        "LABEL k=v",
        "USER 1:2",
        "WORKDIR /x",
        "STOPSIGNAL SIGINT",
    ]
    assert apply_changes({}, changes) == {
        "Cmd": ["sh", "-c", "ls"],
        "Entrypoint": ["/bin/sh", "-c", "run it"],
        "Env": ["A=three", "B=two words"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"k": "v"},
        "User": "1:2",
        "WorkingDir": "/x",
        "StopSignal": "SIGINT",
    }


@pytest.mark.parametrize(
    "change",
    ["RUN x", "CMD", 'CMD ["a"', "CMD [1]", "ENV =x", "EXPOSE x", "EXPOSE 1/ip", "WORKDIR x", ""],
)
def test_bad_change(change):
    with pytest.raises(InvalidParameter, match="--change"):
        apply_changes({}, [change])
