"""seccomp*.py: profiles, their resolution, compiling, the cache."""

import contextlib
import errno
import gzip
import hashlib
import json
import os
import struct
import sys
from pathlib import Path

import pytest

from pynetns.errors import InvalidParameter, Unavailable
from pynetns.kernel.operations import Plan
from pynetns.runtime.security import seccomp, seccomp_abi, seccomp_cache, seccomp_compile
from pynetns.runtime.security.capabilities import DEFAULT, NAMES
from pynetns.runtime.security.seccomp_custom import kernel_version, parse_profile
from pynetns.runtime.security.seccomp_profile import docker_default, expand
from pynetns.runtime.security.seccomp_rules import AARCH64, ARM, FAMILIES, X32, X86, X86_64
from pynetns.runtime.security.security_opt import SecurityOptions, parse_security_opt

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
    assert len(names) == len(set(names)) == 361


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("CAP_SYS_ADMIN", {"mount", "unshare", "setns", "clone3", "lsm_list_modules"}),
        ("CAP_SYS_TIME", {"settimeofday", "clock_settime64"}),
        ("CAP_SYS_PTRACE", {"process_madvise", "pidfd_getfd"}),
        ("CAP_SYS_BOOT", {"reboot"}),
        ("CAP_BPF", {"bpf"}),
    ],
)
def test_capabilities_open_their_calls(capability, names):
    before = names_of(seccomp.resolve_default(DEFAULT, KERNEL, "amd64"))
    after = names_of(seccomp.resolve_default((*DEFAULT, capability), KERNEL, "amd64"))
    assert not names & before
    assert names <= after


def test_what_changed_since_the_older_dockers():
    oci = seccomp.resolve_default(DEFAULT, KERNEL, "amd64")
    names = names_of(oci)
    assert {"fchmodat2", "mseal", "futex_wait", "statmount", "getxattrat", "cachestat"} <= names
    assert {"process_vm_readv", "name_to_handle_at", "pkey_alloc", "map_shadow_stack"} <= names
    assert not {name for name in names if name.startswith(("io_uring_", "lsm_", "keyctl"))}
    assert oci["defaultErrnoRet"] == 1
    families = [rule["args"][0] for rule in oci["syscalls"] if rule["names"] == ["socket"]]
    assert {arg["value"] for arg in families if arg["op"] == "SCMP_CMP_EQ"}.isdisjoint({38, 40})
    (below,) = (arg["value"] for arg in families if arg["op"] == "SCMP_CMP_LT")
    assert below == 12


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
        '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock"}',
        '{"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW"}]}',
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
    with pytest.raises(InvalidParameter, match=r"--security-opt seccomp: /my\.json: "):
        parse_profile(profile, "/my.json")


