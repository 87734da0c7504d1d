"""What a check of the doctor says.

Owns: one outcome. Knows nothing of how it is found.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One outcome. `ok`: True, False (essential and missing), None (a warning). `fix` is what to
    do about the latter two."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, object]:
        """Its fields, for --format."""
        return {"Name": self.name, "Ok": self.ok, "Detail": self.detail, "Fix": self.fix}
