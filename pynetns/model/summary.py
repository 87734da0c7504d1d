"""What lists show of a container beyond its state: a frozen value and its JSON.

Owns: which facts these are. They are fixed when a container is created, so that a list needs no look
at its files. Knows nothing of files or rows. Source: Docker Engine API 1.41, `ContainerSummary`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Summary:
    """`image` as the user named it, else the directory given with --rootfs; `image_id` "" there.
    `command` is program and arguments, joined by blanks; `auto_remove` of --rm."""

    image: str = ""
    image_id: str = ""
    command: str = ""
    network_mode: str = ""
    auto_remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON for the store."""
        return _encode(
            {
                "image": self.image,
                "image_id": self.image_id,
                "command": self.command,
                "network_mode": self.network_mode,
                "auto_remove": self.auto_remove,
                "labels": dict(self.labels),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """The inverse of `to_json`; what is missing is its default. ValueError or TypeError on a
        damaged document."""
        return cls(**json.loads(text))


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
