"""The user's own terminal: raw mode, its size, the keys that detach.

Owns: what is done to the terminal of whoever runs the command, and that it is undone. Knows nothing
of containers. Source: termios(3); docker/cli, `--detach-keys`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import InvalidParameter

DETACH_KEYS = "ctrl-p,ctrl-q"


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Every key goes through as it is typed; the mode before comes back, whatever happens. Of a
    terminal that was closed meanwhile nothing has to come back."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        # TCSADRAIN: what the program wrote last is still shown in its own mode
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def window_size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal; (0, 0) when `fd` is none."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 0, 0
    return rows, columns


def parse_detach_keys(text: str) -> bytes:
    """ "ctrl-p,ctrl-q" as the bytes that are typed; "" is no such keys."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-")
        if len(name) != 1 or not name.isascii():
            raise _bad_keys(text)
        if name == key:
            keys += key.encode()
        elif name.isalpha() or name in "@[\\]^_":
            keys.append(ord(name.upper()) & 0x1F)
        else:
            raise _bad_keys(text)
    return bytes(keys)


def _bad_keys(text: str) -> InvalidParameter:
    return InvalidParameter(
        f"--detach-keys {text!r} : must be characters or ctrl-<a-z@[\\]^_>, commas between"
    )


class DetachFilter:
    """Looks for the detach keys in what is typed. A part of them that turns out to be something
    else is passed on; the keys themselves are not."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""  # what may become the keys
        self.detached = False

    def feed(self, typed: bytes) -> bytes:
        """What is to be passed on; `detached` is set once the keys were complete."""
        if not self._keys:
            return typed
        passed = bytearray()
        for at in range(len(typed)):
            self._held += typed[at : at + 1]
            if self._held == self._keys:
                self.detached = True
                break
            while not self._keys.startswith(self._held):
                passed += self._held[:1]
                self._held = self._held[1:]
        return bytes(passed)
