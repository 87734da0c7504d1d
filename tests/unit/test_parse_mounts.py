"""model/parse_mounts.py: -v, --mount, --tmpfs and docker-py's forms of them."""

from __future__ import annotations

import pytest

from pynetns.errors import InvalidParameter
from pynetns.model import parse_mounts
from pynetns.model.config import Mount


def test_volumes() -> None:
    assert parse_mounts.parse_volume("/a:/b") == Mount("bind", "/a", "/b", create_source=True)
    assert parse_mounts.parse_volume("/a:/b:ro,rslave,z") == Mount(
        "bind", "/a", "/b", read_only=True, propagation="rslave", create_source=True
    )
    mapping = {"/a": {"bind": "/b", "mode": "ro"}, "/c": {"bind": "/d", "propagation": "shared"}}
    assert parse_mounts.parse_volumes(mapping) == (
        Mount("bind", "/a", "/b", read_only=True, create_source=True),
        Mount("bind", "/c", "/d", propagation="shared", create_source=True),
    )


@pytest.mark.parametrize("bad", ["data:/b", "/b", "./a:/b", "data:/b:ro"])
def test_named_volume_is_refused(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="named volumes are not available: give an absolute"):
        parse_mounts.parse_volume(bad)


@pytest.mark.parametrize("bad", ["", ":", "/a:", "/a:/b:xx", "/a:/b:ro,rw", "/a:/b:ro:z", 5])
def test_bad_volume(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--volume"):
        parse_mounts.parse_volume(bad)


@pytest.mark.parametrize("bad", [{"/a": 5}, {"/a": {}}, {"/a": {"bind": "/b", "x": 1}}])
def test_bad_volume_mapping(bad: object) -> None:
    with pytest.raises(InvalidParameter, match="--volume"):
        parse_mounts.parse_volumes(bad)


def test_mount_option() -> None:
    text = "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave"
    wanted = Mount("bind", "/a", "/b", read_only=True, propagation="rslave")
    assert parse_mounts.parse_mount(text) == wanted
    assert parse_mounts.parse_mount("type=bind,src=/a,dst=/b,ro=true,bind-nonrecursive") == Mount(
        "bind", "/a", "/b", read_only=True, recursive=False
    )
    tmpfs = parse_mounts.parse_mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1777")
    assert tmpfs == Mount("tmpfs", "", "/t", tmpfs_options=f"size={64 << 20},mode=1777")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ('a,"b,c",d', ["a", "b,c", "d"]),
        ('"a ""x""",b', ['a "x"', "b"]),
        ('"",a', ["", "a"]),
        ("a,", ["a", ""]),
    ],
)
def test_a_line_of_csv(text: str, fields: list[str]) -> None:
    assert parse_mounts.split_csv(text, "--mount") == fields


def test_a_source_with_a_comma_is_quoted() -> None:
    mount = parse_mounts.parse_mount('type=bind,"src=/a,b",dst=/m')
    assert mount == Mount("bind", "/a,b", "/m")


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ('type=bind,src="/a,b",dst=/m', "a quote must be around"),
        ('type=bind,"src=/a,dst=/m', "closing quote is missing"),
        ('type=bind,"src=/a"x,dst=/m', "must not follow"),
    ],
)
def test_quotes_that_are_none(bad: str, word: str) -> None:
    with pytest.raises(InvalidParameter, match=f"--mount.*{word}"):
        parse_mounts.parse_mount(bad)


@pytest.mark.parametrize("source", [".", "..", "./m", "../m", ".hidden"])
def test_a_relative_source_starts_where_the_command_is_given(source: str) -> None:
    here = "/here/{}".format
    volume = parse_mounts.parse_volume(f"{source}:/m:ro", absolute=here)
    assert volume == Mount("bind", f"/here/{source}", "/m", read_only=True, create_source=True)
    mount = parse_mounts.parse_mount(f"type=bind,src={source},dst=/m", absolute=here)
    assert mount == Mount("bind", f"/here/{source}", "/m")
    assert parse_mounts.parse_volume(volume) is volume


@pytest.mark.parametrize("source", ["m", "m/x", "m.x"])
def test_a_name_is_none(source: str) -> None:
    with pytest.raises(InvalidParameter, match="named volumes"):
        parse_mounts.parse_volume(f"{source}:/m", absolute="/here/{}".format)


def test_recursion_in_its_newer_words() -> None:
    for text, recursive in (("enabled", True), ("disabled", False)):
        mount = parse_mounts.parse_mount(f"type=bind,src=/a,dst=/b,bind-recursive={text}")
        assert mount.recursive is recursive
    for bad in ("bind-recursive=writable", "bind-recursive=disabled,bind-nonrecursive"):
        with pytest.raises(InvalidParameter, match="bind-recursive"):
            parse_mounts.parse_mount(f"type=bind,src=/a,dst=/b,{bad}")


# Every word that the third part of -v may have: taken, nothing to do here, or refused by name.
@pytest.mark.parametrize("word", ["ro", "rw", *sorted(parse_mounts.PROPAGATIONS)])
def test_modes_that_mean_something(word: str) -> None:
    mount = parse_mounts.parse_volume(f"/a:/b:{word}")
    assert mount.read_only == (word == "ro")
    assert mount.propagation == (word if word in parse_mounts.PROPAGATIONS else "rprivate")


@pytest.mark.parametrize("word", ["z", "Z", "consistent", "cached", "delegated"])
def test_modes_with_nothing_to_do(word: str) -> None:
    assert parse_mounts.parse_volume(f"/a:/b:{word}") == parse_mounts.parse_volume("/a:/b")


@pytest.mark.parametrize(
    "word", ["nocopy", "unbindable", "rbind", "noexec", "nosuid", "ro,rw", "U", "idmap", "O", "RO"]
)
def test_modes_that_are_refused_by_name(word: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid mode '{word}'"):
        parse_mounts.parse_volume(f"/a:/b:{word}")


def test_docker_py_mount() -> None:
    """docker.types.Mount is a dict of the API's fields."""
    bind = {"Target": "/b", "Source": "/a", "Type": "bind", "ReadOnly": True}
    assert parse_mounts.parse_mount(bind) == Mount("bind", "/a", "/b", read_only=True)
    tmpfs = {"Target": "/t", "Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 64, "Mode": 0o755}}
    assert parse_mounts.parse_mount(tmpfs).tmpfs_options == "size=64,mode=755"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "type=bind",
        "type=bind,target=/b",
        "type=bind,source=a,target=/b",
        "type=volume,source=a,target=/b",
        "source=/a,target=/b",
        "type=npipe,target=/b",
        "type=bind,source=/a,target=/b,bind-propagation=x",
        "type=bind,source=/a,target=/b,tmpfs-size=1m",
        "type=tmpfs,target=/b,source=/a",
        "type=tmpfs,target=/b,tmpfs-size=12q",
        "type=tmpfs,target=/b,tmpfs-mode=999",
        "type=bind,source=/a,target=/b,readonly=maybe",
        "type=bind,source=/a,target=/b,color=red",
        "type=bind,source=/a,target=",
    ],
)
def test_bad_mount(bad: str) -> None:
    with pytest.raises(InvalidParameter, match="--mount"):
        parse_mounts.parse_mount(bad)


def test_tmpfs() -> None:
    wanted = (Mount("tmpfs", "", "/t", tmpfs_options="size=1m"), Mount("tmpfs", "", "/u"))
    assert parse_mounts.parse_tmpfs_mounts({"/t": "size=1m", "/u": ""}) == wanted
    assert parse_mounts.parse_tmpfs_mounts(["/t:size=1m", "/u"]) == wanted
