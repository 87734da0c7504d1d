"""hosts, resolv.conf, hash and hostname: what they say, and writing them in place."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter, System, Unavailable
from pynetns.network import host_files
from pynetns.network.host_files import (
    ResolvConf,
    ResolverOptions,
    create_files,
    host_names,
    parse_extra_host,
    render_hosts,
    render_resolv_conf,
    write_in_place,
)

GOLDEN = Path(__file__).parent.parent / "golden"

# name of the golden file: (host's text, options)
RESOLV_CONFS = {
    "resolv_plain": (
        "# by the administrator\nsearch example.org\nnameserver 192.0.2.53\noptions ndots:2\n",
        ResolverOptions(),
    ),
    "resolv_localhost_filtered": (
        "nameserver 127.0.0.1\nnameserver ::1\nnameserver 2001:db8::53\nnameserver 192.0.2.53\n",
        ResolverOptions(),
    ),
    "resolv_none_left": ("search lan\nnameserver 127.0.0.53\n", ResolverOptions()),
    "resolv_empty": ("", ResolverOptions()),
    "resolv_dns": (
        "search lan\nnameserver 192.0.2.53\noptions edns0\n",
        ResolverOptions(dns=("127.0.0.1", "2001:db8::1")),
    ),
    "resolv_search_and_options": (
        "domain x\nsearch lan\nnameserver 127.0.0.1\n",
        ResolverOptions(dns_search=("a.example", "b.example"), dns_options=("ndots:1", "rotate")),
    ),
    "resolv_no_search": ("search lan\nnameserver 192.0.2.1\n", ResolverOptions(dns_search=(".",))),
}

HOSTS = {
    "hosts_plain": ((), (), "web", ""),
    "hosts_address": ((), ("172.17.0.2",), "web", ""),
    "hosts_domain": ((), ("172.17.0.2", "10.0.0.3"), "web", "example.org"),
    "hosts_extra": ((("db", "10.0.0.9"), ("v6", "2001:db8::1")), ("172.17.0.2",), "web", ""),
}


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("PYNETNS_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", RESOLV_CONFS)
def test_resolv_conf(name: str) -> None:
    check_golden(name, render_resolv_conf(*RESOLV_CONFS[name]))


@pytest.mark.parametrize("name", HOSTS)
def test_hosts(name: str) -> None:
    check_golden(name, render_hosts(*HOSTS[name]))


def test_names() -> None:
    assert host_names("web", "") == "web"
    assert host_names("web", "example.org") == "web.example.org web"
    assert host_names("web.example.org", "") == "web.example.org web"


def test_extra_hosts() -> None:
    assert parse_extra_host("db:10.0.0.9") == ("db", "10.0.0.9")
    assert parse_extra_host("db:2001:db8::1") == ("db", "2001:db8::1")
    assert parse_extra_host("gw:host-gateway") == ("gw", "host-gateway")
    for bad in ("db", ":1.2.3.4", "db:", "db:1.2.3", "a b:1.2.3.4", "a\n1.1.1.1 b:1.2.3.4"):
        with pytest.raises(InvalidParameter):
            parse_extra_host(bad)


def test_stub_resolver_is_looked_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(host_files, "HOST_RESOLV_CONF", str(stub))
    monkeypatch.setattr(host_files, "RESOLVED_CONF", str(real))
    rendered = ResolvConf()
    assert b"8.8.8.8" in rendered.render(ResolverOptions())
    real.write_text("nameserver 192.0.2.1\n")
    assert rendered.render(ResolverOptions()) == b"nameserver 192.0.2.1\n"


def test_changed_host_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / "resolv.conf"
    monkeypatch.setattr(host_files, "HOST_RESOLV_CONF", str(host))
    rendered = ResolvConf()
    host.write_text("nameserver 192.0.2.1\n")
    assert rendered.render(ResolverOptions()) == b"nameserver 192.0.2.1\n"
    host.write_text("nameserver 192.0.2.22\n")
    assert rendered.render(ResolverOptions()) == b"nameserver 192.0.2.22\n"


def test_host_file_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / "resolv.conf"
    host.write_bytes(b"# caf\xe9\nnameserver 192.0.2.1\n")
    monkeypatch.setattr(host_files, "HOST_RESOLV_CONF", str(host))
    assert ResolvConf().render(ResolverOptions()) == host.read_bytes()


# ---- writing ----


def test_files_of_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / "host"
    host.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(host_files, "HOST_RESOLV_CONF", str(host))
    directory = tmp_path / "c"
    directory.mkdir()
    create_files(str(directory), "web")
    assert sorted(p.name for p in directory.iterdir()) == [
        "hostname",
        "hosts",
        "resolv.conf",
        "resolv.conf.hash",
    ]
    assert (directory / "hostname").read_text() == "web\n"
    digest = hashlib.sha256(b"nameserver 192.0.2.1\n").hexdigest()
    assert (directory / "resolv.conf.hash").read_text() == f"sha256:{digest}"


def test_in_place_and_only_when_changed(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    assert write_in_place(str(path), b"a long first content\n")
    inode, written = path.stat().st_ino, path.stat().st_mtime_ns
    assert not write_in_place(str(path), b"a long first content\n")
    assert path.stat().st_mtime_ns == written
    for content in (b"short\n", b"short and then longer than before\n", b"short\n", b""):
        assert write_in_place(str(path), content)
        assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def test_symlink_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("keep")
    (tmp_path / "hosts").symlink_to(target)
    with pytest.raises(System, match="hosts"):
        write_in_place(str(tmp_path / "hosts"), b"x")
    assert target.read_text() == "keep"


def test_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Unavailable, match="hosts: No space left on device: free some space"):
        write_in_place(str(tmp_path / "hosts"), b"x")
