"""runtime/oci.py: create, start, state, kill, delete on a bundle, with no engine and no store."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynetns.errors import Conflict, InvalidParameter, NotFound, PynetnsError, StartFailed
from pynetns.kernel.process import ProcessIdentity
from pynetns.lowlevel.namespaces import NetworkNamespace
from pynetns.runtime import creation as creation_module
from pynetns.runtime import oci as oci_module
from pynetns.runtime.oci import Runtime
from pynetns.runtime.oci_state import StateDirectory
from pynetns.runtime.task import Task

from .. import leaks
from ..conftest import end_shim, kill_shim, shim_processes
from .child_root import ChildRoot

pytestmark = pytest.mark.root

GOLDEN = Path(__file__).parents[1] / "golden/runc-1.1.5-spec.json"
RUNC = shutil.which("runc")
needs_runc = pytest.mark.skipif(RUNC is None, reason="compares with runc")
# what `runc state` of 1.1.5 prints of a container with annotations; owner is the name of who made it
RUNC_STATE_KEYS = {
    "ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner",
}  # fmt: skip
SLEEP = ["sleep", "1000"]


class Bundle:
    """A bundle as `runc spec` makes it, with a small root of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = ChildRoot(top / "rootfs")
        for applet in ("grep", "hostname", "sort", "sed", "ulimit", "umask", "ps", "touch", "tty"):
            (self.root.top / "bin" / applet).symlink_to("busybox")
        shutil.copy(GOLDEN, top / "config.json")
        self.change(lambda spec: spec["process"].update(terminal=False))

    def change(self, do) -> None:
        """Have `do` change config.json."""
        path = self.top / "config.json"
        spec = json.loads(path.read_text())
        do(spec)
        path.write_text(json.dumps(spec))

    def runs(self, *args: str) -> Bundle:
        self.change(lambda spec: spec["process"].update(args=list(args)))
        return self

    def script(self, text: str) -> Bundle:
        return self.runs("sh", "-c", text)


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def runtime(tmp_path) -> Iterator[Runtime]:
    """A runtime of the test's own; what is left of it at the end goes."""
    parent = f"/pynetns-test-{secrets.token_hex(4)}"
    runtime = Runtime(str(tmp_path / "oci"), cgroup_parent=parent)
    try:
        yield runtime
    finally:
        for name in os.listdir(f"{runtime.exec_root}/tasks"):
            runtime.delete(name, force=True)
        end_shim(runtime)
        runtime.prune()


def again(runtime: Runtime) -> Runtime:
    """Another process's look at the same root."""
    return Runtime(runtime.exec_root, cgroup_parent=runtime.cgroups.parent)


def output(runtime: Runtime, bundle: Bundle, name: str = "c") -> tuple[int, str]:
    """Exit code and output of a run from create to delete."""
    reader, writer = os.pipe()
    try:
        runtime.create(name, str(bundle.top), stdio=(-1, writer, writer))
        os.close(writer)
        writer = -1
        runtime.start(name)
        with open(reader, closefd=False) as file:
            text = file.read()
        ended = runtime.wait(name)
        assert ended is not None
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    runtime.delete(name)
    return ended.code, text


def left(runtime: Runtime) -> list[str]:
    """What there is of containers: directories, cgroups, tasks of the shim."""
    tasks = f"{runtime.exec_root}/tasks"
    groups = [path for path in leaks.cgroups() if runtime.cgroups.parent in path]
    ours = [g for g in groups if not g.endswith((runtime.cgroups.parent, "/shim"))]
    return [*os.listdir(tasks), *ours, *runtime.shim.tasks()]


# ---- a life ----


def test_the_states_of_a_life(runtime, bundle):
    bundle.runs(*SLEEP).change(lambda spec: spec.update(annotations={"org.x.y": "z"}))
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    state = runtime.state("c")
    assert state == {
        "ociVersion": "1.0.2-dev",
        "id": "c",
        "status": "created",
        "pid": state["pid"],
        "bundle": str(bundle.top),
        "rootfs": str(bundle.top / "rootfs"),
        "created": state["created"],
        "annotations": {"org.x.y": "z"},
    }
    assert os.readlink(f"/proc/{state['pid']}/exe").startswith("/memfd:")  # no program yet
    runtime.start("c")
    assert runtime.state("c") == {**state, "status": "running"}
    assert Path(f"/proc/{state['pid']}/cmdline").read_text() == "sleep\x001000\0"
    runtime.kill("c", signal.SIGKILL)
    assert runtime.wait("c").code == 137
    assert runtime.state("c") == {**state, "status": "stopped", "pid": 0}
    runtime.delete("c")
    with pytest.raises(NotFound, match="container c: does not exist"):
        runtime.state("c")
    assert left(runtime) == []


