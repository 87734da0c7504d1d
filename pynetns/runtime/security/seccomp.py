"""System call filters: from Docker's profile to `linux.seccomp`, from that to a BPF program.

Owns: resolving a profile for capabilities, kernel and machine. Reading one is seccomp_custom.py's,
compiling seccomp_compile.py's, keeping what was compiled seccomp_cache.py's. Knows nothing of how a
filter is loaded.
Source: moby profiles/seccomp, setSeccomp; runc libcontainer/seccomp; seccomp(2).

A resolved profile is shared by all containers that have it: treat it as read-only. Its identity is
what makes the second look-up free.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from typing import Any

from ...errors import InvalidParameter, Unavailable
from ...kernel.operations import SeccompFilter
from .seccomp_abi import runnable_abis
from .seccomp_cache import keep_compiled, read_compiled
from .seccomp_compile import NATIVE, compile_filter
from .seccomp_custom import (
    KernelVersion,
    kernel_version,
    loading_flags,
    parse_profile,
    read_profile,
    source_of,
)
from .seccomp_profile import docker_default
from .security_opt import BUILTIN, UNCONFINED, parse_security_opt, split_option

OciSeccomp = dict[str, Any]

ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
"""uname's machine -> the name that profiles use."""
_NATIVE = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}

_GENERATOR = "2"  # changes with what seccomp_compile.py makes of a profile


@lru_cache(maxsize=1)
def machine() -> tuple[KernelVersion, str]:
    """Version of the running kernel and the machine's name in profiles. Raises Unavailable on a
    machine that there is no profile for."""
    uname = os.uname()
    if uname.machine not in ARCHES:
        raise Unavailable(
            f"no seccomp profile for {uname.machine}: "
            "--security-opt seccomp=unconfined does without"
        )
    return kernel_version(uname.release), ARCHES[uname.machine]


def container_seccomp(
    security_opt: tuple[str, ...], capabilities: tuple[str, ...], privileged: bool = False
) -> OciSeccomp | None:
    """`linux.seccomp` of a container on this machine, None for unconfined. A privileged container
    is confined only by a profile that was asked for. Raises InvalidParameter, Unavailable.
    moby setSeccomp."""
    profile = parse_security_opt(security_opt).seccomp
    if profile == UNCONFINED or (privileged and not profile):
        return None
    if profile in ("", BUILTIN):
        return resolve_default(capabilities, *machine())
    return _resolve_text(read_profile(profile), capabilities, *machine())


@lru_cache(maxsize=64)
def resolve_default(capabilities: tuple[str, ...], kernel: KernelVersion, arch: str) -> OciSeccomp:
    """Docker's default profile for a container with these capabilities."""
    return resolve(docker_default(), capabilities, kernel, arch)


@lru_cache(maxsize=64)
def _resolve_text(
    text: str, capabilities: tuple[str, ...], kernel: KernelVersion, arch: str
) -> OciSeccomp:
    return resolve(parse_profile(text), capabilities, kernel, arch)


def bundle_seccomp(block: dict[str, Any]) -> OciSeccomp:
    """`linux.seccomp` of a bundle's config.json, checked. Raises InvalidParameter that begins with
    the field, Unavailable."""
    try:
        profile = parse_profile(json.dumps(block), "linux.seccomp")
    except InvalidParameter as error:
        raise InvalidParameter(str(error).removeprefix("--security-opt seccomp: ")) from error
    return resolve(profile, (), *machine())


def inline_profiles(security_opt: tuple[str, ...]) -> tuple[str, ...]:
    """The options with a profile's file replaced by its text, so that a container keeps the profile
    it was created with, as the docker command line does. Raises InvalidParameter."""
    profile = parse_security_opt(security_opt).seccomp
    if profile in ("", UNCONFINED, BUILTIN):
        return security_opt
    text = read_profile(profile)
    parse_profile(text, source_of(profile))
    others = (option for option in security_opt if split_option(option)[0] != "seccomp")
    return (*others, f"seccomp={text}")


