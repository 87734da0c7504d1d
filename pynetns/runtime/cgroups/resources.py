"""`linux.resources` of a bundle's config.json: what is accepted of it, refused by the field's name.

Owns: the words of the specification, and the devices that every container may use. Pure; how a limit
is written is limits.py's, how a device rule is enforced device_bpf.py's. OCI runtime spec,
config-linux.md "Control groups" and "Default Devices".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..spec.devices import DEFAULT_DEVICE_RULES
from ..spec.fields import refuse, typed
from .limits import LIMITS

_TEXTS = ("cpus", "mems")


def accept_resources(resources: Mapping[str, Any]) -> dict[str, Any]:
    """`resources` without what says nothing (null; 0 or "", which mean no limit), its device rules
    followed by those of the devices that every container has. Raises InvalidParameter."""
    accepted: dict[str, Any] = {}
    known = {block for block, _ in LIMITS}
    for name, block in resources.items():
        where = f"linux.resources.{name}"
        if name == "devices" or not block:
            continue
        if name not in known:
            raise refuse(where, f"is not set by this runtime; accepted: {', '.join(sorted(known))}")
        limits = _limits(where, name, typed(where, block, dict))
        if limits:
            accepted[name] = limits
    memory = accepted.get("memory") or {}
    if "swap" in memory and not 0 < memory.get("limit", 0) <= memory["swap"] % (1 << 64):
        raise refuse("linux.resources.memory.swap", "needs a memory.limit that it is not below")
    rules = _rules(typed("linux.resources.devices", resources.get("devices") or [], list))
    accepted["devices"] = (*rules, *DEFAULT_DEVICE_RULES)
    return accepted


def _limits(where: str, name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    limits = {}
    for key, value in block.items():
        if (name, key) not in LIMITS:
            if value is not None and value is not False:
                raise refuse(f"{where}.{key}", "is not set by this runtime")
        elif value:
            limits[key] = typed(f"{where}.{key}", value, str if key in _TEXTS else int)
    return limits


def _rules(rules: Sequence[Any]) -> list[dict[str, Any]]:
    accepted = []
    for index, rule in enumerate(rules):
        where = f"linux.resources.devices[{index}]"
        typed(f"{where}.allow", typed(where, rule, dict).get("allow"), bool)
        if (rule.get("type") or "a") not in ("a", "b", "c", "u"):
            raise refuse(f"{where}.type", "accepted: a, b, c, u")
        if set(typed(f"{where}.access", rule.get("access") or "rwm", str)) - set("rwm"):
            raise refuse(f"{where}.access", "accepted: letters of rwm")
        for key in ("major", "minor"):
            if rule.get(key) is not None and not typed(f"{where}.{key}", rule[key], int) < 1 << 31:
                raise refuse(f"{where}.{key}", "is out of range")
        accepted.append({key: value for key, value in rule.items() if value is not None})
    return accepted
