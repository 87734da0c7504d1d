"""A create that fails half way, at each of its steps: one clear error, and nothing left."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from pynetns import errors

pytestmark = pytest.mark.root
_CALLS = ("open", "mkdir", "write", "pwrite", "fsync", "rename", "chmod", "fchmod")
_DESCRIPTORS = ("open", "scandir", "listdir")


def everything(engine) -> list[str]:
    """What a create makes."""
    places = (f"{engine.root}/containers", f"{engine.root}/overlay2", f"{engine.exec_root}/locks")
    found = [f"{place}/{name}" for place in places for name in os.listdir(place)]
    return sorted(found + [row.id for row in engine.store.containers()])


class Failing:
    """From the `at`-th call on (or only there) the system calls of a create fail."""

    def __init__(self, monkeypatch, names, at: int, number: int, *, go_on: bool) -> None:
        self.at, self.number, self.go_on, self.count = at, number, go_on, 0
        self.patch = monkeypatch
        for name in names:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, call):
        def wrapper(*args, **options):
            self.count += 1
            if self.count == self.at or (self.go_on and self.count > self.at):
                raise OSError(self.number, os.strerror(self.number), str(args[0]))
            return call(*args, **options)

        return wrapper


@pytest.mark.parametrize(
    ("names", "number", "go_on"),
    [
        (_DESCRIPTORS, errno.EMFILE, True),
        (_CALLS, errno.ENOSPC, False),
        (_CALLS, errno.EACCES, False),
        (_CALLS, errno.EIO, False),
    ],
    ids=["EMFILE", "ENOSPC", "EACCES", "EIO"],
)
def test_nothing_is_left_wherever_it_fails(engine, names, number, go_on):
    engine.containers.create("host", ["true"], network="none").remove()
    before = everything(engine)
    failed = 0
    for at in range(1, 200):
        with pytest.MonkeyPatch.context() as monkeypatch:
            Failing(monkeypatch, names, at, number, go_on=go_on)
            try:
                container = engine.containers.create("host", ["true"], network="none")
            except (errors.Unavailable, errors.System) as error:
                assert os.strerror(number) in str(error)
                container = None
        if container is not None:
            break  # it needs no more calls than that
        failed += 1
        assert everything(engine) == before, f"at call {at}"
    container.remove()
    assert failed > 3


@pytest.mark.parametrize("call", ["run", "exec"])
def test_no_descriptor_is_lost_where_pipes_cannot_be_made(engine, call):
    container = engine.containers.run("host", ["sleep", "1000"], detach=True, network="none")
    before = os.listdir("/proc/self/fd")
    failed = set()
    for name in ("pipe2", "dup"):
        for at in (1, 2):
            with pytest.MonkeyPatch.context() as monkeypatch:
                Failing(monkeypatch, (name,), at, errno.EMFILE, go_on=True)
                try:
                    if call == "exec":
                        container.exec_run(["true"])
                    else:
                        engine.containers.run("host", ["true"], network="none", remove=True)
                except (OSError, errors.PynetnsError) as error:
                    assert "Too many open files" in str(error)
                    failed.add(name)
            assert os.listdir("/proc/self/fd") == before, f"{name} {at}"
    assert "pipe2" in failed, "no failure was tried"


def test_no_descriptor_left_at_all(engine):
    engine.containers.run("host", ["true"], remove=True, network="none")
    before = everything(engine)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    held = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(2):
            for create in (engine.containers.create, engine.containers.run):
                with pytest.raises(errors.PynetnsError, match="Too many open files"):
                    create("host", ["true"], network="none")
            os.close(held.pop())  # then with one, which the lock takes
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert everything(engine) == before
