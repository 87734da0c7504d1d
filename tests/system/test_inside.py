"""What a program sees from inside a default container: spec defaults (S15), executed as written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pynetns import errors

from ..devices import forbidden_device

pytestmark = pytest.mark.root

# Docker's default set as a mask: what /proc/self/status must say. capabilities(7).
DEFAULT_CAPS = 0x00000000A80425FB


def test_program_output_and_exit(run):
    assert run(["echo", "hello"]) == "hello\n"


def test_pid_1_host_name_and_environment(run, engine):
    container = engine.containers.create("host", ["sh", "-c", "echo $$; hostname; env"])
    container.start()
    assert container.wait() == {"StatusCode": 0}
    pid, hostname, *environment = container.logs().decode().splitlines()
    assert pid == "1"
    assert hostname == container.short_id
    assert f"HOSTNAME={container.short_id}" in environment
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in environment
    assert "HOME=/root" in environment


def test_default_mounts(run):
    lines = [line.split() for line in run(["cat", "/proc/mounts"]).splitlines()]
    mounts = {line[1]: (line[2], set(line[3].split(","))) for line in lines}
    assert mounts["/"][0] == "overlay"
    assert mounts["/proc"][0] == "proc" and {"nosuid", "nodev", "noexec"} <= mounts["/proc"][1]
    assert mounts["/dev"][0] == "tmpfs" and "size=65536k" in mounts["/dev"][1]
    assert mounts["/dev/pts"][0] == "devpts" and "gid=5" in mounts["/dev/pts"][1]
    assert mounts["/sys"][0] == "sysfs" and "ro" in mounts["/sys"][1]
    assert mounts["/dev/mqueue"][0] == "mqueue"
    assert mounts["/dev/shm"][0] == "tmpfs" and "size=65536k" in mounts["/dev/shm"][1]
    assert mounts["/sys/fs/cgroup"][1] & {"ro"}


@pytest.mark.parametrize(
    "path",
    [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/interrupts",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
    ],
)
def test_masked_paths_show_nothing(run, path):
    if not os.path.exists(path):
        assert run(["sh", "-c", f"test ! -e {path} && echo absent"]) == "absent\n"
        return
    assert run(["sh", "-c", f"cat {path} 2>/dev/null || ls -A {path}"]) == ""


@pytest.mark.parametrize("path", ["/proc/sys/kernel/domainname", "/proc/irq/default_smp_affinity"])
def test_readonly_paths(run, path):
    script = f"sh -c 'echo x > {path}' 2>&1 | grep -c 'Read-only file system'"
    assert run(["sh", "-c", script]) == "1\n"


def test_device_nodes(run):
    script = "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' /dev/$d; done"
    assert run(["sh", "-c", script]).splitlines() == [
        "/dev/null character special file 1:3 666",
        "/dev/zero character special file 1:5 666",
        "/dev/full character special file 1:7 666",
        "/dev/random character special file 1:8 666",
        "/dev/urandom character special file 1:9 666",
        "/dev/tty character special file 5:0 666",
    ]
    links = run(["sh", "-c", "readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx"])
    assert links.split() == [
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx",
    ]  # fmt: skip


def test_device_rules_hold_even_for_a_node_made_inside(run):
    """mknod is allowed (CAP_MKNOD); what the node stands for is not, though this machine may."""
    kind, major, minor = forbidden_device()
    script = (
        f"mknod /tmp/device {kind} {major} {minor} && "
        "(head -c 0 < /tmp/device) 2>&1; head -c 0 /dev/null && echo null works"
    )
    out = run(["sh", "-c", script])
    assert "Operation not permitted" in out
    assert "null works" in out


def test_device_option_lifts_the_rule_for_that_device(run):
    kind, major, minor = forbidden_device()
    nodes = [p for p in Path("/dev").iterdir() if p.lstat().st_rdev == os.makedev(major, minor)]
    node = nodes[0]
    script = "(head -c 0 < /dev/given) && echo opened; stat -c %t:%T /dev/given"
    out = run(["sh", "-c", script], devices=[f"{node}:/dev/given:r"])
    assert out == f"opened\n{major:x}:{minor:x}\n"


def test_capabilities_seccomp_and_privileges(run):
    status = dict(
        line.split(":\t", 1)
        for line in run(["cat", "/proc/self/status"]).splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == DEFAULT_CAPS
    assert int(status["CapBnd"], 16) == DEFAULT_CAPS
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"


def test_seccomp_denies_what_docker_denies(run):
    out = run(["sh", "-c", "unshare -U true 2>&1; mount -t tmpfs x /mnt 2>&1; true"])
    assert out.count("Operation not permitted") + out.count("permission denied") == 2


@pytest.mark.parametrize(
    ("options", "check", "expected"),
    [
        ({"cap_add": ["NET_ADMIN"]}, "grep CapEff /proc/self/status", f"{DEFAULT_CAPS | 1 << 12:016x}"),
        ({"cap_drop": ["ALL"]}, "grep CapEff /proc/self/status", f"{0:016x}"),
        ({"cap_drop": ["CHOWN"]}, "grep CapEff /proc/self/status", f"{DEFAULT_CAPS & ~1:016x}"),
        ({"security_opt": ["seccomp=unconfined"]}, "grep ^Seccomp: /proc/self/status", "0"),
        ({"security_opt": ["no-new-privileges"]}, "grep NoNewPrivs /proc/self/status", "1"),
        ({"oom_score_adj": 500}, "cat /proc/self/oom_score_adj", "500"),
        ({"hostname": "box", "domainname": "lan"}, "hostname; cat /proc/sys/kernel/domainname", "lan"),
        ({"working_dir": "/made/up/dir"}, "pwd", "/made/up/dir"),
        ({"environment": {"A": "b c"}}, "echo $A", "b c"),
        ({"ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}]}, "ulimit -n", "100"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}}, "cat /proc/sys/net/ipv4/ip_forward", "1"),
        ({"shm_size": "1m"}, "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024"),
        ({"tmpfs": {"/scratch": "size=2m"}}, "df -k /scratch | tail -1 | awk '{print $2}'", "2048"),
        ({"user": "nobody"}, "id -un; id -u", "65534"),
        ({"user": "1234:5678"}, "echo $(id -u):$(id -g)", "1234:5678"),
        ({"group_add": ["daemon"]}, "id -Gn", "root daemon"),
        ({"entrypoint": ["sh", "-c"], "command": "echo from entrypoint"}, None, "entrypoint"),
        ({"uts_mode": "host"}, "hostname", os.uname().nodename),
        ({"pid_mode": "host"}, "test $$ -gt 1 && echo shared", "shared"),
        ({"ipc_mode": "host"}, "readlink /proc/self/ns/ipc", os.readlink("/proc/self/ns/ipc")),
    ],
)  # fmt: skip
def test_option(run, options, check, expected):
    command = options.pop("command", None) or ["sh", "-c", check]
    if check is None:
        command = [command]
    assert run(command, **options).split("\n")[-2].endswith(expected)


def test_privileged_has_all_that_the_machine_has(run):
    bounding = int(Path("/proc/self/status").read_text().split("CapBnd:\t")[1].split()[0], 16)
    status = run(["cat", "/proc/self/status"], privileged=True)
    assert int(status.split("CapEff:\t")[1].split()[0], 16) == bounding
    assert status.split("Seccomp:\t")[1].split()[0] == "0"


@pytest.mark.parametrize("limits", [{}, {"mem_limit": "64m"}])
@pytest.mark.parametrize(("privileged", "expected"), [(False, "read-only\n"), (True, "made\n")])
def test_cgroups_are_writable_for_the_privileged_only(run, limits, privileged, expected):
    script = (
        "cd /sys/fs/cgroup; test -d unified && cd unified; "
        "mkdir made 2>/dev/null && rmdir made && echo made || echo read-only"
    )
    assert run(["sh", "-c", script], privileged=privileged, **limits) == expected


def test_readonly_root(run):
    out = run(["sh", "-c", "touch /x 2>&1; touch /dev/shm/y && echo shm writable"], read_only=True)
    assert "Read-only file system" in out
    assert "shm writable" in out


def test_no_descriptor_but_stdio(run):
    assert run(["sh", "-c", "ls /proc/$$/fd | tr '\\n' ' '"]).split()[:3] == ["0", "1", "2"]
    assert len(run(["sh", "-c", "exec ls /proc/self/fd"]).split()) == 4  # and ls's own


def test_binds(run, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("from the host\n")
    script = "cat /in/file; echo w > /in/sub/new; touch /ro/x 2>&1; cat /one"
    out = run(
        ["sh", "-c", script],
        volumes=[f"{tmp_path}:/in", f"{tmp_path}:/ro:ro", f"{tmp_path}/file:/one"],
    )
    assert out.count("from the host") == 2
    assert "Read-only file system" in out
    assert (tmp_path / "sub" / "new").read_text() == "w\n"


def test_a_mount_below_another_comes_after_it(run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "inner").write_text("inner\n")
    out = run(["cat", "/x/y/inner"], volumes=[f"{tmp_path}/b:/x/y", f"{tmp_path}/a:/x"])
    assert out == "inner\n"


def test_missing_bind_source(engine, run, tmp_path):
    """-v makes it, as Docker does; --mount refuses, with nothing created."""
    assert run(["ls", "-A", "/x"], volumes=[f"{tmp_path}/made/here:/x"]) == ""
    assert (tmp_path / "made" / "here").is_dir()
    with pytest.raises(errors.InvalidParameter, match="does not exist"):
        run(["true"], mounts=[f"type=bind,source={tmp_path}/none,target=/x"])
    assert not (tmp_path / "none").exists()
    assert engine.containers.list(all=True) == []


def test_spec_on_disk_is_what_is_executed(engine):
    container = engine.containers.run(
        "host", ["sleep", "1000"], detach=True, hostname="box", environment=["A=1"]
    )
    spec = json.loads(Path(engine.exec_root, "tasks", container.id, "config.json").read_text())
    assert spec["process"]["args"] == ["sleep", "1000"]
    assert spec["hostname"] == "box"
    environ = Path(f"/proc/{container.attrs['State']['Pid']}/environ").read_bytes()
    assert environ.decode().split("\0")[:-1] == spec["process"]["env"]
    assert {n["type"] for n in spec["linux"]["namespaces"]} >= {
        "mount",
        "network",
        "uts",
        "pid",
        "ipc",
    }
    for kind, name in (
        ("mount", "mnt"),
        ("network", "net"),
        ("uts", "uts"),
        ("pid", "pid"),
        ("ipc", "ipc"),
    ):
        mine = os.readlink(f"/proc/self/ns/{name}")
        theirs = os.readlink(f"/proc/{container.attrs['State']['Pid']}/ns/{name}")
        assert mine != theirs, kind
    container.remove(force=True)


def test_masked_paths_cannot_be_bypassed_by_an_image(engine, tmp_path):
    """An image whose /proc is a symlink: the start is refused, nothing is mounted elsewhere."""
    root = tmp_path / "evil"
    (root / "elsewhere").mkdir(parents=True)
    (root / "proc").symlink_to("elsewhere")
    container = engine.containers.create(rootfs=str(root), command=["/x"])
    with pytest.raises(Exception, match="/proc"):
        container.start()
    container.remove()
