"""Root file systems in and out of tar: import of a directory or an archive into a layer directory.

Owns: compression, the digest of the content, an archive's bytes and its end, and running GNU tar,
which reads directories. What becomes of a member is unpack.py's. Knows nothing of images.

An archive may be of any size and have any number of members: what is held of it at a time is some
MiB, a member's header included, and the window of its compression (512 MiB at most). What it unpacks
to is bounded by the disk alone; when that is full, nothing of it stays.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import importlib
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from ..errors import InvalidParameter, NotFound, PynetnsError, System, Unavailable
from .unpack import Unpacker

_CHUNK = 1 << 20
_BLOCK = 512
_HEADER_MAX = 4 << 20  # all of what precedes a member's data: names, attributes, the map of holes
_MEMORY_MAX = 512 << 20  # of a decompressor
_XATTRS = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.overlay.*")
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
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MEMORY_MAX)
    return decompressor.stream_reader(source, read_across_frames=True)


class _Xz(io.RawIOBase):
    """xz within _MEMORY_MAX, which LZMAFile does not know."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._stream = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX)

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._stream.eof:  # another stream, padding of zeros, or the end
                rest = self._stream.unused_data or self._source.read(_CHUNK)
                while rest and not rest.strip(b"\0"):
                    rest = self._source.read(_CHUNK)
                if not rest:
                    return b""
                self._stream = self._new()
                data = self._stream.decompress(rest.lstrip(b"\0"), size)
            else:
                fed = self._source.read(1 << 16) if self._stream.needs_input else b""
                if self._stream.needs_input and not fed:
                    raise EOFError("it is cut off")
                data = self._stream.decompress(fed, size)
            if data:
                return data


_MAGIC: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda source: gzip.GzipFile(fileobj=source)),
    (b"\x28\xb5\x2f\xfd", _open_zstd),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", _Xz),
)
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError)


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
    except gzip.BadGzipFile as error:
        if stream.tell() == 0:
            raise InvalidParameter(f"import: the archive is damaged: {error}") from error
        raise InvalidParameter(
            "import: the archive is damaged, or bytes that are no gzip follow its compressed data"
        ) from error
    except _DAMAGED as error:
        raise InvalidParameter(f"import: the archive is damaged: {error}") from error
    except Exception as error:  # zstandard's ZstdError, without importing it; bz2's OSError
        raise InvalidParameter(f"import: the archive cannot be read: {error}") from error


# ---- tar ----


def import_tar(source: IO[bytes], target: str) -> Content:
    """Unpack a tar file (compressed or not) into the existing directory `target`, as docker import.

    Bytes behind the archive's end are ignored, as docker does, but another archive there is not.
    Raises InvalidParameter (damaged, no archive, a saved image, a member that cannot be made),
    Unavailable (disk full). `target` may hold a part of the content then.
    """
    content = _unpack(decompressed(source), target, whiteouts=True)
    _refuse_saved_image(target)
    return content


def import_directory(source: str, target: str) -> Content:
    """Copy a directory tree, without other file systems mounted in it and without sockets.

    Raises NotFound, InvalidParameter (changed while it was read, a saved image), Unavailable (disk
    full, no GNU tar).
    """
    if not os.path.isdir(source):
        raise NotFound(f"import: {source}: no such directory")
    with (
        tempfile.TemporaryFile() as messages,
        _tar([*_CREATE, *_XATTRS, "-C", source, "."], messages, stdout=subprocess.PIPE) as reader,
    ):
        output = reader.stdout
        assert output is not None
        try:
            content = _unpack(iter(lambda: output.read(_CHUNK), b""), target, whiteouts=False)
        except InvalidParameter:
            output.close()
            _check(reader, messages)  # its own reason comes first
            raise
        output.close()
        _check(reader, messages)
    _refuse_saved_image(target)
    return content


def _unpack(chunks: Iterator[bytes], target: str, *, whiteouts: bool) -> Content:
    stream = _Stream(chunks)
    with Unpacker(target, whiteouts=whiteouts) as unpacker:
        for member in _members(stream):
            unpacker.add(member, stream.read)
        unpacker.finish()
    _read_rest(stream)
    return Content(stream.digest.hexdigest(), stream.position)


