"""runtime/task.py start_error: what a step that failed is to the user, message and exit code."""

from __future__ import annotations

import errno

import pytest

from pynetns.errors import KernelError
from pynetns.kernel.operations import Plan
from pynetns.runtime.task import start_error


@pytest.mark.parametrize(
    ("step", "detail", "number", "code", "text"),
    [
        ("exec", "sh", errno.ENOENT, 127, 'exec: "sh": executable file not found'),
        ("exec", "/sh", errno.ENOENT, 127, 'exec: "/sh": no such file or directory'),
        ("exec", "sh", errno.EACCES, 126, 'exec: "sh": Permission denied'),
        ("exec", "sh", errno.ENOEXEC, 126, 'exec: "sh": exec format error'),
        ("exec", "sh", errno.E2BIG, 126, 'exec: "sh": argument list too long: arguments and'),
        ("exec", "sh", errno.EIO, 126, 'exec: "sh": Input/output error'),
        (
            "chdir",
            "/w",
            errno.ENOTDIR,
            128,
            "--workdir: working directory /w: Not a directory: it, or what",
        ),
        ("mkdir", "/w", errno.ENOTDIR, 128, "mkdir /w: Not a directory"),
        ("setuid", "", errno.EPERM, 128, "setuid: Operation not permitted"),
        ("oom_score_adj", "-9", errno.EACCES, 128, "--oom-score-adj -9: Permission denied: below"),
        ("frame", "", errno.EEXIST, 128, "container already started"),
    ],
)
def test_messages_and_codes(step, detail, number, code, text):
    failed = start_error(KernelError(number, step, detail))
    assert str(failed).startswith(text)
    assert failed.exit_code == code


def test_a_limit_that_is_refused_is_named():
    plan = Plan(0)
    plan.rlimit(7, 1, 1, "RLIMIT_NOFILE")
    plan.rlimit(8, -1, -1, "RLIMIT_MEMLOCK")
    error = KernelError(errno.EPERM, "setrlimit", "ulimit")
    error.index = 2
    text = str(start_error(error, plan))
    assert text.startswith("--ulimit memlock: Operation not permitted: a hard limit above")
    assert "CAP_SYS_RESOURCE" in text and "give a lower value" in text


@pytest.mark.parametrize(
    ("number", "why"), [(errno.EXDEV, "leads into /proc"), (errno.ELOOP, "symbolic link")]
)
def test_a_mount_that_fails_names_source_and_target(number, why):
    plan = Plan(0)
    plan.attach(0, "/etc/localtime", is_dir=False, source="/tmp/tz")
    error = KernelError(number, "move_mount", "/etc/localtime")
    error.index = 1
    text = str(start_error(error, plan))
    assert text.startswith("mount /tmp/tz on /etc/localtime: ")
    assert why in text
