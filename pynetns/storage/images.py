"""The images of one root: found by name or id, imported, removed; `host` is always among them.

Owns: which image has which layers and configuration, kept in the store; image layers on disk at
`<root>/overlay2/<digest>/diff`. Knows nothing of containers: the caller tells
who uses an image.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from ..errors import Conflict, InvalidParameter, NotFound, System, Unavailable
from ..files import make_directories, make_directory, sync_directory
from ..kernel import Kernel
from ..store import ImageRow, Store
from ..undo import Undo
from .archive import Content, import_directory, import_tar
from .host_image import HostMask
from .layers import layer_directory, remove_layer_directory, remove_tree
from .reference import DEFAULT_TAG, apply_changes, id_prefix, parse_reference

HOST = "host"
_HOST_NAME = f"{HOST}:{DEFAULT_TAG}"
_HOST_ID = f"sha256:{hashlib.sha256(b'pynetns image host').hexdigest()}"
_HOST_CONFIG: Mapping[str, Any] = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/bin/sh"],
}


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `id` "sha256:…"; `names` "repo:tag"; `lowers` its layer directories, top first;
    `config` Docker's keys (Env, Cmd, …); `created` RFC 3339, `size` in bytes, of its tar."""

    id: str
    names: tuple[str, ...]
    lowers: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    size: int = 0

    @property
    def on_record(self) -> bool:
        """Whether it is kept in the store, and can be removed; `host` is not."""
        return self.id != _HOST_ID


