"""Store methods for images and their names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Conflict, NotFound, StateDamaged
from .database import Database
from .rows import ImageRow

_COLUMNS = "SELECT id, name, created, layers, config, size FROM images "


class ImageTable(Database):
    """Which image has which layers, configuration and names."""

    def add_image(
        self,
        id: str,
        name: str,
        created: str,
        layers: Sequence[str],
        config: Mapping[str, Any],
        size: int,
    ) -> None:
        """Add an image; a `name` that is not "" becomes its tag and leaves the image that had it.

        `layers` top first or as the caller likes, `size` in bytes. Durable on return. Conflict when
        the id is taken.
        """
        row = (id, name, created, json.dumps(list(layers)), json.dumps(dict(config)), size)

        def add() -> None:
            try:
                self._write("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise Conflict(f"image {id} exists already") from error
            if name:
                self._write("INSERT OR REPLACE INTO image_tags VALUES (?, ?)", (name, id))

        self.atomically(add, durable=True)

    def tag_image(self, id: str, name: str) -> None:
        """Give an image one more name; whichever had it loses it. NotFound without the image."""

        def tag() -> None:
            if self.image_by_id(id) is None:
                raise NotFound(f"No such image: {id}")
            self._write("INSERT OR REPLACE INTO image_tags VALUES (?, ?)", (name, id))

        self.atomically(tag, durable=True)

    def untag_image(self, name: str) -> None:
        """Take a name away; an absent one is fine."""
        self._write("DELETE FROM image_tags WHERE name = ?", (name,))

    def image_by_id(self, id: str) -> ImageRow | None:
        row = self._one(_COLUMNS + "WHERE id = ?", (id,))
        return None if row is None else self._image(row)

    def image_by_name(self, name: str) -> ImageRow | None:
        """By a tag."""
        sql = _COLUMNS + "WHERE id = (SELECT image_id FROM image_tags WHERE name = ?)"
        row = self._one(sql, (name,))
        return None if row is None else self._image(row)

    def image_ids_by_prefix(self, prefix: str, limit: int = 10) -> list[str]:
        """At most `limit` image ids that begin with `prefix`, in order."""
        sql = "SELECT id FROM images WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
        return [row[0] for row in self._all(sql, (prefix, prefix + "\U0010ffff", limit))]

    def image_tags(self, id: str) -> list[str]:
        """The names of an image, in order."""
        sql = "SELECT name FROM image_tags WHERE image_id = ? ORDER BY name"
        return [row[0] for row in self._all(sql, (id,))]

    def images(self) -> list[ImageRow]:
        """All, oldest first."""
        return [self._image(row) for row in self._all(_COLUMNS + "ORDER BY created, id")]

    def image_users(self, id: str) -> list[str]:
        """The ids of the containers made of an image, in order."""
        sql = "SELECT id FROM containers WHERE image_id = ? ORDER BY id"
        return [row[0] for row in self._all(sql, (id,))]

    def remove_image(self, id: str) -> None:
        """Remove an image and its names; an absent one is fine. Durable on return. Conflict while a
        container is made of it."""

        def remove() -> None:
            try:
                self._write("DELETE FROM images WHERE id = ?", (id,))
            except sqlite3.IntegrityError as error:
                raise Conflict(f"image {id} is used by a container") from error

        self.atomically(remove, durable=True)

    def _image(self, row: tuple[str, str, str, str, str, int]) -> ImageRow:
        id, name, created, layers, config, size = row
        try:
            return ImageRow(id, name, created, tuple(json.loads(layers)), json.loads(config), size)
        except (ValueError, TypeError) as error:
            raise StateDamaged(f"{self.path}: image {id} is damaged ({error!r})") from error
