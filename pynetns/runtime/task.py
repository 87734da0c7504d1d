"""Bundle and task: the last step of a start, from an OCI spec to a running process.

Owns: `<exec_root>/tasks/<id>/` with `config.json` (the spec as executed) and `exit` (how it ended,
written by the shim). Named after containerd's Create and Start, seed sections 1.2.3 and 1.2.4.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ..errors import Conflict, KernelError, StartFailed
from ..files import make_directories
from ..kernel import frame
from ..kernel.operations import Plan, child_spans
from ..trace import Span, add_spans, recording, step
from ..undo import Undo
from .shim.protocol import Exit, Shim

# Which failure of exec is which exit code. moby translateContainerdStartErr, seed section 1.2.
_EXEC_CODES = {errno.ENOENT: 127, errno.ENOTDIR: 126, errno.EACCES: 126, errno.ENOEXEC: 126}
# What the kernel's refusal of a step means, and what to do. setrlimit(2), proc(5).
_REMEDIES = {
    ("setrlimit", errno.EPERM): "a hard limit above the engine's own needs CAP_SYS_RESOURCE, and "
    "nofile may not exceed fs.nr_open: give a lower value",
    ("oom_score_adj", errno.EACCES): "below the engine's own needs CAP_SYS_RESOURCE: give a higher "
    "value",
    ("exec", errno.E2BIG): "arguments and environment together are limited by the stack's size, "
    "one of them to 128 KiB",
    **{
        (step, number): text
        for step in ("move_mount", "mount", "mkdir", "mknod", "chdir")
        for number, text in (
            (errno.EXDEV, "it leads into /proc, /sys or /dev, or to the root, of the container"),
            (
                errno.ELOOP,
                "a symbolic link is in the way that leads in a circle, into /proc, or is "
                "where /proc, /sys or /dev should be",
            ),
        )
    },
    ("chdir", errno.ENOTDIR): "it, or what is above it, is a file in the image: give a directory",
    ("chdir", errno.EACCES): "the user of the program may not enter it: give another directory or "
    "--user",
    ("move_mount", errno.ENOTDIR): "a file cannot be mounted over a directory, nor through a file",
}
_EXEC_WORDS = {
    errno.ENOENT: "executable file not found",
    errno.ENOEXEC: "exec format error",
    errno.E2BIG: "argument list too long",
}


@dataclass(frozen=True, slots=True)
class Attach:
    """Descriptors handed over to a task, -1 for none: where its stdin comes from (read end), where
    copies of its output go (write ends). The shim makes them non-blocking and closes them at the
    stream's end; give it pipes made for the purpose and close your own copies. `winsize` (rows,
    columns) is the size a terminal starts with."""

    stdin_fd: int = -1
    stdout_fd: int = -1
    stderr_fd: int = -1
    winsize: tuple[int, int] = (0, 0)


def stdio_flags(terminal: bool, stdin: bool, *, once: bool = False, direct: bool = False) -> int:
    """A Task's `flags`: on a terminal; with a standard input (else /dev/null), which ends with its
    `once` attached client's; `direct`: without a terminal, the attached descriptors are the
    program's own, nothing is copied."""
    return (
        (frame.SPAWN_TTY if terminal else 0)
        | (frame.SPAWN_STDIN if stdin else 0)
        | (frame.SPAWN_STDIN_ONCE if once else 0)
        | (frame.SPAWN_DIRECT if direct and not terminal else 0)
    )


