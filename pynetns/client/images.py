"""`engine.images`: docker-py's image collection over the image store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from ..storage.images import Image as StoredImage

if TYPE_CHECKING:
    from ..engine.services import Services


class Image:
    """One image. `id` "sha256:…", `tags` its names, `attrs` Docker's ImageInspect fields."""

    def __init__(self, engine: Services, stored: StoredImage) -> None:
        self._engine = engine
        self._stored = stored

    @property
    def id(self) -> str:
        return self._stored.id

    @property
    def short_id(self) -> str:
        """The first ten digits of the id, with its prefix, as docker-py has it."""
        return self.id[:17] if self.id.startswith("sha256:") else self.id

    @property
    def tags(self) -> list[str]:
        return list(self._stored.names)

    @property
    def attrs(self) -> dict[str, Any]:
        return {
            "Id": self.id,
            "RepoTags": self.tags,
            "Created": self._stored.created,
            "Size": self._stored.size,
            "Config": dict(self._stored.config),
        }

    def __repr__(self) -> str:
        return f"<Image: {', '.join(repr(tag) for tag in self.tags)}>"


class ImageCollection:
    """The images of an engine; `host`, this machine's own files, is always among them."""

    def __init__(self, engine: Services) -> None:
        self._engine = engine

    def get(self, name: str) -> Image:
        """By name, tag or id prefix. NotFound `No such image`."""
        return Image(self._engine, self._engine.image_store.resolve(name))

    def list(self) -> list[Image]:
        """All images."""
        return [Image(self._engine, stored) for stored in self._engine.image_store.list()]

    def import_rootfs(
        self, source: str | IO[bytes], name: str = "", changes: Sequence[str] = ()
    ) -> Image:
        """Import a root file system: a directory, or a tar file (plain, gzip, zstd) by path or as
        a binary file. `name` "repo[:tag]"; `changes` as `docker import --change`, e.g. `CMD sh`."""
        return Image(
            self._engine, self._engine.image_store.import_rootfs(source, name, changes=changes)
        )

    def remove(self, image: str, force: bool = False) -> None:
        """Remove an image. Conflict while a container uses it."""
        self._engine.image_store.remove(image, force=force)