def resolve(
    profile: dict[str, Any], capabilities: tuple[str, ...], kernel: KernelVersion, arch: str
) -> OciSeccomp:
    """The rules of `profile` that hold, as `linux.seccomp` has them. moby setupSeccomp."""
    result: OciSeccomp = {"defaultAction": profile["defaultAction"]}
    if profile.get("defaultErrnoRet") is not None:
        result["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if profile.get("flags"):
        result["flags"] = profile["flags"]
    result["architectures"] = _architectures(profile, arch)
    result["syscalls"] = [
        _rule(call)
        for call in profile.get("syscalls") or ()
        if _names(call) and _holds(call, capabilities, kernel, arch)
    ]
    return result


def _architectures(profile: dict[str, Any], arch: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == _NATIVE[arch]:
            return [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return []


def _holds(
    call: dict[str, Any], capabilities: tuple[str, ...], kernel: KernelVersion, arch: str
) -> bool:
    includes, excludes = call.get("includes") or {}, call.get("excludes") or {}
    if arch in (excludes.get("arches") or ()):
        return False
    if any(capability in capabilities for capability in excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= kernel_version(excludes["minKernel"]):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if any(capability not in capabilities for capability in includes.get("caps") or ()):
        return False
    return not (includes.get("minKernel") and kernel < kernel_version(includes["minKernel"]))


def _names(call: dict[str, Any]) -> list[str]:
    return call.get("names") or [name for name in (call.get("name"),) if name]


def _rule(call: dict[str, Any]) -> dict[str, Any]:
    rule = {"names": _names(call), "action": call["action"]}
    if call.get("errnoRet") is not None:
        rule["errnoRet"] = call["errnoRet"]
    if call.get("args"):
        rule["args"] = [_whole(arg) for arg in call["args"]]
    return rule


def _whole(arg: dict[str, Any]) -> dict[str, Any]:
    """A condition with the numbers that may be left out, as OCI wants it."""
    whole = {"index": arg.get("index") or 0, "value": arg.get("value") or 0, "op": arg["op"]}
    if arg.get("valueTwo"):
        whole["valueTwo"] = arg["valueTwo"]
    return whole


class _Same:
    """A profile as a cache's key: equal to itself only. The cache keeps it alive, so that its id
    stays its own."""

    __slots__ = ("oci",)

    def __init__(self, oci: OciSeccomp) -> None:
        self.oci = oci

    def __hash__(self) -> int:
        return id(self.oci)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.oci is self.oci


def seccomp_json(oci: OciSeccomp) -> str:
    """The profile as JSON; encoded once per profile and process."""
    return _json(_Same(oci))


@lru_cache(maxsize=32)
def _json(same: _Same) -> str:
    return json.dumps(same.oci, separators=(",", ":"))


def load_filter(oci: OciSeccomp, cache_dir: str) -> SeccompFilter:
    """The compiled filter with the flags to load it with. Taken from `cache_dir`; compiled and kept
    there when absent or damaged. Raises Unavailable without libseccomp, InvalidParameter."""
    return _load(_Same(oci), cache_dir)


@lru_cache(maxsize=32)
def _load(same: _Same, cache_dir: str) -> SeccompFilter:
    uname = os.uname()
    key = "\n".join(
        (_GENERATOR, library_version(), uname.machine, uname.release, uname.version, _json(same))
    )
    name = hashlib.sha256(key.encode()).hexdigest() + ".bpf"
    program = read_compiled(f"{cache_dir}/{name}")
    if not program:
        machine()  # raises for one without a profile
        program = compile_filter(same.oci, runnable_abis(NATIVE[uname.machine], uname.release))
        keep_compiled(cache_dir, name, program)
    return SeccompFilter(program, loading_flags(same.oci.get("flags") or ()))


@lru_cache(maxsize=1)
def library_version() -> str:
    """Version of the installed libseccomp by its file's name, without loading it; "" if not found
    in the usual places."""
    machine_name = os.uname().machine
    for directory in (
        f"/usr/lib/{machine_name}-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/lib64",
        "/lib",
    ):
        try:
            real = os.path.realpath(f"{directory}/libseccomp.so.2", strict=True)
        except OSError:
            continue
        return os.path.basename(real).removeprefix("libseccomp.so.")
    return ""