def test_each_verb_may_be_another_processs(runtime, bundle):
    runtime.create("c", str(bundle.script("exit 3").top), stdio=(-1, -1, -1))
    runtime.shim.close()
    with again(runtime) as second:
        assert second.state("c")["status"] == "created"
        second.start("c")
    with again(runtime) as third:
        assert third.wait("c").code == 3
        third.delete("c")
    assert left(runtime) == []


def test_what_a_state_does_not_allow_is_refused(runtime, bundle):
    """runtime.md, "Operations": each of these MUST be an error, and have no effect."""
    create = (str(bundle.runs(*SLEEP).top),)
    for verb in (runtime.start, runtime.state, runtime.kill, runtime.delete, runtime.wait):
        with pytest.raises(NotFound):
            verb("c")
    runtime.create("c", *create, stdio=(-1, -1, -1))
    with pytest.raises(Conflict, match="id c already in use"):
        runtime.create("c", *create)
    with pytest.raises(Conflict, match="cannot be deleted, it is created"):
        runtime.delete("c")
    runtime.start("c")
    with pytest.raises(Conflict, match="cannot start, it is running"):
        runtime.start("c")
    with pytest.raises(Conflict, match="cannot be deleted, it is running"):
        runtime.delete("c")
    with pytest.raises(InvalidParameter, match="signal 0"):
        runtime.kill("c", 0)
    assert runtime.state("c")["status"] == "running"
    runtime.kill("c", signal.SIGKILL)
    runtime.wait("c")
    for verb in (runtime.start, runtime.kill):
        with pytest.raises(Conflict, match="it is stopped"):
            verb("c")
    with pytest.raises(Conflict, match="already in use"):
        runtime.create("c", *create)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "x" * 72, "a\n"])
def test_ids_are_checked(runtime, bundle, name):
    for verb in (lambda n: runtime.create(n, str(bundle.top)), runtime.state, runtime.delete):
        with pytest.raises(InvalidParameter, match="container id"):
            verb(name)


def test_a_created_container_can_be_killed(runtime, bundle):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    runtime.kill("c", signal.SIGKILL)
    ended = runtime.wait("c")  # there is no record of a program that never ran
    assert ended is None or ended.code == 137
    assert runtime.state("c")["status"] == "stopped"
    with pytest.raises(Conflict, match="cannot start, it is stopped"):
        runtime.start("c")
    runtime.delete("c")
    assert left(runtime) == []


@pytest.mark.parametrize("started", [False, True])
def test_delete_by_force_ends_it_first(runtime, bundle, started):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    process = ProcessIdentity.of(runtime.state("c")["pid"])
    if started:
        runtime.start("c")
    runtime.delete("c", force=True)
    assert not process.lives()
    assert left(runtime) == []


def test_a_program_that_is_not_there(runtime, bundle):
    runtime.create("c", str(bundle.runs("/missing").top), stdio=(-1, -1, -1))
    with pytest.raises(StartFailed) as caught:
        runtime.start("c")
    assert (caught.value.exit_code, str(caught.value)) == (
        127,
        'exec: "/missing": no such file or directory',
    )
    assert runtime.state("c")["status"] == "stopped"
    runtime.delete("c")
    assert left(runtime) == []


# ---- what is inside ----

