"""Root file systems in and out of tar: import of a directory or an archive into a layer directory.

Owns: compression, the digest of the content, and running GNU tar, which does all unpacking (owners,
links, devices, extended attributes) and is fed from here. Knows nothing of images.

Safety: tar strips leading slashes, refuses "..", and makes symlinks that lead elsewhere only at the
end, so that no member is written through one; overlayfs's own attributes are left out.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import importlib
import io
import lzma
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from ..errors import InvalidParameter, NotFound, PynetnsError, System, Unavailable

_CHUNK = 1 << 20
_BLOCK = 512
_XATTRS = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.overlay.*")
_EXTRACT = (
    *("tar", "--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions"),
    *("--warning=no-timestamp", "--warning=no-unknown-keyword"),
)
_CREATE = (
    *("tar", "--create", "--file=-", "--format=posix", "--numeric-owner", "--one-file-system"),
    *("--sparse", "--sparse-version=0.0", "--sort=name"),
    # the same tree is the same content: no times of reading, no process ids
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)


@dataclass(frozen=True, slots=True)
class Content:
    """What was unpacked: hex sha256 and size in bytes of the uncompressed tar."""

    digest: str
    size: int


# ---- compression ----


def _open_zstd(source: Any) -> Any:
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd").ZstdFile(source)
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise Unavailable("import: zstd archives need the Python package zstandard") from error
    return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)


_MAGIC: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda source: gzip.GzipFile(fileobj=source)),
    (b"\x28\xb5\x2f\xfd", _open_zstd),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


class _Source(io.RawIOBase):
    """Any object with read(), as a raw stream; it stays open."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def decompressed(source: IO[bytes]) -> Iterator[bytes]:
    """The plain content of `source` (gzip, zstd, bzip2, xz or none of them), in chunks.

    Raises InvalidParameter when it is damaged or cut off.
    """
    buffered: Any = io.BufferedReader(_Source(source), _CHUNK)
    start = buffered.peek(6)[:6]
    stream: Any = buffered
    for magic, opener in _MAGIC:
        if start.startswith(magic):
            stream = opener(buffered)
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except PynetnsError:
        raise
    except _DAMAGED as error:
        raise InvalidParameter(f"import: the archive is damaged: {error}") from error
    except Exception as error:  # zstandard's ZstdError, without importing it; bz2's OSError
        raise InvalidParameter(f"import: the archive cannot be read: {error}") from error


# ---- tar ----


def import_tar(source: IO[bytes], target: str) -> Content:
    """Unpack a tar file (compressed or not) into the existing directory `target`.

    Raises InvalidParameter (damaged, no archive), Unavailable (disk full, no GNU tar). `target` may
    hold a part of the content then.
    """
    return _unpack(decompressed(source), target)


def import_directory(source: str, target: str) -> Content:
    """Copy a directory tree, without other file systems mounted in it and without sockets.

    Raises NotFound, InvalidParameter (changed while it was read), Unavailable.
    """
    if not os.path.isdir(source):
        raise NotFound(f"import: {source}: no such directory")
    with (
        tempfile.TemporaryFile() as messages,
        _tar([*_CREATE, *_XATTRS, "-C", source, "."], messages, stdout=subprocess.PIPE) as reader,
    ):
        assert reader.stdout is not None
        content = _unpack(iter(lambda: reader.stdout.read(_CHUNK), b""), target)  # type: ignore[union-attr]
        reader.stdout.close()
        _check(reader, messages)
    return content


def _unpack(chunks: Iterator[bytes], target: str) -> Content:
    digest, size, tail = hashlib.sha256(), 0, b""
    command = [*_EXTRACT, *_XATTRS, "-C", target]
    with (
        tempfile.TemporaryFile() as messages,
        _tar(command, messages, stdin=subprocess.PIPE) as tar,
    ):
        assert tar.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it says why at its end
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                tail = (tail + chunk)[-_BLOCK:]
                tar.stdin.write(chunk)
        with contextlib.suppress(BrokenPipeError):
            tar.stdin.close()
        _check(tar, messages)
    if tail != bytes(_BLOCK):  # tar itself takes an archive that is cut between two members
        raise InvalidParameter("import: the archive is empty or cut off: it has no end mark")
    return Content(digest.hexdigest(), size)


@contextlib.contextmanager
def _tar(
    command: list[str], messages: IO[bytes], **pipes: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run tar; however the block is left, it has ended afterwards."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        process = subprocess.Popen(command, stderr=messages, env=environment, bufsize=0, **pipes)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise Unavailable("import: needs GNU tar (package tar)") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


_FAULTS: tuple[tuple[str, type[PynetnsError]], ...] = (
    ("No space left on device", Unavailable),
    ("Disk quota exceeded", Unavailable),
    ("Read-only file system", Unavailable),
    ("unrecognized option", Unavailable),
    ("file changed as we read it", InvalidParameter),
    ("", InvalidParameter),
)


def _check(process: subprocess.Popen[bytes], messages: IO[bytes]) -> None:
    if process.wait() == 0:
        return
    messages.seek(0)
    text = messages.read(_CHUNK).decode("utf-8", "replace")
    lines = [
        line.removeprefix("tar: ") for line in text.splitlines() if "previous errors" not in line
    ]
    if process.returncode < 0:
        raise System(f"import: tar died of signal {-process.returncode}")
    reason = "; ".join(lines[:3]) or f"tar failed with status {process.returncode}"
    kind = next(kind for part, kind in _FAULTS if part in text)
    raise kind(f"import: {reason}")
