"""Docker's framing of several streams on one connection: 8 bytes of header, then the bytes.

Owns: the header. Pure: no I/O. Source: moby pkg/stdcopy; Docker Engine API, ContainerAttach,
"Stream format": byte 0 is the stream, bytes 4 to 7 the size, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import System

HEADER_SIZE = 8  # bytes
STREAMS = ("stdin", "stdout", "stderr")  # the index is the number on the wire
MAX_FRAME = 1 << 20  # bytes; a larger size is taken for damage

Chunk = tuple[str, bytes]


def mux(stream: str, data: bytes) -> bytes:
    """One frame (more for data above MAX_FRAME). ValueError for a stream that does not exist."""
    number = STREAMS.index(stream)
    return b"".join(
        bytes((number, 0, 0, 0)) + len(part).to_bytes(4, "big") + part
        for part in (data[at : at + MAX_FRAME] for at in range(0, len(data), MAX_FRAME))
    )


class Demux:
    """Takes frames apart, however they are cut: feed bytes, get chunks."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Chunk]:
        """The frames that are complete now. System when `data` is no such stream."""
        self._buffer += data
        chunks: list[Chunk] = []
        at = 0
        while len(self._buffer) - at >= HEADER_SIZE:
            stream, size = _parse_header(self._buffer[at : at + HEADER_SIZE])
            end = at + HEADER_SIZE + size
            if end > len(self._buffer):
                break
            chunks.append((stream, bytes(self._buffer[at + HEADER_SIZE : end])))
            at = end
        del self._buffer[:at]
        return chunks

    def finish(self) -> None:
        """Say that the stream has ended. System when it did so within a frame."""
        if self._buffer:
            raise System(f"stream : ended within a frame, {len(self._buffer)} bytes of it read")


def demux(parts: Iterable[bytes]) -> Iterator[Chunk]:
    """Every frame of a stream that arrives in `parts`."""
    demuxer = Demux()
    for part in parts:
        yield from demuxer.feed(part)
    demuxer.finish()


def _parse_header(header: bytes | bytearray) -> tuple[str, int]:
    number, size = header[0], int.from_bytes(header[4:], "big")
    if number >= len(STREAMS) or any(header[1:4]) or size > MAX_FRAME:
        raise System(f"stream : {bytes(header).hex(' ')} is no frame header")
    return STREAMS[number], size
