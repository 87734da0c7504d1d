"""pynetns/storage/unpack.py and member.py: an archive's members land where they would in a chroot.

Each attack is one archive, or one racing writer: nothing beside the target may change.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import resource
import stat
import subprocess
import tarfile
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pynetns.errors import InvalidParameter, PynetnsError, System, Unavailable
from pynetns.storage import archive
from pynetns.storage.archive import import_directory, import_tar
from pynetns.storage.member import clean

from ..tars import END, block, directory, hard_link, make_tar, member, padded, pax, symlink


@pytest.fixture
def target(tmp_path) -> str:
    path = tmp_path / "top/target"
    path.mkdir(parents=True)
    return str(path)


def unpack(target: str, *members) -> None:
    for _, data in members:
        data.seek(0)
    import_tar(io.BytesIO(make_tar(*members)), target)


def unpack_raw(target: str, data: bytes) -> None:
    import_tar(io.BytesIO(data), target)


def read(*parts: str) -> str:
    with open("/".join(parts)) as file:
        return file.read()


# ---- as inside a chroot ----


@pytest.mark.parametrize("link", ["../run", "/run", "../../../run", "/../run", "./.././run/."])
@pytest.mark.parametrize("made", [True, False], ids=["with run", "before run"])
def test_members_below_a_link(target, link, made):
    """K11: where the link leads inside, made there when it is not."""
    way = [directory("run", 0o750)] if made else []
    unpack(target, *way, directory("var"), symlink("var/run", link), member("var/run/a/x", b"1"))
    assert os.readlink(f"{target}/var/run") == link
    assert read(target, "run/a/x") == "1"
    assert os.stat(f"{target}/run").st_mode & 0o7777 == (0o750 if made else 0o755)
    assert not os.path.exists("/run/a/x")


def test_links_upon_links(target):
    unpack(
        target,
        symlink("lib", "usr/lib"),
        symlink("usr/lib", "../real/../one"),
        symlink("one", "/two/"),
        member("lib/deep/er/file", b"x"),
        symlink("loop", "loop"),
    )
    assert read(target, "two/deep/er/file") == "x"
    with pytest.raises(InvalidParameter, match=r"loop/x.*[Ss]ymbolic links"):
        unpack(target, symlink("loop", "loop"), member("loop/x", b""))


def test_parents_are_made_whatever_the_umask(target):
    before = os.umask(0o077)
    try:
        unpack(target, member("a/b/c", b"x", mode=0o666), directory("d", 0o1777))
    finally:
        os.umask(before)
    assert os.stat(f"{target}/a/b").st_mode & 0o7777 == 0o755
    assert os.stat(f"{target}/a/b/c").st_mode & 0o7777 == 0o666
    assert os.stat(f"{target}/d").st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/./b//c/", "a/b/c"), ("/a", "a"), ("./", ""), ("/", ""), ("a/../b", "b"), ("/../a", "a"),
        ("../a", None), ("a/../../b", None), ("..", None),
    ],
)  # fmt: skip
def test_names(name, parts):
    if parts is None:
        with pytest.raises(ValueError, match="leads out of the root"):
            clean(name.encode())
    else:
        assert b"/".join(clean(name.encode())).decode() == parts


def test_bytes_that_are_not_utf8(target):
    name = os.fsdecode(b"caf\xe9/\xff\xfe")
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = make_tar(member(name, b"x"), symlink("l", os.fsdecode(b"\xe9")), format=kind)
        unpack_raw(target, data)
        assert os.listdir(os.fsencode(f"{target}/") + b"caf\xe9") == [b"\xff\xfe"]
        assert os.readlink(os.fsencode(f"{target}/l")) == b"\xe9"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(target, kind):
    """Also longer than a path may be for the kernel."""
    deep = "/".join(["d" * 200] * 30)
    long_link = "/".join(["t" * 250] * 8)
    unpack_raw(target, make_tar(member(f"{deep}/file", b"x"), symlink("l", long_link), format=kind))
    assert os.readlink(f"{target}/l") == long_link
    fd = os.open(target, os.O_RDONLY)
    for part in deep.split("/"):
        fd, old = os.open(part, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    assert os.listdir(fd) == ["file"]
    os.close(fd)
    with pytest.raises(InvalidParameter, match="File name too long"):
        unpack(target, member("x" * 256, b""))


# ---- later members win ----


OLD = {
    "file": [member("a", b"old")],
    "link": [member("b", b"kept"), symlink("a", "b")],
    "dangling": [symlink("a", "nowhere")],
    "directory": [directory("a"), member("a/sub/x", b"old")],
    "fifo": [member("a", type=tarfile.FIFOTYPE)],
}
NEW = {
    "file": (member("a", b"new"), stat.S_ISREG),
    "link": (symlink("a", "other"), stat.S_ISLNK),
    "directory": (directory("a", 0o700), stat.S_ISDIR),
    "fifo": (member("a", type=tarfile.FIFOTYPE), stat.S_ISFIFO),
    "hard link": (hard_link("a", "kept"), stat.S_ISREG),
}


@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("old", OLD)
def test_a_later_member_replaces(target, old, new):
    """moby: what is there is removed, but a directory is merged with a directory."""
    later, is_kind = NEW[new]
    unpack(target, member("kept", b"kept"), *OLD[old], later)
    assert is_kind(os.lstat(f"{target}/a").st_mode)
    assert os.path.exists(f"{target}/a/sub/x") is (old == new == "directory")
    if old == "link":
        assert read(target, "b") == "kept"
    if new == "file":
        assert read(target, "a") == "new"


def test_a_way_that_changes_between_members(target):
    """What was found before is not found again where a later member has replaced it."""
    unpack(
        target,
        *(directory("one"), directory("two"), symlink("way", "one"), member("way/x", b"1")),
        *(symlink("way", "two"), member("way/x", b"2")),
        *(directory("one/sub"), member("one/sub/a", b""), symlink("one", "two"), member("one/sub/b", b"")),
    )  # fmt: skip
    assert read(target, "two/x") == "2"
    assert os.listdir(f"{target}/two/sub") == ["b"]


def test_a_way_that_a_member_on_it_changes(target):
    """The way to `l/…` leads through what `l/b` replaces."""
    unpack(
        target,
        *(directory("a/b"), directory("c/d"), symlink("l", "a/b/.."), member("l/x", b"x")),
        *(symlink("l/b", "/c/d"), member("l/y", b"y")),
    )
    assert read(target, "a/x") == "x" and os.readlink(f"{target}/a/b") == "/c/d"
    assert sorted(os.listdir(f"{target}/a")) == ["b", "x"] and read(target, "c/y") == "y"


def test_a_file_on_the_way_is_an_error(target):
    with pytest.raises(InvalidParameter, match=r"'a/b': Not a directory"):
        unpack(target, member("a", b""), member("a/b", b""))


def test_a_tree_deeper_than_python_is_replaced(target):
    deep = "a/" + "/".join("d" * 1500)
    try:
        unpack(target, member(f"{deep}/x", b""), member("a", b"new"))
        assert read(target, "a") == "new"
    finally:  # pytest's own clean-up could not
        subprocess.run(["rm", "-rf", f"{target}/a"], check=True)


def test_hard_links(target):
    unpack(
        target,
        member("a", b"x"),
        *(directory("d"), symlink("way", "/d"), member("d/in", b"y")),
        *(hard_link("b", "/a"), hard_link("c", "way/in"), hard_link("b", "a"), hard_link("a", "a")),
        *(symlink("s", "a"), hard_link("of-link", "s")),
    )
    assert os.stat(f"{target}/a").st_nlink == 2
    assert os.path.samefile(f"{target}/c", f"{target}/d/in")
    assert os.readlink(f"{target}/of-link") == "a"
    for link in (hard_link("z", "none"), hard_link("z", "d"), hard_link("z", "/")):
        with pytest.raises(InvalidParameter, match="hard link to"):
            unpack(target, directory("d"), link)


# ---- what a file is besides its data ----


def test_times_and_modes(target):
    data = pax(mtime=b"1234567890.123456789") + block(b"a", b"0", mode=b"0004711\0")
    data += pax(mtime=b"99999999999999999999") + block(b"far", b"0")
    data += pax(mtime=b"-5.5") + block(b"d", b"5", mode=b"0000711\0") + block(b"d/in", b"0")
    unpack_raw(target, data + block(b"plain", b"0") + END)
    info = os.stat(f"{target}/a")
    assert (info.st_mtime_ns, info.st_mode & 0o7777) == (1234567890_123456789, 0o4711)
    assert os.stat(f"{target}/far").st_mtime > 2**31
    assert int(os.stat(f"{target}/d").st_mtime) in (-5, -4)  # not that of its contents
    assert os.stat(f"{target}/d").st_mode & 0o7777 == 0o711
    assert os.stat(f"{target}/plain").st_mtime == 1000


@pytest.mark.parametrize(
    "form", ["gnu", *(f"posix --sparse-version={version}" for version in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files(tmp_path, target, form):
    with open(tmp_path / "file", "wb") as file:
        for number in range(40):  # more than one header of the old form holds
            file.seek(number * 100_000)
            file.write(b"%d" % number * 1000)
        file.truncate(8 << 20)
    command = ["tar", "-c", "-S", *f"--format={form}".split(), "-C", str(tmp_path), "file"]
    unpack_raw(target, subprocess.run(command, check=True, capture_output=True).stdout)
    assert read(target, "file") == read(str(tmp_path), "file")
    assert os.stat(f"{target}/file").st_blocks <= os.stat(tmp_path / "file").st_blocks


@pytest.mark.parametrize("where", ["0,512,256,10", "8000,512", "-5,512", "0,99999999"])
def test_map_of_holes_that_does_not_fit(target, where):
    records = {"GNU__sparse__map": where.encode(), "GNU__sparse__size": b"8192"}
    with pytest.raises(InvalidParameter, match="import: "):
        unpack_raw(target, pax(**records) + block(b"m", b"0", 1024) + bytes(1024) + END)


def test_extended_attributes(target):
    records = {
        "SCHILY__xattr__user.note": b"\0\n=\xff",
        "SCHILY__xattr__trusted.overlay.redirect": b"/etc",
        "SCHILY__xattr__nonsense.x": b"1",
    }
    try:
        os.setxattr(target, "user.probe", b"x")
        os.removexattr(target, "user.probe")
    except OSError:
        pytest.skip("no such attributes here")
    unpack_raw(target, pax(**records) + block(b"a", b"0") + pax(**records) + block(b"l", b"2", link=b"a") + END)  # fmt: skip
    assert {n: os.getxattr(f"{target}/a", n) for n in os.listxattr(f"{target}/a")} == {
        "user.note": b"\0\n=\xff"
    }


@pytest.mark.root
def test_devices_and_capabilities(target):
    """Made, as by docker import; the device rules of a container decide what can be opened."""
    records = {
        "SCHILY__xattr__security.capability": bytes.fromhex(
            "0100000200040000000000000000000000000000"
        )
    }
    unpack_raw(
        target,
        block(b"null", b"3", major=b"0000001\0", minor=b"0000003\0", mode=b"0000666\0")
        + block(b"disk", b"4", major=b"0000010\0", minor=b"0000001\0")
        + pax(**records) + block(b"ping", b"0", uid=b"0000001\0") + END,
    )  # fmt: skip
    null, disk = os.stat(f"{target}/null"), os.stat(f"{target}/disk")
    assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(null.st_mode) == 0o666
    assert stat.S_ISBLK(disk.st_mode) and disk.st_rdev == os.makedev(8, 1)
    assert os.getxattr(f"{target}/ping", "security.capability")  # not lost to the change of owner
    assert os.stat(f"{target}/ping").st_uid == 1


@pytest.mark.root
def test_whiteouts_of_a_layer(target, tmp_path):
    """As docker with overlay2: a whiteout of overlayfs, an opaque directory, nothing by that name."""
    unpack(
        target,
        *(member("d/.wh.gone", b""), member("d/.wh..wh..opq", b""), member(".wh..wh.plnk", b"")),
        *(member("d/kept", b""), member("later", b"x"), member(".wh.later", b"")),
    )
    assert sorted(os.listdir(f"{target}/d")) == ["gone", "kept"]
    for name in ("d/gone", "later"):
        info = os.stat(f"{target}/{name}")
        assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert os.getxattr(f"{target}/d", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(target)) == ["d", "later"]
    with pytest.raises(InvalidParameter, match="whiteout"):
        unpack(target, member(".wh...", b""))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.wh.a").touch()
    (tmp_path / "copy").mkdir()
    import_directory(str(tmp_path / "tree"), str(tmp_path / "copy"))
    assert os.listdir(tmp_path / "copy") == [".wh.a"]  # a directory is no layer


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, Unavailable), (errno.EDQUOT, Unavailable), (errno.EMFILE, System), (errno.EPERM, InvalidParameter)],
)  # fmt: skip
def test_whose_fault_a_failure_is(target, monkeypatch, code, kind):
    def fail(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fchmod", fail)
    with pytest.raises(kind, match=f"'a': {os.strerror(code)}"):
        unpack(target, member("a", b""))


# ---- attacks ----


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
    "absolute link on the way": [symlink("way", "/"), member("way{top}/evil", b"x")],
    "magic link on the way": [
        symlink("way", "/proc/self/cwd"),
        directory("proc/self"),
        symlink("proc/self/cwd", "{top}"),
        member("way/evil", b"x"),
    ],
    "hard link through a link": [
        symlink("way", "{top}"),
        hard_link("in", "way/victim"),
        member("in", b"changed"),
    ],
    "hard link to an absolute name": [hard_link("in", "{top}/victim"), member("in", b"changed")],
    "hard link over a link": [symlink("a", "{top}/victim"), member("b", b"x"), hard_link("a", "b")],
    "directory over a link": [
        symlink("way", "{top}"),
        directory("way", 0o777),
        member("way/evil", b"x"),
    ],
    "fifo over a link": [symlink("evil", "{top}/evil"), member("evil", type=tarfile.FIFOTYPE)],
    "link over the root": [symlink("./", "{top}"), member("evil", b"x")],
    "link over the root, absolute": [symlink("/", "{top}"), member("evil", b"x")],
    "removal through a link": [
        symlink("way", "{top}"),
        directory("way/victim"),
        member("way", b"x"),
    ],
    "hard link outside": [
        member("in", type=tarfile.LNKTYPE, linkname="../victim"),
        member("in", b"changed"),
    ],
}


@pytest.mark.security
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


@pytest.mark.security
@pytest.mark.root
def test_no_whiteout_lands_outside(tmp_path, target):
    (tmp_path / "top/victim").write_text("unchanged")
    unpack(target, symlink("way", str(tmp_path / "top")), member("way/.wh.victim", b""))
    assert read(str(tmp_path), "top/victim") == "unchanged"
    with pytest.raises(PynetnsError):
        unpack(target, member("../.wh.victim", b""))
    assert read(str(tmp_path), "top/victim") == "unchanged"


@pytest.mark.security
def test_no_removal_follows_a_link_outside(tmp_path, target):
    """Replacing a directory takes the links in it away, not what they lead to."""
    (tmp_path / "top/kept").mkdir()
    (tmp_path / "top/kept/victim").write_text("unchanged")
    unpack(target, symlink("d/out", str(tmp_path / "top/kept")), member("d", b"x"))
    assert read(str(tmp_path), "top/kept/victim") == "unchanged"


@pytest.mark.security
def test_a_racing_writer_leads_nothing_outside(tmp_path, target):
    """Somebody swaps a directory of the target with a link to the outside, as fast as he can."""
    outside_directory = tmp_path / "top/outside"
    outside_directory.mkdir()
    os.mkdir(f"{target}/way")
    os.symlink(outside_directory, f"{target}/other")
    ended, swaps = threading.Event(), 0

    def swap():
        nonlocal swaps
        while not ended.is_set():
            try:
                os.rename(f"{target}/way", f"{target}/aside")
                os.rename(f"{target}/other", f"{target}/way")
                os.rename(f"{target}/way", f"{target}/other")
                os.rename(f"{target}/aside", f"{target}/way")
            except OSError:  # the unpacker was there in between
                for name, make in (("way", os.mkdir), ("other", lambda path: os.symlink(outside_directory, path))):  # fmt: skip
                    if not os.path.lexists(f"{target}/{name}"):
                        make(f"{target}/{name}")
                if os.path.lexists(f"{target}/aside"):
                    os.rename(f"{target}/aside", f"{target}/aside{swaps}")
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for turn in range(30):
            kinds = [
                item
                for number in range(10)
                for item in (
                    member(f"way/f{turn}-{number}", b"x"),
                    directory(f"way/d{turn}-{number}"),
                    member(f"way/d{turn}-{number}/deep", b"x"),
                    symlink(f"way/l{turn}-{number}", "x"),
                    hard_link(f"way/h{turn}-{number}", f"way/f{turn}-{number}"),
                    directory("way"),
                )
            ]
            try:
                unpack(target, *kinds)
            except PynetnsError:
                pass  # a member that went missing under its hands
    finally:
        ended.set()
        thread.join()
    assert swaps and os.listdir(outside_directory) == []


RAW = {
    "name with NUL": pax(path=b"a\0b") + block(b"x", b"0"),
    "empty link": block(b"l", b"2"),
    "negative size": block(b"x", b"0", raw_size=b"\xff" * 12),
    "size beyond all disks": block(b"x", b"0", raw_size=b"\x80" + b"\x7f" * 11),
    "huge pax size": pax(size=b"9" * 30) + block(b"x", b"0"),
    "pax size that is none": pax(size=b"-1") + block(b"x", b"0"),
    "pax header of gigabytes": block(b"p", b"x", 8 << 30) + bytes(4096),
    "long name of gigabytes": block(b"p", b"L", 8 << 30) + bytes(4096),
    "pax record of length 0": block(b"p", b"x", 20) + padded(b"0 a=b\n"),
    "pax record beyond its header": block(b"p", b"x", 20) + padded(b"999999 a=b\n"),
    "headers upon headers": (block(b"p", b"x", 0)) * 5000 + block(b"x", b"0"),
    "long names upon long names": (block(b"p", b"L", 2) + padded(b"a\0")) * 5000 + block(b"x", b"0"),
    "sparse map without end": block(b"s", b"S", magic=b"ustar  \0")[:482] + b"\1" + bytes(29),
    "owner that is none": pax(uid=b"-7") + block(b"x", b"0"),
    "owner beyond 32 bits": pax(uid=b"99999999999") + block(b"x", b"0"),
    "unknown type": block(b"x", b"Z"),
    "continuation of another volume": block(b"x", b"M"),
    "root that is a file": block(b"./", b"0") + block(b".", b"1", link=b"x"),
}  # fmt: skip


@pytest.mark.security
@pytest.mark.parametrize("kind", RAW)
def test_odd_headers_are_refused(tmp_path, target, kind):
    """In bounded time and memory, whatever they say."""
    with pytest.raises(InvalidParameter, match="import: "):
        unpack_raw(target, RAW[kind] + END)
    assert outside(tmp_path) == set()


@given(st.data())
def test_no_damage_is_too_odd(tmp_path_factory, data):
    """Whatever is flipped in an archive: unpacked, or refused as the archive's fault."""
    whole = bytearray(
        make_tar(directory("d"), member("d/" + "n" * 120, b"x" * 600), symlink("l", "d"), hard_link("h", "l"))
        + pax(mtime=b"1.5") + block(b"p", b"0") + END
    )  # fmt: skip
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[position] = data.draw(st.integers(0, 255))
    for start in range(0, len(whole) - 511, 512):  # right sums, else nothing is looked at
        header = whole[start : start + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            whole[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    top = tmp_path_factory.mktemp("odd")
    (top / "target").mkdir()
    try:
        unpack_raw(str(top / "target"), bytes(whole))
    except (InvalidParameter, Unavailable):
        pass
    assert os.listdir(top) == ["target"]


@pytest.mark.security
def test_many_members_take_no_memory(target):
    """Nothing is kept of 4,000 but what 1,000 before them have taken already: a million is a matter
    of time alone."""
    held: list[int] = []

    def chunks():
        for number in range(2_500):
            if number in (500, 2_499):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
            yield block(b"d%d" % (number % 50), b"5")
            yield block(b"d%d/f%d" % (number % 50, number % 100), b"0", 1) + padded(b"x")
        yield END

    tracemalloc.start()
    try:
        archive._unpack(chunks(), target, whiteouts=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 16 << 10, "4 bytes for each"
    assert peak < 1 << 20


@pytest.mark.security
def test_no_descriptor_is_left(target):
    before = len(os.listdir("/proc/self/fd"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    for members in (
        [member("a/b/c/../d/x", b"")],
        [symlink("a", "/b/c"), member("a/x/y", b""), member("../e", b"")],
    ):
        for _ in range(20):
            try:
                unpack(target, *members)
            except InvalidParameter:
                pass
    assert len(os.listdir("/proc/self/fd")) == before
    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)