def call(**keys):
    return {"names": ["a"], "action": "SCMP_ACT_ALLOW", **keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defaultAction": None}, "defaultAction: is missing"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "defaultAction: SCMP_ACT_NOTIFY: there is no agent"),
        ({"defaultErrnoRet": -1}, "defaultErrnoRet: -1"),
        ({"architectures": ["SCMP_ARCH_Z80"]}, r"architectures\[0\]: 'SCMP_ARCH_Z80'; accepted"),
        (
            {"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]},
            "archMap: is there beside architectures",
        ),
        (
            {"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["Z80"]}]},
            r"archMap\[0\]\.subArchitectures\[0\]: 'Z80'",
        ),
        ({"archMap": [{"subArchitectures": []}]}, r"archMap\[0\]\.architecture"),
        ({"syscalls": [call(), call(name="b")]}, r"syscalls\[1\]\.name: is there beside names"),
        ({"syscalls": [{"action": "SCMP_ACT_ALLOW"}]}, r"syscalls\[0\]: has neither"),
        ({"syscalls": [call(names=[""])]}, r"syscalls\[0\]\.names: an empty name"),
        ({"syscalls": [call(action="FLY")]}, r"syscalls\[0\]\.action: 'FLY'; accepted: SCMP_ACT_"),
        ({"syscalls": [call(action="SCMP_ACT_NOTIFY")]}, r"syscalls\[0\]\.action: SCMP_ACT_NOTIFY"),
        ({"syscalls": [call(errnoRet=1 << 16)]}, r"syscalls\[0\]\.errnoRet: 65536"),
        ({"syscalls": [call(args=[{"op": "SCMP_CMP_XX"}])]}, r"args\[0\]\.op: 'SCMP_CMP_XX'"),
        ({"syscalls": [call(args=[{"op": "SCMP_CMP_EQ", "index": 6}])]}, r"args\[0\]\.index: 6"),
        (
            {"syscalls": [call(args=[{"op": "SCMP_CMP_EQ", "value": 1 << 64}])]},
            r"args\[0\]\.value: 18446744073709551616",
        ),
        ({"syscalls": [call(includes={"minKernel": "4.8.1"})]}, r"includes\.minKernel: '4\.8\.1'"),
        ({"syscalls": [call(excludes={"cap": []})]}, r"excludes\.cap: accepted"),
        ({"syscalls": [call(includes=[])]}, r"syscalls\[0\]\.includes: must be an object"),
    ],
)
def test_an_error_names_the_file_and_the_key(change, message):
    text = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **change})
    with pytest.raises(InvalidParameter, match=f"^--security-opt seccomp: /p.json: .*{message}"):
        parse_profile(text, "/p.json")


DOCKERS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
        {"architecture": "SCMP_ARCH_OF_TOMORROW", "subArchitectures": ["SCMP_ARCH_UNHEARD"]},
    ],
    "syscalls": [
        {"names": ["read", "never_a_call"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "",
         "includes": {}, "excludes": {}},
        {"name": "write", "action": "SCMP_ACT_ALLOW", "args": None, "includes": None},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": [], "action": "SCMP_ACT_ALLOW"},
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [{"op": "SCMP_CMP_NE"}]},
        {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 7,
         "includes": {"minKernel": "4.8"}},
        {"names": ["kill"], "action": "SCMP_ACT_LOG", "excludes": {"caps": ["CAP_KILL"]}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "architectures"),
    [
        ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    ],
)
def test_a_profile_for_many_machines(arch, architectures):
    resolved = seccomp.resolve(parse_profile(json.dumps(DOCKERS)), ("CAP_KILL",), KERNEL, arch)
    assert resolved["architectures"] == architectures
    names = [rule["names"] for rule in resolved["syscalls"]]
    assert names == [["read", "never_a_call"], ["write"], ["personality"], ["lseek"], ["ptrace"]]
    assert resolved["syscalls"][3]["args"] == [{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}]
    assert seccomp_compile.compile_filter(
        seccomp.resolve(parse_profile(json.dumps(DOCKERS)), (), *seccomp.machine())
    )


def test_an_oci_block_and_keys_in_any_case():
    text = json.dumps(
        {
            "DefaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "$comment": "unknown keys are passed over",
            "syscalls": [{"NAMES": ["read"], "Action": "SCMP_ACT_ALLOW", "errnoret": 2}],
        }
    )
    resolved = seccomp.resolve(parse_profile(text), (), KERNEL, "amd64")
    assert resolved == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2}],
    }


def test_a_profiles_flags_come_with_the_filter(tmp_path):
    flags = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []}
    assert seccomp.load_filter(profile, str(tmp_path)).flags == 0
    loaded = seccomp.load_filter({**profile, "flags": flags}, str(tmp_path))
    assert loaded.flags == 6
    plan, expected = Plan(0), Plan(0)
    plan.seccomp(loaded)
    expected.seccomp(bytes(loaded), 6)
    assert plan.encode() == expected.encode()


