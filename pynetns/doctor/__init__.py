"""What this machine can and cannot do for the engine, with the fix for each.

`check()` looks, in the order of the table in checks.py, and changes nothing: files are read, system
calls are tried with arguments that cannot succeed, and links are tried in a network namespace of
their own that ends with the look. No engine is opened, no root directory is needed.
"""

from __future__ import annotations

import os

from .checks import CHECKS
from .forwarding import Firewall
from .machine import Machine
from .outcome import Check

DEFAULT_ROOT = "/var/lib/pynetns"
DEFAULT_EXEC_ROOT = "/run/pynetns"


def check(
    root: str | None = None, exec_root: str | None = None, machine: Machine | None = None
) -> list[Check]:
    """Every check's outcome. `root`, `exec_root`: as for Engine."""
    machine = machine or Firewall()
    machine.root = root or os.environ.get("PYNETNS_ROOT") or DEFAULT_ROOT
    machine.exec_root = exec_root or os.environ.get("PYNETNS_EXEC_ROOT") or DEFAULT_EXEC_ROOT
    return [test(machine) for test in CHECKS]


__all__ = ["Check", "Machine", "check"]
