"""cli/: words in, engine calls and text out; the engine is a small fake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pynetns.cli import main
from pynetns.cli.create import RUN_OPTIONS, keywords
from pynetns.errors import Conflict, StartFailed
from pynetns.model.parse import build_configs

from .fake_engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line on the fake: (exit code, stdout, stderr)."""

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main.main(words, open_engine=engine)
        return code, *capfd.readouterr()

    return run_words


# ---- errors and exit codes ----


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("frob", "pynetns: frob : no such command, see pynetns --help"),
        ("--frob", "pynetns: --frob : unknown option, see --help"),
        ("rnu", "pynetns: rnu : no such command (did you mean run?), see pynetns --help"),
        ("isnpect x", "pynetns: isnpect : no such command (did you mean inspect?)"),
        ("run --rmm host", "pynetns: --rmm : unknown option (did you mean --rm?), see --help"),
        ("run --memroy 1g host", "pynetns: --memroy : unknown option (did you mean --memory?)"),
        ("--rooot /x ps", "pynetns: --rooot : unknown option (did you mean --root?)"),
        ("run", "pynetns: image : name one, e.g. host, or give --rootfs DIR"),
        ("run --memory 12q host", "pynetns: --memory '12q' : must be a size"),
        ("run -p 70000:80 host", "pynetns: run : invalid port '70000:80'"),
        ("run --mac-address 1 host", "pynetns: --mac-address '1' : must be six pairs"),
        ("run --ip 1.2.3 host", "pynetns: --ip '1.2.3' : must be an IPv4 address"),
        ("run -v data:/d host", "pynetns: --volume 'data:/d' : named volumes are not available"),
        ("run --restart always host", "pynetns: --restart 'always' : restart policies are not"),
        ("run --env-file /none host", "pynetns: --env-file /none : No such file or directory"),
        ("run --cidfile /none/x host", "pynetns: --cidfile /none/x : No such file"),
        ("run --trace /none/x host", "pynetns: --trace /none/x : No such file"),
        ("run --detach-keys ctrl-1 -it host", "pynetns: --detach-keys"),
        ("stop", "pynetns: stop : takes at least 1 argument"),
        ("ps x", "pynetns: ps : takes no arguments"),
        ("stop -t soon x", "pynetns: --time 'soon' : must be a whole number"),
        ("kill -s NONE x", "pynetns: --signal 'NONE' : must be a signal's name"),
        ("logs --tail many x", "pynetns: --tail 'many' : must be a number of lines, or all"),
        ("run --log-driver syslog host", "pynetns: --log-driver 'syslog' : no log driver named"),
        ("logs --since noon x", "pynetns: --since 'noon' : must be a time"),
        ("ps -f name", "pynetns: --filter 'name' : must be KEY=VALUE"),
        ("ps --format {{.X", "pynetns: --format : '{{.X' is not closed"),
        ("inspect --type volume x", "pynetns: --type 'volume' : must be container or image"),
        ("completion fish", "pynetns: completion 'fish' : must be bash"),
    ],
)
def test_a_bad_value_is_one_line_and_125(
    run: Run, engine: FakeEngine, words: str, line: str
) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (125, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not engine.known


def test_another_error_is_one_line_and_1(run: Run) -> None:
    code, _, err = run("stop", "gone")
    assert (code, err) == (1, "pynetns: stop : No such container: gone\n")


@pytest.mark.parametrize(("code", "shown"), [(127, 127), (126, 126), (128, 125)])
def test_failed_start(run: Run, engine: FakeEngine, code: int, shown: int) -> None:
    engine.start_error = StartFailed('exec: "nope": executable file not found', code)
    assert run("run", "host", "nope")[0] == shown
    assert run("run", "-d", "host", "nope")[::2] == (
        shown,
        'pynetns: run : exec: "nope": executable file not found\n',
    )


def test_an_internal_error_has_its_traceback_only_with_debug(run: Run, engine: FakeEngine) -> None:
    engine.start_error = RuntimeError("oh")
    code, _, err = run("run", "-d", "host")
    assert (code, err.count("\n")) == (125, 1)
    assert "internal error, RuntimeError: oh" in err
    assert "Traceback" in run("--debug", "run", "-d", "host")[2]
    assert "Traceback" not in run("run", "-d", "host", "--debug")[2]


def test_system_errors_name_the_file(run: Run, engine: FakeEngine) -> None:
    engine.start_error = OSError(28, "No space left on device", "/var/lib/pynetns/x")
    assert run("run", "-d", "host")[2] == "pynetns: /var/lib/pynetns/x : No space left on device\n"


def test_interrupts_and_broken_pipes_are_quiet(run: Run, engine: FakeEngine) -> None:
    engine.start_error = KeyboardInterrupt()  # type: ignore[assignment]
    assert run("run", "-d", "host") == (130, "", "")


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = "import sys; from pynetns.cli.main import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


# ---- verbs ----


def test_global_options_reach_the_engine(run: Run, engine: FakeEngine) -> None:
    run("--root", "/r", "--exec-root=/e", "--bridge", "br9", "--bip", "10.9.0.1/16", "info")
    given = {"root": "/r", "exec_root": "/e", "bridge": "br9", "bip": "10.9.0.1/16"}
    assert engine.opened_with == given
    assert engine.calls[-1] == "close"


def test_every_option_of_run_is_a_keyword_that_the_engine_takes() -> None:
    samples = {
        "cpus": "0.5", "ports": ["80"], "expose": ["80"], "volumes": ["/a:/b"], "extra_hosts":
        ["a:1.2.3.4"], "mounts": ["type=tmpfs,target=/t"], "tmpfs": ["/t"], "ulimits": ["core=1"],
        "sysctls": ["net.a=1"], "dns": ["1.1.1.1"], "ip": "1.2.3.4", "stop_signal": "TERM",
        "mac_address": "02:00:00:00:00:01", "user": "0", "network": "none", "labels": ["a"],
        "restart_policy": "no", "env": ["A=1"], "env_file": ["/dev/null"], "log_driver": "none",
        "log_opts": ["max-size=1m"],
    }  # fmt: skip
    plain = build_configs("host")
    own = ("name", "env_file", "cidfile", "detach_keys", "sig_proxy", "trace", "restart_policy")
    for option in RUN_OPTIONS:
        default: Any = "1" if option.metavar else True
        value = samples.get(option.dest, [default] if option.many else default)
        options = keywords({option.dest: value})
        options.pop("name", None)
        changed = build_configs("host", **options) != plain
        assert changed is (option.dest not in own), option.names


def test_run_detached(run: Run, engine: FakeEngine, tmp_path: Any) -> None:
    env = tmp_path / "env"
    env.write_text("B=2\n")
    cid = tmp_path / "cid"
    code, out, _ = run(
        "run", "-d", "--rm", "--name", "web", "-eA=1", "--env-file", str(env), "-p", "8080:80",
        "-m", "64m", "--entrypoint", "a b", "--cidfile", str(cid), "host", "sleep", "--rm", "60",
    )  # fmt: skip
    container = engine.known["web"]
    assert (code, out, cid.read_text()) == (0, f"{container.id}\n", container.id)
    verb, image, command, (config, host_config) = engine.calls[0]
    assert (verb, image, command) == ("create", "host", ["sleep", "--rm", "60"])
    assert config.env == ("B=2", "A=1")
    assert config.entrypoint == ("a b",)
    assert not config.attach_stdout
    assert (host_config.memory, host_config.auto_remove) == (64 << 20, True)
    assert engine.calls[1] == ("start", "web")


def test_rootfs_takes_the_place_of_the_image(run: Run, engine: FakeEngine) -> None:
    assert run("create", "--rootfs", "some/tree", "echo", "x")[0] == 0
    _, image, command, (_, host_config) = engine.calls[0]
    assert (image, command, host_config.rootfs) == ("", ["echo", "x"], os.path.abspath("some/tree"))


def test_a_cidfile_is_never_overwritten(run: Run, engine: FakeEngine, tmp_path: Any) -> None:
    cid = tmp_path / "cid"
    cid.write_text("other")
    code, _, err = run("create", "--cidfile", str(cid), "host")
    assert (code, engine.calls, cid.read_text()) == (125, [], "other")
    assert err.endswith(" : File exists\n")
    assert run("create", "--cidfile", f"{cid}2", "--memory", "12q", "host")[0] == 125
    assert not os.path.exists(f"{cid}2")


def test_trace_is_written(run: Run, tmp_path: Any) -> None:
    trace = tmp_path / "trace.json"
    assert run("run", "-d", "--trace", str(trace), "host")[0] == 0
    assert "traceEvents" in json.loads(trace.read_text())


def test_verbs_on_several_containers_go_on_after_a_failure(run: Run, engine: FakeEngine) -> None:
    engine.add("a"), engine.add("b")
    code, out, err = run("stop", "-t", "2", "a", "gone", "b")
    assert (code, out) == (1, "a\nb\n")
    assert err == "pynetns: stop : No such container: gone\n"
    assert engine.calls[:2] == [("stop", "a", 2), ("stop", "b", 2)]


def test_lifecycle(run: Run, engine: FakeEngine) -> None:
    engine.add("a").code = 5
    assert run("start", "a")[:2] == (0, "a\n")
    assert run("kill", "-s", "usr1", "a")[:2] == (0, "a\n")
    assert run("rm", "-f", "a")[:2] == (0, "a\n")
    assert run("wait", "a")[:2] == (0, "5\n")
    calls = [call for call in engine.calls if call != "close"]
    assert calls == [("start", "a"), ("kill", "a", 10), ("remove", "a", True)]


def test_start_attached_refuses_what_it_cannot_attach_to(run: Run, engine: FakeEngine) -> None:
    engine.add("a").status = "running"
    assert run("start", "-a", "a")[2].startswith("pynetns: --attach : container a is already")
    assert run("start", "-a", "a", "b")[2].startswith("pynetns: --attach : only one container")


def test_exec_detached(run: Run, engine: FakeEngine) -> None:
    engine.add("a")
    assert run("exec", "-d", "-w", "/w", "-u", "1", "-e", "A=1", "a", "ls", "-l")[0] == 0
    _, name, command, options = engine.calls[0]
    assert (name, command) == ("a", ["ls", "-l"])
    assert (options["workdir"], options["user"], options["environment"]) == ("/w", "1", ["A=1"])


_SUMMARY = {
    "Id": "ab" * 32, "Names": ["/web"], "Image": "host", "Command": "sleep 60 and quite some more",
    "Created": 0, "Status": "Up 2 minutes", "State": "running", "Labels": {"a": "1"},
    "Ports": [{"PrivatePort": 81, "Type": "tcp"},
              {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}  # fmt: skip


@pytest.fixture
def listed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    import pynetns.engine.verbs.inspect

    monkeypatch.setattr(pynetns.engine.verbs.inspect, "list_json", lambda row: _SUMMARY)
    engine.add("web")
    yield engine


def test_ps(run: Run, listed: FakeEngine) -> None:
    head, line = run("ps")[1].splitlines()
    assert head.split("   ")[0] == "CONTAINER ID"
    assert line.startswith('abababababab   host      "sleep 60 and quite …"   5')
    assert line.endswith("Up 2 minutes   0.0.0.0:8080->80/tcp, 81/tcp   web")
    assert head.index("STATUS") == line.index("Up 2")
    assert run("ps", "-q")[1] == "abababababab\n"
    assert run("ps", "-q", "--no-trunc")[1] == "ab" * 32 + "\n"
    assert run("ps", "--format", r"{{.Names}}\t{{.State}}")[1] == "web\trunning\n"
    assert json.loads(run("ps", "--format", "json")[1])["Labels"] == "a=1"
    text = run("ps", "--format", r"table {{.Names}}\t{{upper .State}}\t{{.ID}}")[1]
    assert text == "NAMES     STATE     CONTAINER ID\nweb       RUNNING   abababababab\n"
    assert run("ps", "--format", "table")[1] == run("ps")[1]


def test_ps_selects(run: Run, listed: FakeEngine) -> None:
    run("ps", "-a", "-f", "name=w", "-f", "label=a", "-f", "label=b")
    filters = {"name": ["w"], "label": ["a", "b"]}
    assert listed.calls[0] == ("list", {"all": True, "filters": filters, "limit": -1})
    run("ps", "-l")
    assert listed.calls[-2] == ("list", {"all": True, "filters": {}, "limit": 1})


def test_inspect(run: Run, engine: FakeEngine) -> None:
    engine.add("a")
    assert json.loads(run("inspect", "a")[1])[0]["Name"] == "/a"
    assert run("inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "a")[1] == "7 true\n"
    assert run("inspect", "-f", "{{json .State}}", "a")[1].startswith('{"Pid":7,')
    assert run("inspect", "-f", "{{.Args}}|{{.State.Error}}", "a")[1] == "[a b]|<no value>\n"
    code, out, err = run("inspect", "gone", "a")
    assert (code, len(json.loads(out))) == (1, 1)
    assert err == "pynetns: inspect : No such object: gone\n"


def test_logs_keep_their_streams(run: Run, engine: FakeEngine, monkeypatch: Any) -> None:
    import pynetns.engine.verbs.logs

    given: dict[str, Any] = {}

    def copy_logs(engine: object, container_id: str, **options: Any) -> Iterator[tuple[str, bytes]]:
        given.update(options)
        yield from [("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"c\n")]

    monkeypatch.setattr(pynetns.engine.verbs.logs, "copy_logs", copy_logs)
    engine.add("a")
    assert run("logs", "--tail", "3", "-t", "a") == (0, "a\nc\n", "b\n")
    assert (given["tail"], given["timestamps"], given["follow"]) == (3, True, False)
    assert run("logs", "-f", "a") == (0, "a\nc\n", "b\n")


def test_images(run: Run, engine: FakeEngine, monkeypatch: Any) -> None:
    attrs = {"Size": 123456, "Created": None}
    image = SimpleNamespace(id="sha256:" + "c" * 64, tags=["a.b:5000/x:1", "y:2"], attrs=attrs)
    monkeypatch.setattr(engine, "list", lambda: [image])
    lines = run("images")[1].splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["a.b:5000/x", "1", "c" * 12, "123.5kB"],
        ["y", "2", "c" * 12, "123.5kB"],
    ]
    assert run("images", "-q")[1] == "c" * 12 + "\n"


def test_gc_and_info_and_version(run: Run) -> None:
    assert run("gc")[1] == "removed link veth1\n"
    assert run("gc", "--all")[1] == "removed link veth1\nremoved mount /run/x\n"
    assert run("info", "--format", "{{.Containers}}")[1] == "2\n"
    assert run("--version")[1].startswith("pynetns version ")
    assert run("version", "--format", "{{.Os}}")[1] == "linux\n"


def test_version_imports_no_engine() -> None:
    script = (
        "import sys; from pynetns.cli.main import main; main(['version']);"
        "print([m for m in ('pynetns.engine', 'argparse', 'dataclasses') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.endswith(b"[]\n")


@pytest.mark.parametrize("verb", main.VERBS)
def test_help_of_every_verb(run: Run, engine: FakeEngine, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage:  pynetns {verb} ")
    assert "--help" in out
    assert not engine.calls
    assert f"  {verb}" in run("--help")[1]


def test_completion_is_sound_bash(run: Run) -> None:
    script = run("completion", "bash")[1]
    probe = (
        f'{script}\ncomplete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pynetns; '
        'echo "${COMPREPLY[@]}"; }\n'
        "complete_words pynetns ru; complete_words pynetns --root /x run --memory-s"
    )
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "run\n--memory-swap\n"


def test_conflicts_while_forwarding_a_signal_are_the_end_of_the_container() -> None:
    from pynetns.cli.create import signal_container

    def kill(number: int) -> None:
        raise Conflict("not running")

    signal_container(SimpleNamespace(kill=kill), 15)  # type: ignore[arg-type]