class ImageStore:
    """The images below one root. Several processes may use one root at once."""

    def __init__(self, store: Store, kernel: Kernel, root: str, exec_root: str) -> None:
        self._store = store
        self._root = root
        self._mask = HostMask(kernel, root, exec_root)
        self._host = Image(_HOST_ID, (_HOST_NAME,), self._mask.lowers, _HOST_CONFIG)

    # ---- finding ----

    def resolve(self, reference: str) -> Image:
        """By full id, then name, then unique id prefix (with or without "sha256:").

        Raises NotFound `No such image`, InvalidParameter (ambiguous prefix).
        """
        if reference in (HOST, _HOST_NAME, _HOST_ID):
            return self._host
        if not reference.isascii():  # no name is, and not every text could be looked up
            raise NotFound(f"No such image: {reference}")
        row = self._store.image_by_id(reference) or self._by_name(reference)
        if row is not None:
            return self._image(row)
        prefix = id_prefix(reference)
        if not prefix:
            raise NotFound(f"No such image: {reference}")
        ids = self._store.image_ids_by_prefix(prefix, 2)
        if _HOST_ID.startswith(prefix):
            ids.append(_HOST_ID)
        if len(ids) > 1:
            raise InvalidParameter(
                f"image {reference}: several ids begin with that, give more digits"
            )
        if not ids:
            raise NotFound(f"No such image: {reference}")
        return self.resolve(ids[0])

    def _by_name(self, reference: str) -> ImageRow | None:
        try:
            return self._store.image_by_name(parse_reference(reference))
        except InvalidParameter:
            return None  # then it may still be an id, else it names nothing

    def list(self) -> list[Image]:
        """All images, `host` first, then oldest first."""
        return [self._host, *(self._image(row) for row in self._store.images())]

    def _image(self, row: ImageRow) -> Image:
        names = tuple(self._store.image_tags(row.id))
        lowers = tuple(f"{layer_directory(self._root, layer)}/diff" for layer in row.layers)
        return Image(row.id, names, lowers, row.config, row.created, row.size)

    def owns_layer(self, name: str) -> bool:
        """Whether `overlay2/<name>` belongs to an image. Waits for one being registered."""
        with self._locked():
            return any(name in row.layers for row in self._store.images())

    # ---- importing ----

    def import_rootfs(
        self, source: str | IO[bytes], name: str = "", *, changes: Sequence[str] = ()
    ) -> Image:
        """Make an image of a directory or a tar file (plain, gzip, zstd, bzip2, xz).

        source: a path, "-" for standard input, or a binary file. name: "repo[:tag]", taken from the
        image that had it; "" for none. changes: instructions as of `docker import --change`.
        The same content and configuration is the same image. Durable when this returns.

        Raises NotFound, InvalidParameter (name, change, damaged archive), Unavailable (disk full);
        nothing is left then.
        """
        name = parse_reference(name) if name else ""
        if name == _HOST_NAME:
            raise InvalidParameter(f"image name {HOST}: is this machine's own root file system")
        config = apply_changes({}, changes)
        with Undo() as undo:
            layer, held = self._new_directory()
            undo.push(os.close, held)
            undo.push(remove_tree, layer)
            content = self._unpack(source, f"{layer}/diff")
            _sync(layer)
            with self._locked():
                return self._register(layer, content, name, config)

    def _new_directory(self) -> tuple[str, int]:
        """An empty layer below `<root>/tmp`, and the descriptor whose lock says it is in use."""
        path = f"{self._root}/tmp/import-{secrets.token_hex(8)}"
        try:
            make_directories(f"{self._root}/tmp", 0o711)
            make_directory(path, 0o710)
            make_directory(f"{path}/diff", 0o755)
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            raise Unavailable(f"import: {error.filename}: {error.strerror}") from error
        return path, held

    def _unpack(self, source: str | IO[bytes], target: str) -> Content:
        if not isinstance(source, str):
            return import_tar(source, target)
        if source == "-":
            return import_tar(sys.stdin.buffer, target)
        if os.path.isdir(source):
            real = os.path.realpath(source)
            if f"{os.path.realpath(self._root)}/".startswith(f"{real.rstrip('/')}/"):
                raise InvalidParameter(
                    f"import: {source}: holds the engine's own root {self._root}"
                )
            return import_directory(source, target)
        try:
            with open(source, "rb") as file:
                return import_tar(file, target)
        except FileNotFoundError as error:
            raise NotFound(f"import: {source}: no such file or directory") from error
        except OSError as error:
            raise InvalidParameter(f"import: {source}: {error.strerror}") from error

    def _register(self, layer: str, content: Content, name: str, config: dict[str, Any]) -> Image:
        """Under the lock: the layer into its place, the image into the store."""
        document = json.dumps({"config": config, "layers": [content.digest]}, sort_keys=True)
        image_id = f"sha256:{hashlib.sha256(document.encode()).hexdigest()}"
        if self._store.image_by_id(image_id) is not None:
            if name:
                self._store.tag_image(image_id, name)
            return self.resolve(image_id)
        place = layer_directory(self._root, content.digest)
        made = not any(content.digest in row.layers for row in self._store.images())
        if made:
            remove_tree(place)  # left by an import that died between the next two lines
            os.rename(layer, place)
            sync_directory(os.path.dirname(place))  # as the files: before the row
        created = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        try:
            self._store.add_image(image_id, name, created, [content.digest], config, content.size)
        except BaseException:
            if made:
                remove_tree(place)
            raise
        return self.resolve(image_id)

    # ---- removing ----

    def remove(self, reference: str, *, force: bool = False) -> None:
        """Remove a name; with its last name, or by id, the image and the layers no other one has.

        Raises NotFound, Conflict (a container is made of it; several names without `force`). `force`
        does not take the layers away from a container.
        """
        with self._locked():
            image = self.resolve(reference)
            if image is self._host:
                raise Conflict(f"image {HOST}: is this machine's own root file system")
            by_name = self._by_name(reference) is not None
            if by_name and len(image.names) > 1:
                self._store.untag_image(parse_reference(reference))
                return
            if not by_name and len(image.names) > 1 and not force:
                raise Conflict(f"image {reference}: has several names, give one of them or --force")
            row = self._store.image_by_id(image.id)
            self._remove_row(reference, image.id)
            others = {layer for other in self._store.images() for layer in other.layers}
            for layer in row.layers if row is not None else ():
                if layer not in others:
                    remove_layer_directory(self._root, layer)

    def _remove_row(self, reference: str, image_id: str) -> None:
        """The store refuses it in the same transaction in which a create would take the image."""
        try:
            self._store.remove_image(image_id)
        except Conflict as error:
            users = self._store.image_users(image_id) or [""]
            raise Conflict(
                f"image {reference}: is used by container {users[0][:12]}, remove that first"
            ) from error

    def collect(self) -> Sequence[str]:
        """Remove what imports left that died; one line for each."""
        removed = []
        for name in os.listdir(f"{self._root}/tmp"):
            path = f"{self._root}/tmp/{name}"
            if not name.startswith("import-"):
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path)
                removed.append(f"import {path}")
            except BlockingIOError:
                continue  # still at work
            finally:
                os.close(fd)
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all that add or remove layers, in any process."""
        make_directories(f"{self._root}/image", 0o711)
        fd = os.open(f"{self._root}/image", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _sync(path: str) -> None:
    """Everything below `path` to the disk: the store's row must not outlive it in a power cut."""
    done = subprocess.run(["sync", "-f", path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise System(f"import: {done.stderr.strip()}")
