"""cli/session.py: a real program behind real pipes, started by the test instead of an engine."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pynetns.cli.session import Session
from pynetns.cli.stdio import OutputError
from pynetns.errors import InvalidParameter


class Program:
    """What the engine would run: a child with the pipes of an Attach."""

    def __init__(self, session: Session, script: str) -> None:
        fds = {
            name: fd if fd >= 0 else subprocess.DEVNULL
            for name, fd in (
                ("stdin", session.attach.stdin_fd),
                ("stdout", session.attach.stdout_fd),
                ("stderr", session.attach.stderr_fd),
            )
        }
        self.process = subprocess.Popen([sys.executable, "-c", script], **fds)  # type: ignore[call-overload]

    def wait(self) -> int:
        return self.process.wait()


@contextmanager
def standard_input(fd: int) -> Iterator[None]:
    """Descriptor 0 is `fd` meanwhile."""
    before = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd"), signal.getsignal(signal.SIGTERM)
    yield
    assert (os.listdir("/proc/self/fd"), signal.getsignal(signal.SIGTERM)) == before
    assert signal.set_wakeup_fd(-1) == -1


def run(session: Session, script: str) -> int:
    with session:
        program = Program(session, script)
        assert session.run() is False
        return session.wait(program.wait)


def test_output_and_exit_code(capfdbinary: Any) -> None:
    script = "import os; os.write(1, b'o' * 300000); os.write(2, b'e'); os._exit(7)"
    assert run(Session(tty=False, stdin=False), script) == 7
    assert capfdbinary.readouterr() == (b"o" * 300000, b"e")


def test_input_is_copied_to_its_end(capfdbinary: Any) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 50000)
    os.close(writer)
    with standard_input(reader):
        script = "import sys; print(len(sys.stdin.read()))"
        assert run(Session(tty=False, stdin=True), script) == 0
    os.close(reader)
    assert capfdbinary.readouterr()[0] == b"50000\n"


def test_a_program_that_does_not_read_ends_all_the_same(capfdbinary: Any) -> None:
    """Our stdin stays open and full of data: the program's end is what counts."""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 60000)
    with standard_input(reader):
        assert run(Session(tty=False, stdin=True), "import os; os.close(0); print('bye')") == 0
    os.close(reader)
    os.close(writer)
    assert capfdbinary.readouterr()[0] == b"bye\n"


_UNTIL_TERM = """
import os, signal
signal.signal(signal.SIGTERM, lambda *a: (os.write(1, b'got'), os._exit(9)))
{before}
os.kill(os.getppid(), signal.SIGTERM)
while True: signal.pause()
"""


@pytest.mark.parametrize("before", ["", "os.close(2); os.dup2(os.open('/dev/null', 1), 1)"])
def test_signals_are_forwarded(before: str) -> None:
    """Also to a program that has closed its output and goes on."""
    programs: list[Program] = []
    session = Session(
        tty=False, stdin=False, forward=lambda number: programs[0].process.send_signal(number)
    )
    with session:
        programs.append(Program(session, _UNTIL_TERM.format(before=before)))
        assert session.run() is False
        assert session.wait(programs[0].wait) == 9


def test_a_failed_wait_is_the_sessions_failure() -> None:
    def wait() -> int:
        raise InvalidParameter("gone")

    with Session(tty=False, stdin=False) as session:
        session.run()
        with pytest.raises(InvalidParameter, match="gone"):
            session.wait(wait)