def test_a_profile_without_end_is_refused():
    with pytest.raises(InvalidParameter, match=r"seccomp: /dev/zero: is longer than"):
        seccomp.inline_profiles(("seccomp=/dev/zero",))


@pytest.mark.parametrize("privileged", [False, True])
def test_builtin_is_the_default_profile_by_name(privileged):
    builtin = seccomp.container_seccomp(("seccomp=builtin",), DEFAULT, privileged)
    assert builtin is seccomp.container_seccomp((), DEFAULT)
    assert seccomp.inline_profiles(("seccomp=builtin",)) == ("seccomp=builtin",)


@pytest.mark.parametrize(
    ("options", "parsed"),
    [
        ((), SecurityOptions()),
        (("no-new-privileges",), SecurityOptions(True)),
        (("no-new-privileges:true",), SecurityOptions(True)),
        (("no-new-privileges=false",), SecurityOptions(False)),
        (("no-new-privileges:T",), SecurityOptions(True)),
        (("no-new-privileges", "no-new-privileges:0"), SecurityOptions(False)),
        (("seccomp=builtin",), SecurityOptions(seccomp="builtin")),
        (('seccomp:{"a": "b=c"}',), SecurityOptions(seccomp='{"a": "b=c"}')),
        (("label:disable",), SecurityOptions()),
        (("seccomp:unconfined",), SecurityOptions(seccomp="unconfined")),
        (("seccomp=/a:b",), SecurityOptions(seccomp="/a:b")),
        (("systempaths=unconfined",), SecurityOptions(system_paths_unconfined=True)),
        (("apparmor=unconfined", "label=disable"), SecurityOptions()),
    ],
)
def test_security_opt(options, parsed):
    assert parse_security_opt(options) == parsed


@pytest.mark.parametrize(
    "option",
    [
        "",
        "seccomp",
        "seccomp=",
        "apparmor=mine",
        "apparmor=docker-default",
        "label=type:x",
        "label=level:s0",
        "fly=1",
        "systempaths=1",
        "no-new-privileges=",
        "no-new-privileges:maybe",
    ],
)
def test_bad_security_opt(option):
    with pytest.raises(InvalidParameter, match=r"--security-opt.*accepted"):
        parse_security_opt((option,))


@pytest.mark.parametrize(
    ("option", "lacking"),
    [
        ("apparmor=docker-default", "AppArmor"),
        ("label=type:svirt_t", "SELinux"),
        ("credentialspec=file://x", "Windows"),
        ("writable-cgroups=true", "cgroup"),
    ],
)
def test_what_docker_knows_is_refused_by_what_is_lacking(option, lacking):
    with pytest.raises(InvalidParameter, match=f"--security-opt {option}: .*{lacking}"):
        parse_security_opt((option,))


def test_compiled_filter_is_a_valid_size():
    program = seccomp_compile.compile_filter(seccomp.resolve_default(DEFAULT, *seccomp.machine()))
    assert len(program) % 8 == 0
    assert 50 < len(program) // 8 <= 400
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
        seccomp,
        "compile_filter",
        lambda oci, runnable: compiled.append(1) or real(oci, runnable),
    )
    cache = tmp_path / "cache"

    def load():
        fresh = seccomp.resolve(docker_default(), DEFAULT, *seccomp.machine())
        return seccomp.load_filter(fresh, str(cache))

    first = load()
    assert load() == first
    assert len(compiled) == 1
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    assert whole == hashlib.sha256(first).digest() + first
    damages = [
        lambda: file.write_bytes(b"torn"),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(whole[:-8]),
        lambda: file.write_bytes(whole[:-4]),
        lambda: file.write_bytes(whole[:-1] + b"x"),
        lambda: file.write_bytes(first),  # what an older version wrote
        lambda: file.chmod(0o620),
        lambda: file.unlink() or file.symlink_to("/dev/zero"),
    ]
    for count, damage in enumerate(damages, start=2):
        damage()
        assert load() == first
        assert file.read_bytes() == whole
        assert not file.is_symlink()
        assert len(compiled) == count
    assert [entry.name for entry in cache.iterdir()] == [file.name]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_compiled_filter_of_somebody_else_is_not_believed(tmp_path):
    seccomp_cache.keep_compiled(str(tmp_path), "a.bpf", bytes(8))
    assert seccomp_cache.read_compiled(f"{tmp_path}/a.bpf") == bytes(8)
    os.chown(tmp_path / "a.bpf", 1000, 1000)
    assert seccomp_cache.read_compiled(f"{tmp_path}/a.bpf") == b""


