"""A bundle's config.json: what this runtime accepts of it, and what it refuses by the field's name.

Owns: the tables of fields, and the form that the plan and the cgroups take. Pure but for reading the
file. A field that the OCI specification knows and this runtime cannot do is refused before anything is
made; one that it does not know is passed over, as it demands ("Extensibility"). Capabilities that
cannot be granted are left out with a warning, which it demands too. Mounts are bundle_mounts.py's.
Source: OCI runtime spec 1.2, config.md and config-linux.md.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..cgroups.resources import accept_resources
from ..security.capabilities import NUMBERS
from .bundle_mounts import accept_mounts
from .checks import IPC_SYSCTLS
from .fields import KIND_NAMES, number, path_inside, refuse, strings, typed
from .rlimits import RLIMITS

log = logging.getLogger("pynetns")

_LARGEST = 32 << 20  # bytes of a config.json
_ID_MAX = (1 << 32) - 2  # -1 means "unchanged" to the kernel
_VERSION = re.compile(r"1\.\d+\.\d+\S*")
_SYSCTL = re.compile(r"[\w-]+(\.[\w-]+)+")
_PID_PATH = re.compile(r"/proc/(\d+)/ns/pid")

# field -> what it must be; those that may not be missing
_KINDS: dict[str, type] = {
    "ociVersion": str, "root": dict, "root.path": str, "root.readonly": bool, "hostname": str,
    "domainname": str, "mounts": list, "annotations": dict,
    "process": dict, "process.terminal": bool, "process.consoleSize": dict, "process.cwd": str,
    "process.args": list, "process.env": list, "process.user": dict, "process.user.uid": int,
    "process.user.gid": int, "process.user.umask": int, "process.user.additionalGids": list,
    "process.capabilities": dict, "process.rlimits": list, "process.noNewPrivileges": bool,
    "process.oomScoreAdj": int,
    "linux": dict, "linux.namespaces": list, "linux.devices": list, "linux.sysctl": dict,
    "linux.cgroupsPath": str, "linux.resources": dict, "linux.rootfsPropagation": str,
    "linux.seccomp": dict, "linux.maskedPaths": list, "linux.readonlyPaths": list,
}  # fmt: skip
_REQUIRED = (
    "ociVersion",
    "root",
    "root.path",
    "process",
    "process.cwd",
    "process.args",
    "process.user",
    "linux",
    "linux.namespaces",
)
_HOOKS = "prestart createRuntime createContainer startContainer poststart poststop".split()
_REFUSED: dict[str, str] = {
    **{f"hooks.{hook}": "hooks are not run by this runtime" for hook in _HOOKS},
    "process.apparmorProfile": "AppArmor profiles are not set by this runtime",
    "process.selinuxLabel": "SELinux labels are not set by this runtime",
    "process.scheduler": "scheduling attributes are not set by this runtime",
    "process.ioPriority": "I/O priorities are not set by this runtime",
    "process.execCPUAffinity": "CPU affinities are not set by this runtime",
    "linux.uidMappings": "user namespaces are not made by this runtime",
    "linux.gidMappings": "user namespaces are not made by this runtime",
    "linux.timeOffsets": "time namespaces are not made by this runtime",
    "linux.mountLabel": "SELinux labels are not set by this runtime",
    "linux.personality": "execution domains are not set by this runtime",
    "linux.intelRdt": "Intel RDT is not set up by this runtime",
    "linux.netDevices": "network devices are not moved by this runtime",
    "linux.memoryPolicy": "NUMA policies are not set by this runtime",
    "solaris": "only Linux containers run here",
    "windows": "only Linux containers run here",
    "vm": "only Linux containers run here",
    "zos": "only Linux containers run here",
    "freebsd": "only Linux containers run here",
}
_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")  # each is below one before
_BELOW = {
    "effective": ("permitted",),
    "inheritable": ("bounding",),
    "ambient": ("permitted", "inheritable"),
}
_NAMESPACES = ("mount", "pid", "network", "ipc", "uts", "cgroup")
_PROPAGATIONS = ("", "private", "rprivate", "slave", "rslave", "shared", "rshared")
_DEVICE_TYPES = ("c", "u", "b", "p")

Spec = dict[str, Any]


def load_bundle(bundle: str) -> Spec:
    """The config.json of the directory `bundle`, unchecked. InvalidParameter names what is wrong."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise refuse(path, f"is longer than {_LARGEST >> 20} MiB")
        spec = json.loads(text)
    except OSError as error:
        raise refuse(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise refuse(path, f"is not JSON: {error}") from error
    if not isinstance(spec, dict):
        raise refuse(path, "must hold a JSON object")
    return spec


def accept(spec: Spec, bundle: str, have: Sequence[str]) -> Spec:
    """`spec` in the form that `render_plan` takes, every path of the host absolute. `bundle` is the
    absolute path of its directory, `have` the capabilities that this process can hand on.

    Raises InvalidParameter, whose message begins with the field.
    """
    _check_strings("", spec)
    _check_fields(spec)
    linux, root = spec["linux"], spec["root"]
    namespaces = _namespaces(linux["namespaces"])
    kinds = {namespace["type"] for namespace in namespaces}
    for name in ("hostname", "domainname"):
        if spec.get(name) and "uts" not in kinds:
            raise refuse(name, "would be the host's, without a uts namespace in linux.namespaces")
    accepted = {
        "ociVersion": spec["ociVersion"],
        "root": {
            "path": os.path.normpath(os.path.join(bundle, root["path"])),
            "readonly": root.get("readonly") or False,
        },
        "hostname": spec.get("hostname") or "",
        "annotations": _annotations(spec.get("annotations") or {}),
        "process": _process(spec["process"], have),
        "mounts": accept_mounts(spec.get("mounts") or [], bundle),
        "linux": {
            "namespaces": namespaces,
            "devices": _devices(linux.get("devices") or []),
            "sysctl": _sysctls(linux.get("sysctl") or {}, kinds),
            "cgroupsPath": linux.get("cgroupsPath") or "",
            "resources": accept_resources(linux.get("resources") or {}),
            "rootfsPropagation": linux.get("rootfsPropagation") or "private",
            "maskedPaths": _paths("linux.maskedPaths", linux.get("maskedPaths") or []),
            "readonlyPaths": _paths("linux.readonlyPaths", linux.get("readonlyPaths") or []),
        },
    }
    if spec.get("domainname"):  # setdomainname(2) by another way
        accepted["linux"]["sysctl"]["kernel.domainname"] = spec["domainname"]
    if linux.get("seccomp"):
        accepted["linux"]["seccomp"] = linux["seccomp"]
    return accepted


# ---- the whole ----


def _check_strings(where: str, value: Any) -> None:
    """No NUL byte, and nothing that could not be handed to the kernel as bytes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_strings(where, key)
            _check_strings(f"{where}.{key}" if where else key, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_strings(f"{where}[{index}]", inner)
    elif isinstance(value, str):
        try:
            bad = b"\0" in os.fsencode(value)
        except UnicodeEncodeError:
            bad = True
        if bad:
            raise refuse(where, "holds a NUL byte, or half of a character")


def _look(spec: Mapping[str, Any], field: str) -> Any:
    """What is at "a.b.c", None where there is nothing."""
    value: Any = spec
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _check_fields(spec: Spec) -> None:
    for field, kind in _KINDS.items():
        value = _look(spec, field)
        if value is None:
            if field in _REQUIRED:
                raise refuse(field, "is missing")
        elif type(value) is not kind:
            raise refuse(field, f"must be {KIND_NAMES[kind]}")
    for field, why in _REFUSED.items():
        if _look(spec, field):
            raise refuse(field, why)
    if not _VERSION.fullmatch(spec["ociVersion"]):
        raise refuse("ociVersion", f"{spec['ociVersion']!r}: 1.x.y is understood")
    if spec["linux"].get("rootfsPropagation", "") not in _PROPAGATIONS:
        raise refuse(
            "linux.rootfsPropagation", f"accepted: {', '.join(filter(None, _PROPAGATIONS))}"
        )


def _paths(where: str, paths: Sequence[Any]) -> list[str]:
    return [path_inside(f"{where}[{index}]", path) for index, path in enumerate(paths)]


def _annotations(annotations: Mapping[str, Any]) -> dict[str, str]:
    for key, value in annotations.items():
        if not key:
            raise refuse("annotations", "a key is empty")
        typed(f"annotations.{key}", value, str)
    return dict(annotations)


# ---- process ----


def _process(process: Mapping[str, Any], have: Sequence[str]) -> Spec:
    args = strings("process.args", process["args"])
    if not args:
        raise refuse("process.args", "is empty: there is no program")
    for index, entry in enumerate(env := strings("process.env", process.get("env") or [])):
        if "=" not in entry[1:]:
            raise refuse(f"process.env[{index}]", f"{entry!r}: must be NAME=VALUE")
    size = process.get("consoleSize") or {}
    accepted = {
        "args": args,
        "env": env,
        "cwd": path_inside("process.cwd", process["cwd"]),
        "terminal": process.get("terminal") or False,
        "winsize": tuple(
            number(f"process.consoleSize.{side}", size.get(side) or 0, 0, 0xFFFF)
            for side in ("height", "width")
        ),
        "user": _user(process["user"]),
        "capabilities": _capabilities(process.get("capabilities") or {}, have),
        "rlimits": _rlimits(process.get("rlimits") or []),
        "noNewPrivileges": process.get("noNewPrivileges") or False,
    }
    if process.get("oomScoreAdj") is not None:
        accepted["oomScoreAdj"] = number("process.oomScoreAdj", process["oomScoreAdj"], -1000, 1000)
    return accepted


def _user(user: Mapping[str, Any]) -> Spec:
    if user.get("username"):
        raise refuse("process.user.username", "is for Windows; uid and gid are what counts here")
    accepted: Spec = {
        name: number(f"process.user.{name}", user.get(name) or 0, 0, _ID_MAX)
        for name in ("uid", "gid")
    }
    if user.get("umask") is not None:
        accepted["umask"] = number("process.user.umask", user["umask"], 0, 0o777)
    accepted["additionalGids"] = [
        number(f"process.user.additionalGids[{index}]", gid, 0, _ID_MAX)
        for index, gid in enumerate(user.get("additionalGids") or [])
    ]
    return accepted


def _capabilities(capabilities: Mapping[str, Any], have: Sequence[str]) -> dict[str, list[str]]:
    """The five sets without what cannot be granted: a name that the machine has not got, or this
    process not, and one that another set must have too. capabilities(7), capset(2)."""
    accepted: dict[str, list[str]] = {}
    for kind in _SETS:
        where = f"process.capabilities.{kind}"
        names = strings(where, typed(where, capabilities.get(kind) or [], list))
        grantable = set(have).intersection(NUMBERS)
        for other in _BELOW.get(kind, ()):
            grantable.intersection_update(accepted[other])
        accepted[kind] = [name for name in names if name in grantable]
        left = [name for name in names if name not in grantable]
        if left:
            log.warning("%s : %s cannot be granted", where, ", ".join(left))
    return accepted


def _rlimits(rlimits: Sequence[Any]) -> list[Spec]:
    seen: set[str] = set()
    for index, limit in enumerate(rlimits):
        where = f"process.rlimits[{index}]"
        kind = typed(where, limit, dict).get("type")
        if kind not in RLIMITS:
            raise refuse(f"{where}.type", f"{kind!r}: accepted: {', '.join(RLIMITS)}")
        if kind in seen:
            raise refuse(f"{where}.type", f"{kind} is there twice")
        seen.add(kind)
        for side in ("soft", "hard"):
            number(f"{where}.{side}", limit.get(side), 0, (1 << 64) - 1)
        if limit["soft"] > limit["hard"]:
            raise refuse(f"{where}.soft", f"{limit['soft']} exceeds the hard limit")
    return list(rlimits)


# ---- linux ----


def _namespaces(namespaces: Sequence[Any]) -> list[Spec]:
    accepted: dict[str, Spec] = {}
    for index, namespace in enumerate(namespaces):
        where = f"linux.namespaces[{index}]"
        kind, path = typed(where, namespace, dict).get("type"), namespace.get("path") or ""
        if kind not in _NAMESPACES:
            why = f"{kind!r} namespaces are not made by this runtime; accepted: "
            raise refuse(f"{where}.type", f"{why}{', '.join(_NAMESPACES)}")
        if kind in accepted:
            raise refuse(f"{where}.type", f"{kind} is there twice")
        if path and kind in ("mount", "cgroup"):
            raise refuse(f"{where}.path", f"a {kind} namespace can only be a new one")
        if path and not typed(f"{where}.path", path, str).startswith("/"):
            raise refuse(f"{where}.path", f"{path!r}: must be absolute")
        if path and kind == "pid" and not _PID_PATH.fullmatch(path):
            raise refuse(
                f"{where}.path", "of a pid namespace must be /proc/<pid>/ns/pid: by whose /proc"
            )
        accepted[kind] = {"type": kind, "path": path} if path else {"type": kind}
    if "mount" not in accepted:
        raise refuse("linux.namespaces", "there must be a new mount namespace among them")
    return list(accepted.values())


def joined_pid(namespaces: Iterable[Mapping[str, str]]) -> int:
    """The process whose pid namespace accepted `namespaces` name, 0 for none."""
    for namespace in namespaces:
        found = _PID_PATH.fullmatch(namespace.get("path") or "")
        if namespace["type"] == "pid" and found:
            return int(found[1])
    return 0


def _sysctls(sysctls: Mapping[str, Any], kinds: set[str]) -> dict[str, str]:
    """Those of a namespace that the container has; any other would be the host's."""
    for name, value in sysctls.items():
        where = f"linux.sysctl.{name}"
        if not _SYSCTL.fullmatch(name) or "\n" in typed(where, value, str):
            raise refuse(where, "must be a sysctl's name with dots, and one line")
        needs = _sysctl_namespace(name)
        if needs not in kinds:
            what = f"needs a {needs} namespace in linux.namespaces" if needs else "is the host's"
            raise refuse(where, what)
    return dict(sysctls)


def _sysctl_namespace(name: str) -> str:
    if name.startswith("net."):
        return "network"
    if name in IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return "ipc"
    return "uts" if name == "kernel.domainname" else ""


def _devices(devices: Sequence[Any]) -> list[Spec]:
    for index, device in enumerate(devices):
        where = f"linux.devices[{index}]"
        path_inside(f"{where}.path", typed(where, device, dict).get("path"))
        if device.get("type") not in _DEVICE_TYPES:
            raise refuse(f"{where}.type", f"accepted: {', '.join(_DEVICE_TYPES)}")
        if device["type"] != "p":
            number(f"{where}.major", device.get("major"), 0, (1 << 12) - 1)
            number(f"{where}.minor", device.get("minor"), 0, (1 << 20) - 1)
        for name in ("uid", "gid"):
            number(f"{where}.{name}", device.get(name) or 0, 0, _ID_MAX)
        if device.get("fileMode") is not None:
            number(f"{where}.fileMode", device["fileMode"], 0, 0o7777)
    return [
        {key: value for key, value in device.items() if value is not None} for device in devices
    ]
