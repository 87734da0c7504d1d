"""Fixtures of the attack tests, and the table at the end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pynetns.errors import PynetnsError

from .attack import Attack, Attacks, Victim
from .images import Workshop

TIME_LIMIT = 180  # seconds, for one test: far above what any takes, also on an emulated machine

attacks = Attacks()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs root and a real kernel, and is an attack."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.security)
            item.add_marker(pytest.mark.root)


def pytest_terminal_summary(terminalreporter) -> None:
    """The table: every attack tried and how it ended."""
    if not attacks.all:
        return
    terminalreporter.section("attacks")
    for line in attacks.table():
        terminalreporter.write_line(line)


@pytest.fixture
def attack() -> Iterator[Callable[[str, str], Attack]]:
    """Begin an attack: `attack(name, what is tried)`. Each must get its verdict."""
    first = len(attacks.all)
    yield attacks
    silent = [a.name for a in attacks.all[first:] if a.result == "DID NOT RUN"]
    assert not silent, f"no verdict on {', '.join(silent)}"


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A test that hangs fails instead."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"still not done after {TIME_LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TIME_LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def victim(workshop: Workshop, tmp_path: Path) -> Victim:
    return Victim(tmp_path, workshop.program, workshop.loader)


@dataclass(frozen=True)
class Outcome:
    """What a container printed, or why it did not start."""

    output: str
    refused: str

    def __str__(self) -> str:
        return self.refused or self.output

    def __contains__(self, text: str) -> bool:
        return text in self.output

    def lines(self, start: str) -> list[str]:
        """The lines of the output that begin with `start`."""
        return [line for line in self.output.splitlines() if line.startswith(start)]


@pytest.fixture
def attempt(engine) -> Callable[..., Outcome]:
    """Run a command in a container of a tree (or of an image) to its end; refusal is an outcome."""

    def attempt_(root: Path | str, command: list[str], **options) -> Outcome:
        if isinstance(root, Path):
            options["rootfs"] = str(root)
            root = ""
        container = None
        try:
            container = engine.containers.create(root, command, **options)
            container.start()
            container.wait(timeout=TIME_LIMIT / 3)
            return Outcome(container.logs().decode(errors="replace"), "")
        except PynetnsError as error:
            return Outcome("", f"{type(error).__name__}: {error}")
        finally:
            if container is not None:
                container.remove(force=True)

    return attempt_


@pytest.fixture
def running(engine) -> Iterator[Callable[..., object]]:
    """Start a container that stays until the test ends."""
    started = []

    def running_(root: Path | str, command: list[str], **options):
        if isinstance(root, Path):
            options["rootfs"] = str(root)
            root = ""
        container = engine.containers.create(root, command, **options)
        started.append(container)
        container.start()
        return container

    yield running_
    for container in started:
        with contextlib.suppress(PynetnsError):
            container.remove(force=True)


def wait_for_line(container, start: str) -> str:
    """The first line of a running container's output that begins with `start`."""
    text = ""
    for chunk in container.logs(stream=True, follow=True):
        text += chunk.decode(errors="replace")
        for line in text.splitlines():
            if line.startswith(start):
                return line
    raise AssertionError(f"ended without {start!r}: {text[-500:]}")


def stop_and_read(container) -> str:
    """End an attack that runs until told; all it printed."""
    container.stop(timeout=5)
    return container.logs().decode(errors="replace")


def exec_outcome(container, command: list[str], **options) -> Outcome:
    """Run a command in a running container; refusal is an outcome."""
    try:
        return Outcome(container.exec_run(command, **options)[1].decode(errors="replace"), "")
    except PynetnsError as error:
        return Outcome("", f"{type(error).__name__}: {error}")


class Memory:
    """How much more memory this process has used, at the most, since `reset` (bytes). proc(5)."""

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak falls to what is used now
        self._before = self._peak()

    @staticmethod
    def _peak() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def grown(self) -> int:
        return self._peak() - self._before