class _Stream:
    """The plain archive as tarfile reads it: forward only, with what a header may take bounded."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.position = 0
        self.last = b""  # what was read last
        self.header_budget: int | None = None  # bytes until the next member's data
        self._chunks = chunks
        self._held = memoryview(b"")

    def read(self, size: int) -> bytes:
        """`size` bytes, less only at the end."""
        if self.header_budget is not None:
            self.header_budget -= size
            if size < 0 or self.header_budget < 0:
                raise InvalidParameter(
                    f"import: the archive is damaged: a header of more than {_HEADER_MAX} bytes"
                )
        parts, missing = [], size
        while missing > 0 and self._fill():
            part = self._held[:missing]
            self._held = self._held[missing:]
            parts.append(part)
            missing -= len(part)
        self.last = b"".join(parts)
        self.position += len(self.last)
        return self.last

    def _fill(self) -> bool:
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self.digest.update(chunk)
            self._held = memoryview(chunk)
        return True

    def tell(self) -> int:
        """Bytes read so far."""
        return self.position

    def seek(self, position: int) -> None:
        """Skip what lies between."""
        if position < self.position:
            raise tarfile.ReadError("a size that leads backwards")
        budget, self.header_budget = self.header_budget, None
        while self.position < position and self.read(min(position - self.position, _CHUNK)):
            pass
        self.header_budget = budget


def _members(stream: _Stream) -> Iterator[tarfile.TarInfo]:
    """Each header, with the stream at its data. InvalidParameter: damaged, cut off, no archive."""
    tar: tarfile.TarFile | None = None
    while True:
        stream.header_budget = _HEADER_MAX
        try:
            if tar is None:
                tar = tarfile.TarFile(
                    fileobj=stream,  # type: ignore[arg-type]
                    encoding="utf-8",
                    errors="surrogateescape",
                )
            member = tar.next()
        except (tarfile.TarError, ValueError, LookupError, OverflowError, struct.error) as error:
            raise _no_archive(stream, error) from error
        except RecursionError as error:
            raise _no_archive(stream, "headers upon headers") from error
        stream.header_budget = None
        if member is None:
            break
        tar.members.clear()  # type: ignore[attr-defined]
        yield member
    if len(stream.last) < _BLOCK:
        raise InvalidParameter("import: the archive is cut off: it has no end mark")
    if stream.last.strip(b"\0"):
        raise _no_archive(stream, "no header where one must be")


def _no_archive(stream: _Stream, why: object) -> InvalidParameter:
    if stream.position <= _BLOCK:
        return InvalidParameter(f"import: this is no tar archive: {why}")
    return InvalidParameter(f"import: the archive is damaged at byte {stream.position}: {why}")


def _read_rest(stream: _Stream) -> None:
    """To the end, for the digest."""
    blocks = True  # nothing but zeros so far
    while chunk := stream.read(_CHUNK):
        if blocks and chunk.strip(b"\0"):
            blocks = False
            start = (len(chunk) - len(chunk.lstrip(b"\0"))) // _BLOCK * _BLOCK
            if _is_header(chunk[start : start + _BLOCK]):
                raise InvalidParameter(
                    "import: another archive follows the end of the first: import one at a time, or "
                    "join them with `tar --concatenate`"
                )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _refuse_saved_image(target: str) -> None:
    """An image's own archive is made of layers, and no root file system."""
    names = set(os.listdir(target))
    saved = "manifest.json" in names and _is_manifest(f"{target}/manifest.json")
    if saved or {"oci-layout", "index.json"} <= names:
        kind = "docker save" if saved else "an OCI layout"
        raise InvalidParameter(
            f"import: this is an image with its layers ({kind}), not a root file system: `docker load` "
            "it, `docker create` a container of it, and import what `docker export` makes of that"
        )


def _is_manifest(path: str) -> bool:
    """Whether a file is docker save's manifest.json. Not through a link, and no more than a MiB."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            entries = json.loads(file.read(_CHUNK))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(entries, list)
        and bool(entries)
        and all(isinstance(entry, dict) and {"Config", "Layers"} <= set(entry) for entry in entries)
    )


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