LOOK = """
hostname; id -u; id -G; umask; ulimit -n; echo $0; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
ls -ln /dev | sed 's/ [A-Z][a-z][a-z] .*:.. / /' | grep -v core
sed 's/^[^ ]* [^ ]* [^ ]* //; s/ - / /' /proc/self/mountinfo | grep -v -e cgroup -e rootfs | sort
touch /x 2>/dev/null && echo wrote
cat /proc/sysrq-trigger 2>&1; cat /proc/keys; ls /sys/firmware; ps | grep -c ' '
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
    assert b"/dev/pts/0\r\nall\r\n" in text and b"got hello\r\n" in text
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
    assert "kmsg: Operation not permitted" in text


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


# ---- namespaces by path ----


def set_namespace(bundle: Bundle, kind: str, path: str | None) -> Bundle:
    """A namespace by `path`, or the runtime's own (None)."""

    def change(spec):
        others = [n for n in spec["linux"]["namespaces"] if n["type"] != kind]
        spec["linux"]["namespaces"] = [*others, *([{"type": kind, "path": path}] if path else [])]

    bundle.change(change)
    return bundle


def test_a_network_namespace_by_path(runtime, bundle, tmp_path):
    bundle.script("readlink /proc/self/ns/net; cat /proc/sys/net/core/somaxconn")
    bundle.change(lambda spec: spec["linux"].update(sysctl={"net.core.somaxconn": "77"}))
    with NetworkNamespace.create() as namespace:
        namespace.pin(tmp_path / "net")
        inode = os.fstat(namespace.fd).st_ino
        try:
            set_namespace(bundle, "network", str(tmp_path / "net"))
            assert output(runtime, bundle) == (0, f"net:[{inode}]\n77\n")
        finally:
            namespace.delete(tmp_path / "net")


def test_a_namespace_by_path_must_be_of_its_kind(runtime, bundle):
    set_namespace(bundle, "ipc", "/proc/self/ns/net")
    with pytest.raises(StartFailed, match="ipc namespace /proc/self/ns/net: Invalid argument"):
        runtime.create("c", str(bundle.top))
    set_namespace(bundle, "ipc", "/missing")
    with pytest.raises(StartFailed, match="ipc namespace /missing: No such file"):
        runtime.create("c", str(bundle.top))
    assert left(runtime) == []


def test_nothing_is_set_in_a_namespace_that_is_ours(runtime, bundle):
    set_namespace(bundle, "uts", f"/proc/{os.getpid()}/ns/uts")
    before = os.uname().nodename
    with pytest.raises(InvalidParameter, match=r"uts namespace .* is the host's"):
        runtime.create("c", str(bundle.top))
    assert os.uname().nodename == before


def test_a_pid_namespace_by_path(runtime, bundle):
    """The program is another process than the one that was prepared; its state follows."""
    other = Bundle(bundle.top.parent / "other").runs(*SLEEP)
    runtime.create("owner", str(other.top), stdio=(-1, -1, -1))
    runtime.start("owner")
    owner = runtime.state("owner")["pid"]
    set_namespace(bundle.runs(*SLEEP), "pid", f"/proc/{owner}/ns/pid")
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    prepared = runtime.state("c")
    assert prepared["status"] == "created"
    runtime.start("c")
    running = runtime.state("c")
    assert running["status"] == "running" and running["pid"] != prepared["pid"]
    assert os.readlink(f"/proc/{running['pid']}/ns/pid") == os.readlink(f"/proc/{owner}/ns/pid")
    runtime.kill("c", signal.SIGKILL)
    assert runtime.wait("c").code == 137
    assert runtime.state("c")["status"] == "stopped"
    assert runtime.state("owner")["status"] == "running"


