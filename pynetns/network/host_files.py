"""The files that make a network usable by name: hosts, resolv.conf and its hash, hostname.

Owns: what they say (pure functions) and writing them in place when, and only when, that changed:
they are made at create, are bind mounts afterwards, and a rewrite costs more than a comparison.
Knows nothing of links. moby buildHostsFile, updateHostsFile, setupDNS, BuildHostnameFile; seed
sections 1.2.1.1.2.7.1 and 1.2.1.2.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidParameter, System, Unavailable
from ..files import set_mode
from ..forks import Descriptors

HOST_HOSTS = "/etc/hosts"
HOST_RESOLV_CONF = "/etc/resolv.conf"
# Where systemd-resolved keeps the servers behind its stub on 127.0.0.53.
RESOLVED_CONF = "/run/systemd/resolve/resolv.conf"
DEFAULT_DNS = ("8.8.8.8", "8.8.4.4")
HOST_GATEWAY = "host-gateway"

_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "ff00::0\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class ResolverOptions:
    """What replaces the host's resolver settings; () leaves them as they are."""

    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.dns or self.dns_search or self.dns_options)


# ---- hosts ----


def render_hosts(
    extra_hosts: Sequence[tuple[str, str]] = (),
    addresses: Sequence[str] = (),
    hostname: str = "",
    domainname: str = "",
) -> str:
    """A container's /etc/hosts. `extra_hosts`: (name, address); `addresses`: one per endpoint."""
    lines = [_HOSTS]
    lines += [f"{address}\t{name}\n" for name, address in extra_hosts]
    names = host_names(hostname, domainname)
    lines += [f"{address}\t{names}\n" for address in addresses]
    return "".join(lines)


def host_names(hostname: str, domainname: str) -> str:
    """The names of a container in its own hosts file: the full one, then the bare one."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    bare, dot, _ = full.partition(".")
    return f"{full} {bare}" if dot else full


def parse_extra_host(text: str) -> tuple[str, str]:
    """`--add-host NAME:IP` as (name, address); the address may be "host-gateway" or IPv6.

    Raises InvalidParameter.
    """
    name, colon, address = text.partition(":")
    if not name or not colon or any(c.isspace() or c == "#" for c in name):
        raise InvalidParameter(f"bad format for add-host: {text!r} (form: NAME:IP)")
    if address != HOST_GATEWAY and not is_address(address):
        raise InvalidParameter(f"invalid IP address in add-host: {address!r}")
    return name, address


def is_address(text: str) -> bool:
    """Whether text is an IPv4 or IPv6 address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


# ---- resolv.conf ----


def render_resolv_conf(host: str, options: ResolverOptions) -> str:
    """A container's resolv.conf from the host's text and what the user asked for.

    Without options the host's text stays, less the servers the container cannot reach: those on
    localhost, and IPv6 ones, since the networks are IPv4. The public default servers stand in only
    when no server is left. With options each kind given replaces the host's of that kind.
    """
    if not options:
        return _filter_resolv_conf(host)
    servers = options.dns or _usable_servers(host) or DEFAULT_DNS
    search = " ".join(options.dns_search or _last_words(host, "search")).strip()
    opts = " ".join(options.dns_options or _all_words(host, "options")).strip()
    lines = [f"search {search}"] if search not in ("", ".") else []
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"options {opts}"] if opts else []
    return "".join(f"{line}\n" for line in lines)


def _filter_resolv_conf(host: str) -> str:
    kept = [
        line
        for line in host.splitlines()
        if (server := _server(line)) is None or _reachable(server)
    ]
    if not any(_server(line) for line in kept):
        kept += [f"nameserver {server}" for server in DEFAULT_DNS]
    return "".join(f"{line}\n" for line in kept)


def _usable_servers(host: str) -> tuple[str, ...]:
    servers = (_server(line) for line in host.splitlines())
    return tuple(server for server in servers if server is not None and _reachable(server))


def _server(line: str) -> str | None:
    words = line.split()
    return words[1] if len(words) > 1 and words[0] == "nameserver" else None


