"""Layer directories on disk: `<root>/overlay2/<name>/{diff,work}`.

Owns: making and removing them, and removing trees that a container may have made hard to remove.
Knows nothing of mounts. Removing what is absent succeeds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

from ..errors import System
from ..files import make_directory


def layer_directory(root: str, name: str) -> str:
    """Where layer `name` (a container's id or an image layer's digest) lives."""
    return f"{root}/overlay2/{name}"


def create_layer_directory(root: str, name: str) -> None:
    """A container's empty writable layer. `diff` becomes the root directory, hence 0755."""
    path = layer_directory(root, name)
    make_directory(path, 0o710)
    try:
        make_directory(f"{path}/diff", 0o755)
        make_directory(f"{path}/work", 0o700)
    except OSError:
        remove_layer_directory(root, name)
        raise


def remove_layer_directory(root: str, name: str) -> None:
    """Remove a layer with all its files. Raises System when something cannot be removed."""
    path = layer_directory(root, name)
    try:
        # of a container that wrote nothing: at most four directories, without looking into them,
        # which an undo could not do where descriptors have run out
        for directory in ("work/work", "work", "diff", ""):
            with suppress(FileNotFoundError):
                os.rmdir(f"{path}/{directory}")
    except OSError:
        remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a directory tree. Raises System when something is left.

    A container can nest directories deeper than Python can recurse or hold descriptors for; rm can.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):  # somebody else removes it too
            _rm(path)
    except (OSError, RecursionError):
        _rm(path)


def _rm(path: str) -> None:
    done = subprocess.run(
        ["rm", "-rf", "--one-file-system", "--", path], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise System(f"{path}: cannot be removed: {done.stderr.strip()}")