@dataclass(slots=True)
class Task:
    """A program to be: `create` has its process prepare itself, `start` has it execute.

    What a task was given stays the caller's. `directory` is where its end is put on record, "" for
    nowhere; `log_dir_fd` is the directory of its log, -1 for none,
    `log_options` (`kernel.frame.log_options`) how it is written there. `cgroup_fd` is the cgroup
    directory whose processes die with the program (one that shares its pid namespace leaves
    survivors), -1 for none. `go_fd` is the write end of the pipe that the plan waits for, -1 where
    it does not wait. `program` is for messages, where there is no `plan`. OCI's and containerd's two
    steps, seed 1.2.3 and 1.2.4.
    """

    shim: Shim
    key: str
    directory: str
    flags: int = 0
    log_dir_fd: int = -1
    log_options: bytes = b""
    cgroup_fd: int = -1
    hold_fds: Sequence[int] = ()
    attach: Attach = field(default_factory=Attach)
    go_fd: int = -1
    pid: int = 0
    plan: Plan | None = None
    program: str = ""
    pending: int = -1

    def create(self, plan: Plan) -> None:
        """Have the shim make the process of `plan`. It prepares itself while the caller goes on."""
        self.plan = plan
        record = -1
        if self.directory:
            record = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags, fds = self._descriptors(record)
            self.pending = self.shim.begin_spawn(
                self.key,
                (self.log_options if self.log_dir_fd >= 0 else b"") + plan.encode(),
                plan.fds,
                flags=flags,
                first_fds=fds,
                hold_fds=self.hold_fds,
            )
        except KernelError as error:
            raise start_error(error, self.plan) from error
        finally:
            if record >= 0:
                os.close(record)

    def kill(self) -> None:
        """Undo `create` of a task that waits at a pipe which others hold open: returns when the process
        is gone. Nothing to do after `start` and `leave`."""
        if self.pending >= 0:
            self.shim.signal(self.key, signal.SIGKILL)
            self.abandon()

    def start(self) -> int:
        """Execute the program; its pid once it runs. StartFailed with Docker's exit code."""
        with step("task_start"):
            self._go(b"\n")
            pending, self.pending = self.pending, -1
            try:
                answer = self.shim.finish_spawn(pending, self.key)
            except KernelError as error:
                raise start_error(error, self.plan, self.program) from error
            if answer.payload and self.plan is not None:
                self._add_spans(answer)
            self.pid = answer.value
        return self.pid

    def abandon(self) -> None:
        """Undo `create`: returns when the process is gone. Nothing to do after `start`."""
        self._go(b"")
        pending, self.pending = self.pending, -1
        if pending >= 0:
            with suppress(KernelError):
                self.shim.finish_spawn(pending, self.key)

    def _go(self, word: bytes) -> None:
        go, self.go_fd = self.go_fd, -1
        if go >= 0:
            try:
                os.write(go, word)
            except BrokenPipeError:
                pass  # it has failed before it came to wait: the answer says how
            finally:
                os.close(go)

    def _descriptors(self, record: int) -> tuple[int, list[int]]:
        flags = self.flags | (frame.SPAWN_TRACE if recording() else 0)
        fds = []
        if self.log_dir_fd >= 0:
            flags |= frame.SPAWN_LOG
            fds.append(self.log_dir_fd)
        for bit, fd in (
            (frame.SPAWN_RECORD, record),
            (frame.SPAWN_CGROUP, self.cgroup_fd),
            (frame.SPAWN_ATTACH_IN, self.attach.stdin_fd),
            (frame.SPAWN_ATTACH_OUT, self.attach.stdout_fd),
            (frame.SPAWN_ATTACH_ERR, self.attach.stderr_fd),
        ):
            if fd >= 0:
                flags |= bit
                fds.append(fd)
        return flags, fds

    def _add_spans(self, answer: frame.Frame) -> None:
        assert self.plan is not None
        cloned, ends = frame.parse_trace(answer.payload)
        add_spans([Span("shim_spawn", answer.received, cloned, "shim")])
        add_spans(child_spans(self.plan, cloned, ends))