def test_only_so_many_compiled_filters_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_cache, "_KEPT", 3)
    for number in range(5):
        seccomp_cache.keep_compiled(str(tmp_path), f"{number}.bpf", bytes(8))
        os.utime(tmp_path / f"{number}.bpf", ns=(number, number))
    # The newest has not got its time yet when the oldest go.
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["2.bpf", "3.bpf", "4.bpf"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_what_cannot_be_kept_leaves_nothing_and_is_no_error_where_space_lacks(
    tmp_path, monkeypatch, code
):
    def fail(*paths):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    told = pytest.raises(OSError) if code == errno.EIO else contextlib.nullcontext()
    with told:
        seccomp_cache.keep_compiled(str(tmp_path), "a.bpf", bytes(8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["_GENERATOR", "release", "version"])
def test_another_generator_or_kernel_compiles_anew(tmp_path, monkeypatch, part):
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []}
    seccomp.load_filter(profile, str(tmp_path))
    if part == "_GENERATOR":
        monkeypatch.setattr(seccomp, part, "another")
    else:
        uname = list(os.uname())
        uname[2 if part == "release" else 3] = "another"
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(uname))
    seccomp.load_filter(dict(profile), str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


CONFIGURED = "CONFIG_SECCOMP_FILTER=y\n"


@pytest.mark.parametrize(
    ("native", "text", "runnable"),
    [
        (X86_64, CONFIGURED, (X86_64,)),
        (X86_64, CONFIGURED + "CONFIG_IA32_EMULATION=y\n", (X86_64, X86)),
        (X86_64, CONFIGURED + "# CONFIG_X86_X32_ABI is not set\n", (X86_64,)),
        (X86_64, CONFIGURED + "CONFIG_X86_X32_ABI=y\n", (X86_64, X32)),
        (X86_64, CONFIGURED + "CONFIG_X86_X32=y\nCONFIG_IA32_EMULATION=y\n", FAMILIES[X86_64]),
        (X86_64, "", FAMILIES[X86_64]),
        (X86_64, None, FAMILIES[X86_64]),
        (AARCH64, CONFIGURED + "CONFIG_COMPAT=y\n", (AARCH64, ARM)),
        (AARCH64, CONFIGURED, (AARCH64,)),
    ],
)
def test_the_abis_of_a_kernel(tmp_path, native, text, runnable):
    if text is not None:
        (tmp_path / "config-6.1").write_text(text)
        with gzip.open(tmp_path / "config.gz", "wt") as file:
            file.write(text)
    plain = seccomp_abi.runnable_abis(native, "6.1", (f"{tmp_path}/config-{{release}}",))
    packed = seccomp_abi.runnable_abis(native, "6.1", ("/no/where", f"{tmp_path}/config.gz"))
    assert plain == packed == runnable


def test_without_libseccomp_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": []}
    with pytest.raises(Unavailable, match=r"libseccomp.*seccomp=unconfined"):
        seccomp.load_filter(profile, str(tmp_path))


def test_json_is_encoded_once():
    oci = seccomp.resolve_default(DEFAULT, KERNEL, "amd64")
    assert seccomp.seccomp_json(oci) is seccomp.seccomp_json(oci)
    assert json.loads(seccomp.seccomp_json(oci)) == oci
