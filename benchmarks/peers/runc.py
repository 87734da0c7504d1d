"""runc, as a command."""

from __future__ import annotations

from .oci import OciRuntime


class Runc(OciRuntime):
    name = "runc"
