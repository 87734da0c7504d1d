"""seccomp*.py: profiles, their resolution, compiling, the cache."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter, Unavailable
from pynetns.runtime import seccomp, seccomp_compile
from pynetns.runtime.capabilities import DEFAULT, NAMES
from pynetns.runtime.seccomp_custom import kernel_version, parse_profile
from pynetns.runtime.seccomp_profile import docker_default, expand
from pynetns.runtime.security_opt import SecurityOptions, parse_security_opt

GOLDEN = Path(__file__).parents[1] / "golden"
KERNEL = (6, 1)


def rules_as_text(oci):
    """One line per rule, the long list a few words a line: a change shows as its own line."""
    lines = [json.dumps({key: value for key, value in oci.items() if key != "syscalls"})]
    for rule in oci["syscalls"]:
        names = rule["names"]
        lines.append(json.dumps({key: value for key, value in rule.items() if key != "names"}))
        lines += ["    " + " ".join(names[i : i + 8]) for i in range(0, len(names), 8)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize(("label", "capabilities"), [("default", DEFAULT), ("all", NAMES)])
def test_golden(arch, label, capabilities):
    path = GOLDEN / f"seccomp_{label}_{arch}.txt"
    text = rules_as_text(seccomp.resolve_default(capabilities, KERNEL, arch))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def names_of(oci, action="SCMP_ACT_ALLOW"):
    return {name for rule in oci["syscalls"] if rule["action"] == action for name in rule["names"]}


def test_expand():
    assert list(expand("a{,b}c {x,y}{1,2} plain")) == [
        "ac", "abc", "x1", "x2", "y1", "y2", "plain",
    ]  # fmt: skip


def test_always_allowed_names_are_unique():
    names = docker_default()["syscalls"][0]["names"]
    assert len(names) == len(set(names)) == 346


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", {"mount", "unshare", "setns", "clone3", "name_to_handle_at"}),
        ("CAP_SYS_TIME", {"settimeofday", "clock_settime"}),
        ("CAP_SYS_PTRACE", {"process_vm_readv", "pidfd_getfd"}),
        ("CAP_SYS_BOOT", {"reboot"}),
        ("CAP_BPF", {"bpf"}),
    ],
)
def test_capabilities_open_their_calls(capability, names):
    before = names_of(seccomp.resolve_default(DEFAULT, KERNEL, "amd64"))
    after = names_of(seccomp.resolve_default((*DEFAULT, capability), KERNEL, "amd64"))
    assert not names & before
    assert names <= after


def test_without_sys_chroot_no_chroot():
    assert "chroot" in names_of(seccomp.resolve_default(DEFAULT, KERNEL, "amd64"))
    assert "chroot" not in names_of(seccomp.resolve_default((), KERNEL, "amd64"))


def test_minimal_kernel():
    assert "ptrace" not in names_of(seccomp.resolve_default(DEFAULT, (4, 7), "amd64"))
    assert "ptrace" in names_of(seccomp.resolve_default(DEFAULT, (4, 8), "amd64"))
    assert "ptrace" in names_of(seccomp.resolve_default(DEFAULT, (5, 0), "amd64"))


@pytest.mark.parametrize(
    ("text", "version"), [("6.18.44-fc", (6, 18)), ("4.8", (4, 8)), ("5.15.0+", (5, 15))]
)
def test_kernel_version(text, version):
    assert kernel_version(text) == version


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {
            "names": ["chmod"],
            "action": "SCMP_ACT_ERRNO",
            "includes": {"caps": ["CAP_KILL"], "arches": ["amd64"]},
            "excludes": {"minKernel": "9.0"},
        },
        {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "excludes": {"arches": ["amd64"]}},
    ],
}


def test_a_custom_profile_resolves_includes_and_excludes():
    resolved = seccomp.resolve(PROFILE, ("CAP_KILL",), KERNEL, "amd64")
    assert resolved == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO"},
        ],
    }
    names = [rule["names"] for rule in seccomp.resolve(PROFILE, (), KERNEL, "arm64")["syscalls"]]
    assert names == [["mkdir"], ["chown"]]


def test_container_seccomp(tmp_path):
    default = seccomp.container_seccomp((), DEFAULT)
    assert default is seccomp.container_seccomp((), DEFAULT)
    assert default["defaultAction"] == "SCMP_ACT_ERRNO"
    assert seccomp.container_seccomp(("seccomp=unconfined",), DEFAULT) is None
    assert seccomp.container_seccomp((), DEFAULT, privileged=True) is None
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    option = (f"seccomp={path}",)
    custom = seccomp.container_seccomp(option, DEFAULT)
    assert custom["defaultAction"] == "SCMP_ACT_ALLOW"
    assert seccomp.container_seccomp(option, DEFAULT, privileged=True) == custom
    path.unlink()
    with pytest.raises(InvalidParameter, match=r"--security-opt seccomp: cannot read"):
        seccomp.container_seccomp(option, DEFAULT)


def test_inline_profiles_keep_the_text(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    inlined = seccomp.inline_profiles((f"seccomp={path}", "no-new-privileges"))
    assert inlined == ("no-new-privileges", f"seccomp={json.dumps(PROFILE)}")
    path.unlink()
    assert seccomp.container_seccomp(inlined, DEFAULT)["defaultAction"] == "SCMP_ACT_ALLOW"
    assert seccomp.inline_profiles(("seccomp=unconfined",)) == ("seccomp=unconfined",)


@pytest.mark.parametrize(
    "profile",
    [
        "{",
        "[]",
        "{}",
        '{"defaultAction": "SCMP_ACT_FLY"}',
        '{"defaultAction": "SCMP_ACT_NOTIFY"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"], "archMap": [{}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "args": [{"index": 9, "op": "SCMP_CMP_EQ", "value": 1}]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": "x"}]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "includes": {"moon": ["full"]}}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "includes": {"minKernel": "new"}}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {"a": 1}}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": "x"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "abc", "action":'
        ' "SCMP_ACT_ALLOW"}]}',
    ],
)
def test_bad_profiles_name_the_option(profile):
    with pytest.raises(InvalidParameter, match="--security-opt seccomp"):
        parse_profile(profile)


@pytest.mark.parametrize(
    ("options", "parsed"),
    [
        ((), SecurityOptions()),
        (("no-new-privileges",), SecurityOptions(True)),
        (("no-new-privileges:true",), SecurityOptions(True)),
        (("no-new-privileges=false",), SecurityOptions(False)),
        (("seccomp:unconfined",), SecurityOptions(seccomp="unconfined")),
        (("seccomp=/a:b",), SecurityOptions(seccomp="/a:b")),
        (("systempaths=unconfined",), SecurityOptions(system_paths_unconfined=True)),
        (("apparmor=unconfined", "label=disable"), SecurityOptions()),
    ],
)
def test_security_opt(options, parsed):
    assert parse_security_opt(options) == parsed


@pytest.mark.parametrize(
    "option", ["", "seccomp", "seccomp=", "apparmor=mine", "label=type:x", "fly=1", "systempaths=1"]
)
def test_bad_security_opt(option):
    with pytest.raises(InvalidParameter, match=r"--security-opt.*accepted"):
        parse_security_opt((option,))


def test_compiled_filter_is_a_valid_size():
    program = seccomp_compile.compile_filter(seccomp.resolve_default(DEFAULT, *seccomp.machine()))
    assert len(program) % 8 == 0
    assert 100 < len(program) // 8 <= 4096
    code, _, _, operand = struct.unpack_from("=HBBI", program)
    assert (code, operand) == (0x20, 4)  # loads the architecture first


def test_unknown_names_are_skipped():
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [],
        "syscalls": [{"names": ["no_such_call", "getpid"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert seccomp_compile.compile_filter(profile)


def test_load_filter_compiles_once_and_repairs_the_cache(tmp_path, monkeypatch):
    compiled = []
    real = seccomp_compile.compile_filter
    monkeypatch.setattr(
        seccomp_compile, "compile_filter", lambda oci: compiled.append(1) or real(oci)
    )
    cache = tmp_path / "cache"

    def load():
        fresh = seccomp.resolve(docker_default(), DEFAULT, *seccomp.machine())
        return seccomp.load_filter(fresh, str(cache))

    first = load()
    assert load() == first
    assert len(compiled) == 1
    (file,) = cache.iterdir()
    file.write_bytes(b"torn")
    assert load() == first
    assert file.read_bytes() == first
    assert len(compiled) == 2


def test_without_libseccomp_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []}
    with pytest.raises(Unavailable, match=r"libseccomp.*seccomp=unconfined"):
        seccomp.load_filter(profile, str(tmp_path))


def test_json_is_encoded_once():
    oci = seccomp.resolve_default(DEFAULT, KERNEL, "amd64")
    assert seccomp.seccomp_json(oci) is seccomp.seccomp_json(oci)
    assert json.loads(seccomp.seccomp_json(oci)) == oci
