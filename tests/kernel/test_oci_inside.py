"""runtime/oci.py: what a bundle's config.json says is so inside, and as under runc where that is there."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from pynetns.errors import Conflict, InvalidParameter, StartFailed

from .oci_bench import GOLDEN, SLEEP, Bundle, left, output

pytestmark = pytest.mark.root

RUNC = shutil.which("runc")
needs_runc = pytest.mark.skipif(RUNC is None, reason="compares with runc")
# what `runc state` of 1.1.5 prints of a container with annotations; owner is the name of who made it
RUNC_STATE_KEYS = {
    "ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner",
}  # fmt: skip


LOOK = """
hostname; id -u; id -G; umask; ulimit -n; echo $0; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
ls -ln /dev | sed 's/ [A-Z][a-z][a-z] .*:.. / /' | grep -v core
sed 's/^[^ ]* [^ ]* [^ ]* //; s/ - / /' /proc/self/mountinfo | grep -v -e cgroup -e rootfs | sort
touch /x 2>/dev/null && echo wrote
cat /proc/sysrq-trigger 2>&1; cat /proc/keys; ls /sys/firmware; echo /proc/[0-9]*; ls /proc/self/fd
cat /proc/self/oom_score_adj; tty
"""


def simplified(text: str) -> list[str]:
    """Without what may differ: devices' numbers of mounts, the flags of masks."""
    return [line for line in text.splitlines() if "/proc/acpi" not in line and "/sys/f" not in line]


def test_a_bundle_of_runc_spec_runs(runtime, bundle):
    code, text = output(runtime, bundle.script(LOOK + "exit 7"))
    lines = text.splitlines()
    assert code == 7, text
    assert lines[:6] == ["runc", "0", "0", "0022", "1024", "sh"]
    assert "CapEff:\t0000000020000420" in lines and "CapAmb:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert "wrote" not in lines  # root.readonly
    assert any("1,   3 null" in line for line in lines)
    assert not (bundle.root.top / "x").exists()