def _reachable(server: str) -> bool:
    return not server.startswith("127.") and ":" not in server


def _last_words(host: str, keyword: str) -> list[str]:
    found: list[str] = []
    for line in host.splitlines():
        words = line.split()
        if words[:1] == [keyword]:
            found = words[1:]
    return found


def _all_words(host: str, keyword: str) -> list[str]:
    lines = (line.split() for line in host.splitlines())
    return [word for words in lines if words[:1] == [keyword] for word in words[1:]]


def read_host_resolv_conf() -> str:
    """The host's resolver settings, "" when it has none. moby resolvconf.Path."""
    text = read_text(HOST_RESOLV_CONF)
    servers = [server for line in text.splitlines() if (server := _server(line))]
    if servers == ["127.0.0.53"]:
        return read_text(RESOLVED_CONF) or text
    return text


class ResolvConf:
    """resolv.conf for containers, rendered again only when the host's file has changed."""

    def __init__(self) -> None:
        self._stamp: tuple[int, ...] = ()
        self._rendered: dict[ResolverOptions, bytes] = {}

    def render(self, options: ResolverOptions) -> bytes:
        """The text for a container with these options."""
        stamp = _stamp(HOST_RESOLV_CONF) + _stamp(RESOLVED_CONF)
        if stamp != self._stamp or len(self._rendered) > 256:
            self._stamp, self._rendered = stamp, {}
        text = self._rendered.get(options)
        if text is None:
            text = render_resolv_conf(read_host_resolv_conf(), options).encode(
                "utf-8", "surrogateescape"
            )
            self._rendered[options] = text
        return text


def _stamp(path: str) -> tuple[int, ...]:
    try:
        info = os.stat(path)
    except OSError:
        return (0,)
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)


def render_hash(resolv_conf: bytes) -> bytes:
    """The content of resolv.conf.hash: by it Docker tells a file that the user edited."""
    return f"sha256:{hashlib.sha256(resolv_conf).hexdigest()}".encode()


# ---- writing ----


def create_files(
    directory: str, hostname: str, domainname: str = "", options: ResolverOptions | None = None
) -> None:
    """Make all four files at create, as far as they are known before the container has an address.

    Raises Unavailable (disk full) or System.
    """
    resolv_conf = render_resolv_conf(read_host_resolv_conf(), options or ResolverOptions())
    build_hostname_file(directory, hostname)
    build_hosts_file(directory, render_hosts(hostname=hostname, domainname=domainname))
    setup_dns(directory, resolv_conf.encode("utf-8", "surrogateescape"))


def build_hostname_file(directory: str, hostname: str) -> None:
    """moby Container.BuildHostnameFile."""
    write_in_place(f"{directory}/hostname", f"{hostname}\n".encode())


def build_hosts_file(directory: str, text: str) -> None:
    """moby sandbox.buildHostsFile and updateHostsFile."""
    write_in_place(f"{directory}/hosts", text.encode("utf-8", "surrogateescape"))


def setup_dns(directory: str, resolv_conf: bytes) -> None:
    """resolv.conf and its hash. moby sandbox.setupDNS."""
    if write_in_place(f"{directory}/resolv.conf", resolv_conf):
        write_in_place(f"{directory}/resolv.conf.hash", render_hash(resolv_conf))


def write_in_place(path: str, data: bytes) -> bool:
    """Make the file say `data`; whether it had to be written.

    In place, since the file is a bind mount source. Overwritten and then cut rather than truncated
    first: ext4 flushes a file that was cut to nothing when it is closed.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with Descriptors() as fds:
            fds.append(fd := os.open(path, flags, 0o644))
            old = os.read(fd, len(data) + 1)
            if not old:  # just made, or never finished
                set_mode(fd, 0o644)
            if old == data:
                return False
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], done)
            if len(old) > len(data):
                os.ftruncate(fd, len(data))
            return True
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(f"{path}: {error.strerror}: free some space there") from error
        raise System(f"{path}: {error.strerror}") from error


def read_text(path: str) -> str:
    """A small text file of the host; "" when it does not exist."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise System(f"{path}: {error.strerror}") from error