def told_socket() -> tuple[socket.socket, socket.socket]:
    """The pair for handover.py's `prepared`: whoever writes to the second is known by his pid. unix(7)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


def start_error(error: KernelError, plan: Plan | None = None, program: str = "") -> StartFailed:
    """What a failed start is to the user: message and exit code. 126 and 127 are of the program
    itself; what fails before it is tried is 128, as in moby."""
    code, what = 128, f"{error.step} {error.detail}".strip()
    why = os.strerror(error.errno)
    if error.step == "exec":
        code = _EXEC_CODES.get(error.errno, 126)
        program = error.detail or (plan.describe(-1)[1] if plan is not None else program)
        what = f'exec: "{program}"'
        why = _EXEC_WORDS.get(error.errno, why)
        if error.errno == errno.ENOENT and "/" in program:
            why = "no such file or directory"
    elif error.step == "move_mount" and plan is not None and plan.source(error.index):
        what = f"mount {plan.source(error.index)} on {error.detail}"
    elif error.step == "setrlimit" and plan is not None and error.index >= 0:
        what = f"--ulimit {plan.describe(error.index)[1].removeprefix('RLIMIT_').lower()}"
    elif error.step == "oom_score_adj":
        what = f"--oom-score-adj {error.detail}"
    elif error.step == "chdir":
        what = f"--workdir: working directory {error.detail}"
    elif error.errno == errno.EEXIST and error.step == "frame":
        return StartFailed("container already started", 128)
    remedy = _REMEDIES.get((error.step, error.errno))
    return StartFailed(f"{what}: {why}{(remedy and f': {remedy}') or ''}", code)


def prepare_bundle_dir(exec_root: str, key: str, undo: Undo) -> str:
    """Make `<exec_root>/tasks/<key>/`. Conflict when the id is in use.

    Source: moby libcontainerd prepareBundleDir, seed section 1.2.3.
    """
    directory = task_directory(exec_root, key)
    try:
        os.mkdir(directory, 0o700)
    except FileNotFoundError:  # somebody has deleted the directory of all bundles
        make_directories(directory, 0o700, 0o700)
    except FileExistsError as error:
        raise Conflict(f"id {key} already in use") from error
    undo.push(delete_bundle, exec_root, key)
    return directory


def write_bundle(directory: str, spec_json: str) -> None:
    """Write the bundle's `config.json`: the spec as it is executed."""
    fd = os.open(
        f"{directory}/config.json", os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    try:
        os.write(fd, spec_json.encode())
    finally:
        os.close(fd)


def mark_shared(exec_root: str, key: str) -> None:
    """Note that another container uses the network namespace of task `key`, and may outlive it.

    Raises Conflict when the task has just ended.
    """
    path = f"{task_directory(exec_root, key)}/shared"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileNotFoundError as error:
        raise Conflict(f"cannot join network of a non running container: {key}") from error


def is_shared(exec_root: str, key: str) -> bool:
    """Whether `mark_shared` was called for the task."""
    return os.path.exists(f"{task_directory(exec_root, key)}/shared")


def task_directory(exec_root: str, key: str) -> str:
    """Where the bundle of task `key` is."""
    return f"{exec_root}/tasks/{key}"


def delete_bundle(exec_root: str, key: str) -> None:
    """Remove a task's directory; an absent one is fine, and so is one that still gets a file or the
    directory of an exec meanwhile."""
    directory = task_directory(exec_root, key)
    while True:
        try:
            for name in os.listdir(directory):
                path = f"{directory}/{name}"
                if os.path.isdir(path):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.unlink(path)
            os.rmdir(directory)
        except FileNotFoundError:
            if not os.path.exists(directory):
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return


def write_exit(directory: str, ended: Exit) -> None:
    """Write the record of a task's end in the shim's place; one that is there stays. OSError."""
    fresh = f"{directory}/exit.{os.getpid()}"
    try:
        with open(fresh, "w", encoding="ascii") as record:
            record.write(f"{ended.code} {ended.finished}\n")
        with suppress(FileExistsError):
            os.link(fresh, f"{directory}/exit")
    except FileNotFoundError:
        pass  # settled and removed meanwhile
    finally:
        with suppress(FileNotFoundError):
            os.unlink(fresh)


def read_exit(directory: str) -> Exit | None:
    """The record of a task's end, None while there is none."""
    try:
        with open(f"{directory}/exit", encoding="ascii") as record:
            code, finished = record.read().split()
    except FileNotFoundError:
        return None
    return Exit(int(code), int(finished))
