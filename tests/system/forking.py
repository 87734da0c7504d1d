"""What the tests of forks share: children that live on or work, forks at steps, verbs to be in the middle of."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable

import pynetns
from pynetns import trace

SLEEP = ["sleep", "1000"]
PATIENCE = 60  # seconds after which something hangs


class Children:
    """Forked children that live until the end, or as long as their work takes."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.failed: list[str] = []
        self._life, self._end = os.pipe()

    def fork(self) -> None:
        """One that does nothing but live."""
        pid = os.fork()
        if pid == 0:
            os.close(self._end)
            os.read(self._life, 1)
            os._exit(0)
        self.pids.append(pid)

    def work(self, work: Callable[[], object]) -> int:
        """One that works, and says by its exit code whether it could."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(self._end)
                signal.alarm(PATIENCE)
                work()
                code = 0
            except BaseException as error:
                print(f"child {os.getpid()} : {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        return pid

    def end(self) -> None:
        os.close(self._end)
        os.close(self._life)
        for pid in self.pids:
            os.waitpid(pid, 0)


class ForkAtSteps:
    """At the entry of the n-th step of whatever goes on in the process, another thread forks."""

    def __init__(self, children: Children, at: int) -> None:
        self.children, self.at, self.steps = children, at, 0

    def __enter__(self) -> ForkAtSteps:
        self.enter = trace.step.__enter__

        def entered(span: trace.step) -> trace.step:
            self.steps += 1
            if self.steps == self.at:
                thread = threading.Thread(target=self.children.fork)
                thread.start()
                thread.join(PATIENCE)
                assert not thread.is_alive(), "the fork hangs"
            return self.enter(span)

        trace.step.__enter__ = entered
        return self

    def __exit__(self, *exc: object) -> None:
        trace.step.__enter__ = self.enter


def run_and_remove(engine: pynetns.Engine) -> None:
    assert engine.containers.run("host", ["echo", "whole"], remove=True) == b"whole\n"


def start_and_remove(engine: pynetns.Engine) -> None:
    container = engine.containers.run("host", SLEEP, detach=True, ports={"80/tcp": None})
    container.remove(force=True)


def execute(engine: pynetns.Engine) -> None:
    container = engine.containers.run("host", SLEEP, detach=True, network_mode="none")
    try:
        assert container.exec_run(["sh", "-c", "echo whole; exit 7"]) == (7, b"whole\n")
    finally:
        container.remove(force=True)


def some_verbs(engine: pynetns.Engine, rng: random.Random) -> None:
    rng.choice([run_and_remove, start_and_remove, execute])(engine)