def test_a_pid_namespace_without_a_proc_of_its_own_is_refused(runtime, bundle):
    """Its /proc would show all processes of the machine inside."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not (inside := children.read_text().split()):
                os.sched_yield()
            set_namespace(bundle, "pid", f"/proc/{inside[0]}/ns/pid")
            with pytest.raises(InvalidParameter, match="shows another pid namespace"):
                runtime.create("c", str(bundle.top))
        finally:
            process.stdin.close()
    assert left(runtime) == []


def test_survivors_without_a_pid_namespace_die_with_the_program(runtime, bundle):
    set_namespace(bundle, "pid", None)
    bundle.script("sleep 1000 & echo $! >/dev/shm/pid; cat /dev/shm/pid; exec sleep 1000")
    reader, writer = os.pipe()
    runtime.create("c", str(bundle.top), stdio=(-1, writer, -1))
    os.close(writer)
    runtime.start("c")
    with open(reader) as file:
        survivor = ProcessIdentity.of(int(file.readline()))
    runtime.kill("c", signal.SIGKILL)
    runtime.wait("c")
    runtime.delete("c")
    assert not survivor.lives()


# ---- what fails is undone, who dies leaves no lie ----


STEPS = {
    "prepare_bundle_dir": oci_module,
    "open_handles": oci_module,
    "open_namespaces": creation_module,
    "new_task": oci_module,
    "render_plan": oci_module,
    "create": Task,
    "prepared": Task,
    "write": StateDirectory,
}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_that_fails_is_undone(runtime, bundle, monkeypatch, step):
    bundle.runs(*SLEEP)
    runtime.create("first", str(bundle.top), stdio=(-1, -1, -1))
    before = left(runtime), sorted(leaks.children())
    real = getattr(STEPS[step], step)

    def failing(*args, **kwargs):
        real(*args, **kwargs)
        raise RuntimeError("made to fail")

    monkeypatch.setattr(STEPS[step], step, failing)
    with pytest.raises(RuntimeError):
        runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    monkeypatch.undo()
    assert (left(runtime), sorted(leaks.children())) == before
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    runtime.start("c")


WRONG = {
    "nosuch.file": lambda spec: spec["root"].update(path="nosuch.file"),
    "/nosuch": lambda spec: spec["mounts"].append(
        {"destination": "/m", "source": "/nosuch", "options": ["bind"]}
    ),
    "working directory /bin/busybox": lambda spec: spec["process"].update(cwd="/bin/busybox"),
    "/dev/shm": lambda spec: spec["mounts"][3]["options"].append("nosuch=option"),
    "hooks.prestart": lambda spec: spec.update(hooks={"prestart": [{"path": "/bin/true"}]}),
    "linux.seccomp: defaultAction": lambda spec: spec["linux"].update(seccomp={"syscalls": []}),
}


@pytest.mark.parametrize("named", WRONG)
def test_a_container_that_cannot_be_made_is_none(runtime, bundle, named):
    """create says why, not start."""
    bundle.change(WRONG[named])
    with pytest.raises(PynetnsError) as caught:
        runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    assert named in str(caught.value)
    with pytest.raises(NotFound):
        runtime.state("c")
    assert left(runtime) == []


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_create_that_was_killed_can_be_deleted(runtime, bundle, writes):
    """Before its state was written, before its process was noted, and after."""
    bundle.runs(*SLEEP)
    child = os.fork()
    if child == 0:
        real, done = StateDirectory.write, []

        def write(place, state):
            if len(done) == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            real(place, state)
            done.append(1)

        StateDirectory.write = write
        again(runtime).create("c", str(bundle.top), stdio=(-1, -1, -1))
        os._exit(0)
    os.waitpid(child, 0)
    if writes == 2:
        assert runtime.state("c")["status"] == "created"
    else:
        assert runtime.state("c")["status"] == "stopped"
        with pytest.raises(Conflict, match="stopped"):
            runtime.start("c")
        with pytest.raises(Conflict, match="already in use"):
            runtime.create("c", str(bundle.top))
    runtime.delete("c", force=writes == 2)
    assert left(runtime) == []


def test_while_it_is_made_it_is_creating(runtime, bundle, monkeypatch):
    seen = []
    real = Task.prepared

    def prepared(task, told):
        seen.append(again(runtime).state("c"))
        return real(task, told)

    monkeypatch.setattr(Task, "prepared", prepared)
    runtime.create("c", str(bundle.top), stdio=(-1, -1, -1))
    assert [(state["status"], state["pid"]) for state in seen] == [("creating", 0)]


@pytest.mark.parametrize("started", [False, True])
def test_without_shim_and_keeper_the_state_is_true(runtime, bundle, started):
    runtime.create("c", str(bundle.runs(*SLEEP).top), stdio=(-1, -1, -1))
    if started:
        runtime.start("c")
    kill_shim(runtime)
    assert runtime.state("c")["status"] == ("running" if started else "created")
    runtime.kill("c", signal.SIGKILL)
    runtime.delete("c", force=True)
    assert left(runtime) == []


def test_a_shim_that_is_replaced_does_not_matter(runtime, bundle):
    runtime.create("c", str(bundle.script("exit 5").top), stdio=(-1, -1, -1))
    pidfd = os.pidfd_open(shim_processes(runtime)[0])
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    runtime.start("c")
    assert runtime.wait("c").code == 5
