"""pynetns/storage/archive.py and reference.py: tar in, nothing outside; names and --change."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile

import pytest

from pynetns.errors import InvalidParameter, NotFound, PynetnsError, Unavailable
from pynetns.storage.archive import decompressed, import_directory, import_tar
from pynetns.storage.reference import apply_changes, id_prefix, parse_reference


def member(name: str, data: bytes = b"", **fields) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid = len(data), os.getuid(), os.getgid()
    for key, value in fields.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def make_tar(*members, format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, data)
    return buffer.getvalue()


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


def outside(tmp_path) -> set[str]:
    found = set()
    for path, directories, files in os.walk(tmp_path):
        if path.endswith("/target"):
            directories.clear()
            continue
        found |= {os.path.join(path, name) for name in files}
    return found


EVIL = {
    "dots": [member("../evil", b"x"), member("a/../../evil", b"x")],
    "absolute": [member("{top}/evil", b"x")],
    "symlink": [symlink("way", "{top}"), member("way/evil", b"x")],
    "relative symlink": [symlink("way", ".."), member("way/evil", b"x")],
    "two symlinks": [
        member("d", type=tarfile.DIRTYPE),
        symlink("d/one", ".."),
        symlink("two", "d/one/.."),
        member("two/evil", b"x"),
    ],
    "symlink over a directory": [
        member("way", type=tarfile.DIRTYPE),
        symlink("way", "{top}"),
        member("way/evil", b"x"),
    ],
    "symlink as the file": [symlink("file", "{top}/evil"), member("file", b"x")],
    "hard link to a symlink": [
        symlink("way", "{top}"),
        member("again", type=tarfile.LNKTYPE, linkname="way"),
        member("again/evil", b"x"),
    ],
    "hard link outside": [
        member("in", type=tarfile.LNKTYPE, linkname="../victim"),
        member("in", b"changed"),
    ],
}


@pytest.mark.parametrize("kind", EVIL)
def test_nothing_is_written_outside(tmp_path, target, kind):
    top = str(tmp_path / "top")
    with open(f"{top}/victim", "w") as file:
        file.write("unchanged")
    members = []
    for info, data in EVIL[kind]:
        info.name = info.name.format(top=top)
        info.linkname = info.linkname.format(top=top)
        data.seek(0)
        members.append((info, data))
    try:
        import_tar(io.BytesIO(make_tar(*members)), target)
    except PynetnsError as error:
        assert "import: " in str(error)
    assert outside(tmp_path) == {f"{top}/victim"}
    with open(f"{top}/victim") as file:
        assert file.read() == "unchanged"


def test_without_tar(target, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="GNU tar"):
        import_tar(io.BytesIO(TREE), target)


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