@needs_runc
def test_inside_it_is_as_under_runc(runtime, bundle, tmp_path):
    code, ours = output(runtime, bundle.script(LOOK + "exit 7"))
    theirs = subprocess.run(
        [
            RUNC,
            "--root",
            tmp_path / "runc",
            "run",
            "-b",
            bundle.top,
            f"test-{secrets.token_hex(4)}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    assert theirs.returncode == code == 7
    assert simplified(ours) == simplified(theirs.stdout)


@needs_runc
def test_the_golden_bundle_is_what_runc_spec_makes(tmp_path):
    if "1.1.5" not in subprocess.check_output([RUNC, "--version"], text=True):
        pytest.skip("another version of runc")
    subprocess.run([RUNC, "spec"], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(GOLDEN.read_text())


@needs_runc
def test_state_has_what_runc_has(runtime, bundle, tmp_path):
    bundle.runs(*SLEEP).change(lambda spec: spec.update(annotations={"org.x.y": "z"}))
    name, runc = f"test-{secrets.token_hex(4)}", [RUNC, "--root", tmp_path / "runc"]
    null = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.run([*runc, "create", "-b", bundle.top, name], check=True, **null)
    try:
        theirs = json.loads(subprocess.check_output([*runc, "state", name]))
    finally:
        subprocess.run([*runc, "delete", "-f", name], check=True, **null)
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    ours = runtime.state("c")
    assert theirs.keys() == RUNC_STATE_KEYS
    assert ours.keys() == RUNC_STATE_KEYS - {"owner"}
    same = ("ociVersion", "status", "bundle", "rootfs", "annotations")
    assert [ours[key] for key in same] == [theirs[key] for key in same]


def test_a_terminal_goes_to_the_console_socket(runtime, bundle, tmp_path):
    """The unchanged spec: terminal is true."""
    bundle.script("tty; test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x")
    bundle.change(
        lambda spec: spec["process"].update(terminal=True, consoleSize={"height": 33, "width": 77})
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen()
        runtime.create("c", str(bundle.top), console_socket=str(tmp_path / "console"))
        connection, _ = listener.accept()
        with connection:
            name, fds, _, _ = socket.recv_fds(connection, 4096, 4)
            assert connection.recv(1) == b""  # nobody else has it
    assert name == b"/dev/ptmx" and len(fds) == 1
    assert os.get_terminal_size(fds[0]) == (77, 33)
    with open(fds[0], "r+b", buffering=0) as master:
        runtime.start("c")
        master.write(b"hello\n")
        text = b""
        try:
            while chunk := master.read(4096):
                text += chunk
        except OSError:  # EIO: its end
            pass
    assert {"/dev/pts/0", "all", "got hello"} <= set(text.decode().split("\r\n"))
    assert runtime.wait("c").code == 0


def test_terminal_and_console_socket_go_together(runtime, bundle, tmp_path):
    with pytest.raises(InvalidParameter, match=r"process\.terminal"):
        runtime.create("c", str(bundle.top), console_socket=str(tmp_path / "x"))
    bundle.change(lambda spec: spec["process"].update(terminal=True))
    with pytest.raises(InvalidParameter, match=r"process\.terminal"):
        runtime.create("c", str(bundle.top))
    with pytest.raises(InvalidParameter, match="console socket"):
        runtime.create("c", str(bundle.top), console_socket=str(tmp_path / "x"))
    assert left(runtime) == []


def test_user_directory_environment_and_limits(runtime, bundle):
    def change(spec):
        spec["process"].update(
            user={"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 7]},
            cwd="/some/where",
            env=["PATH=/bin", "A=b=c"],
            rlimits=[{"type": "RLIMIT_CORE", "soft": 5120, "hard": 10240}],
            oomScoreAdj=77,
        )
        spec["root"]["readonly"] = False

    bundle.script(
        "id -u; id -g; id -G; umask; pwd; echo $A; ulimit -c; ulimit -Hc; cat /proc/self/oom_score_adj"
    ).change(change)
    code, text = output(runtime, bundle)
    lines = text.split("\n")
    assert code == 0
    assert lines[:6] == ["1000", "1001", "1001 5 7", "0027", "/some/where", "b=c"]
    assert lines[8] == "77"


def test_mounts_of_every_kind(runtime, bundle):
    (bundle.top / "data").mkdir()
    (bundle.top / "data/file").write_text("of the host\n")
    mounts = [
        {"destination": "/data", "type": "none", "source": "data", "options": ["rbind", "ro"]},
        {"destination": "/one", "source": "data/file", "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
         "options": ["noexec", "mode=1777", "size=64k"]},
    ]  # fmt: skip
    bundle.script(
        "cat /data/file /one; touch /data/x 2>/dev/null || echo ro; stat -c %a /scratch; touch /scratch/x"
    ).change(lambda spec: spec["mounts"].extend(mounts))
    assert output(runtime, bundle) == (0, "of the host\nof the host\nro\n1777\n")


def test_devices(runtime, bundle):
    """The rules let the default ones in, and no other; nodes are made where they are named."""
    node = {"path": "/dev/other", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
            "uid": 7, "gid": 8}  # fmt: skip
    kmsg = {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": None}
    bundle.script(
        "stat -c '%a %u %g %t:%T' /dev/other; : <>/dev/null && : </dev/zero && : </dev/ptmx; "
        "cat /dev/kmsg"
    ).change(lambda spec: spec["linux"].update(devices=[node, kmsg]))
    code, text = output(runtime, bundle)
    assert (code, text.splitlines()[0]) == (1, "640 7 8 1:5")
    assert "'/dev/kmsg': Operation not permitted" in text


def test_without_a_mount_on_dev_the_devices_are_in_the_root(runtime, bundle):
    bundle.script("stat -c %t:%T /dev/null").change(
        lambda spec: spec.update(mounts=[m for m in spec["mounts"] if m["destination"] == "/proc"])
    )
    assert output(runtime, bundle) == (0, "1:3\n")
    assert stat.S_ISCHR((bundle.root.top / "dev/zero").stat().st_mode)


def test_a_filter(runtime, bundle):
    block = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}  # fmt: skip
    (bundle.root.top / "bin/mkdir").symlink_to("busybox")
    bundle.script("mkdir /dev/x").change(lambda spec: spec["linux"].update(seccomp=block))
    code, text = output(runtime, bundle)
    assert (code == 1 and "Not supported" in text) or "not supported" in text


def test_cgroups_path_and_limits(runtime, bundle):
    path = f"{runtime.cgroups.parent}/below/name"
    bundle.runs(*SLEEP).change(
        lambda spec: spec["linux"].update(
            cgroupsPath=path, resources={"pids": {"limit": 20}, "cpu": {"shares": 0}}
        )
    )
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    pid = str(runtime.state("c")["pid"])
    places = [Path(mount + path) for mount in runtime.cgroups.mounts if os.path.isdir(mount + path)]
    assert any(pid in (place / "cgroup.procs").read_text().split() for place in places)
    limits = [place / "pids.max" for place in places if (place / "pids.max").exists()]
    assert [limit.read_text() for limit in limits] == ["20\n"]
    other = Bundle(bundle.top.parent / "other")
    other.change(lambda spec: spec["linux"].update(cgroupsPath=path))
    with pytest.raises(Conflict, match="is in use"):
        runtime.create("d", str(other.top))
    assert runtime.state("c")["status"] == "created"  # its undo ends no other's container
    # another parent, the same last name, and a failure behind the cgroup
    other.change(lambda spec: spec["linux"].update(cgroupsPath=f"{runtime.cgroups.parent}/x/name"))
    other.change(lambda spec: spec["mounts"].append(
        {"destination": "/m", "source": "/missing", "options": ["bind"]}))  # fmt: skip
    with pytest.raises(StartFailed, match="/missing"):
        runtime.create("d", str(other.top))
    assert runtime.state("c")["status"] == "created"
    runtime.delete("c", force=True)
    assert left(runtime) == []


@pytest.mark.parametrize("path", ["/", "/..", ""])
def test_a_cgroup_must_be_the_containers_own(runtime, bundle, path):
    path = path or runtime.cgroups.parent
    bundle.change(lambda spec: spec["linux"].update(cgroupsPath=path))
    with pytest.raises(InvalidParameter, match=r"linux\.cgroupsPath"):
        runtime.create("c", str(bundle.top))


def test_a_slave_root_sees_what_is_mounted_later(runtime, bundle):
    top = str(bundle.root.top)
    bundle.script("read go; cat /tmp/late").change(
        lambda spec: spec["linux"].update(rootfsPropagation="rslave")
    )
    subprocess.run(["mount", "--bind", top, top], check=True)
    try:
        subprocess.run(["mount", "--make-shared", top], check=True)
        gate, go = os.pipe()
        reader, writer = os.pipe()
        runtime.create("c", str(bundle.top), stdio=(gate, writer, -1))
        os.close(gate)
        os.close(writer)
        runtime.start("c")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{top}/tmp"], check=True)
        (bundle.root.top / "tmp/late").write_text("here\n")
        os.write(go, b"\n")
        os.close(go)
        with open(reader) as file:
            assert file.read() == "here\n"
        assert runtime.wait("c").code == 0
    finally:
        runtime.delete("c", force=True)
        subprocess.run(["umount", "-R", top], check=True)