def test_a_reader_that_goes_away(capfd: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    before = os.dup(1)
    os.dup2(writer, 1)
    try:
        with Session(tty=False, stdin=False) as session:
            program = Program(session, "print('x')")
            with pytest.raises(OutputError, match="Broken pipe"):
                session.run()
            program.wait()
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(writer)


def test_the_input_must_be_a_terminal_for_tty() -> None:
    reader, writer = os.pipe()
    with standard_input(reader), pytest.raises(InvalidParameter, match="--tty : the input device"):
        Session(tty=True, stdin=True).__enter__()
    os.close(reader)
    os.close(writer)


@pytest.fixture
def terminal() -> Iterator[int]:
    """The user's side of a terminal of 30 rows and 90 columns that is descriptor 0."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    with standard_input(slave):
        yield master
    os.close(master)
    os.close(slave)


def test_terminal_raw_resized_and_detached(terminal: int) -> None:
    sizes: list[tuple[int, int]] = []
    before = termios.tcgetattr(0)
    session = Session(
        tty=True,
        stdin=True,
        resize=lambda rows, columns: sizes.append((rows, columns)),
        detach_keys="ctrl-p,ctrl-q",
    )
    with session:
        assert not termios.tcgetattr(0)[3] & termios.ISIG
        script = "import os, signal; os.read(0, 1); os.kill(os.getppid(), signal.SIGWINCH)"
        program = Program(session, f"{script}; os.write(1, os.read(0, 3)); signal.pause()")
        os.write(terminal, b"a\x03b\x10\x11")
        assert session.run() is True
        program.process.kill()
        program.wait()
    assert termios.tcgetattr(0) == before
    assert sizes[0] == (30, 90)


def test_terminal_output_is_one_stream(terminal: int, capfdbinary: Any) -> None:
    with Session(tty=True, stdin=True) as session:
        assert session.attach.stderr_fd == -1
        program = Program(session, "print('x')")
        assert session.run() is False
        assert session.wait(program.wait) == 0
    assert capfdbinary.readouterr()[0] == b"x\n"


def test_a_fatal_signal_gives_the_terminal_back(terminal: int) -> None:
    """exec forwards nothing: the command ends, but not with the terminal in raw mode."""
    before = termios.tcgetattr(0)
    with pytest.raises(SystemExit) as ended, Session(tty=True, stdin=True) as session:
        script = "import os, signal; os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
        program = Program(session, script)
        try:
            session.run()
        finally:
            program.process.kill()
            program.wait()
    assert ended.value.code == 128 + signal.SIGTERM
    assert termios.tcgetattr(0) == before


def test_a_start_that_hangs_is_interrupted_by_asking_twice() -> None:
    with Session(tty=False, stdin=False, forward=lambda number: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_end_of_the_program_is_not_that_of_its_pipes(capfdbinary: Any) -> None:
    """A background job holds the pipe and goes on writing: what the program wrote is all there."""
    ended, writer = os.pipe()
    script = f"""
import os
if os.fork() == 0:
    os.close({writer})
    os.read(0, 1)  # until the test has seen the end
    os._exit(0)
os.write(1, b"o" * 200000 + b"end")
os._exit(5)
"""
    hold, job = os.pipe()
    with Session(tty=False, stdin=False) as session:
        out = {"stdout": session.attach.stdout_fd, "stderr": session.attach.stderr_fd}
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=hold, pass_fds=[writer], **out
        )
        os.close(writer)
        assert session.run(ended) is False
        assert session.wait(process.wait) == 5
    for fd in (hold, job, ended):
        os.close(fd)
    assert capfdbinary.readouterr()[0] == b"o" * 200000 + b"end"


def test_the_last_of_a_pipeline_is_waited_for(
    capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a bounded time: here one that is never up."""
    monkeypatch.setattr("pynetns.cli.session.DRAIN", 600.0)
    ended, writer = os.pipe()
    script = f"""
import os
if os.fork() == 0:
    os.close({writer})
    os.read({ended}, 1)  # the end of the program
    os.write(1, b"last")
    os._exit(0)
os.write(1, b"first ")
os._exit(0)
"""
    with Session(tty=False, stdin=False) as session:
        out = {"stdout": session.attach.stdout_fd, "stderr": session.attach.stderr_fd}
        process = subprocess.Popen([sys.executable, "-c", script], pass_fds=[writer, ended], **out)
        os.close(writer)
        assert session.run(ended) is False
        assert session.wait(process.wait) == 0
    os.close(ended)
    assert capfdbinary.readouterr()[0] == b"first last"


@pytest.mark.parametrize(("code", "shown"), [(0, 1), (7, 7)])
def test_output_that_cannot_be_written_is_said_once(
    code: int, shown: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        script = f"import os; os.write(1, b'o' * 300000); os._exit({code})"
        assert run(Session(tty=False, stdin=False), script) == shown
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(full)
    assert capfd.readouterr().err == "pynetns: standard output : No space left on device\n"


def test_the_third_request_to_end_is_for_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    got: list[int] = []
    further = [signal.SIGINT, signal.SIGTERM, signal.SIGINT]

    def forward(number: int) -> None:
        got.append(number)
        signal.raise_signal(further.pop(0))

    script = "import os, signal; os.kill(os.getppid(), signal.SIGUSR1); signal.pause()"
    with (
        pytest.raises(SystemExit) as ended,
        Session(tty=False, stdin=False, forward=forward) as session,
    ):
        program = Program(session, script)
        try:
            session.run()
        finally:
            program.process.kill()
            program.wait()
    assert ended.value.code == 1
    assert got == [signal.SIGUSR1, signal.SIGINT, signal.SIGTERM]
    assert "forcefully exiting" in capfd.readouterr().err
