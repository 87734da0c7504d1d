"""What every test shares: an engine of its own, and the leak check after each root test."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from . import isolation, leaks

pytest.register_assert_rewrite("tests.killing")

# How long an example takes says nothing here: other tests and the machine's own load do.
hypothesis.settings.register_profile(
    "pynetns", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pynetns")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Root's tests make links and mounts: in namespaces of the run's own."""
    if os.geteuid() == 0 and not session.config.option.collectonly:
        isolation.enter()


@pytest.fixture(autouse=True, scope="session")
def watch_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mounts and shims below pytest's own temporary directory are ours."""
    leaks.watch_directory(str(tmp_path_factory.getbasetemp()))


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every root test nothing may be left that was not there before."""
    if request.node.get_closest_marker("root") is None:
        yield
        return
    before = leaks.snapshot()
    yield
    left = leaks.new_things(before)
    assert not left, "left behind:\n" + "\n".join(left)


class Place:
    """Root and exec root of one test."""

    def __init__(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="pynetns-test-"))
        self.root = str(self.top / "root")
        self.exec_root = str(self.top / "exec")
        self.engines: list = []
        leaks.watch_root(self.root)
        leaks.watch_directory(str(self.top))

    def engine(self, **options):
        """Another engine on the same state, as another process would open it."""
        import pynetns

        engine = pynetns.Engine(self.root, self.exec_root, **options)
        self.engines.append(engine)
        return engine

    def clean(self) -> None:
        """Remove every container and the engine's own kernel objects, then the directories."""
        try:
            self.clean_engine()
        finally:
            for engine in self.engines:
                engine.close()
            shutil.rmtree(self.top)

    def clean_engine(self) -> None:
        """Remove every container and the engine's own kernel objects, if there is an engine."""
        import pynetns

        if not os.path.exists(f"{self.root}/pynetns.db"):
            return
        for engine in self.engines:
            engine.close()
        with pynetns.Engine(self.root, self.exec_root) as engine:
            for container in engine.containers.list(all=True):
                with contextlib.suppress(pynetns.errors.NotFound):
                    container.remove(force=True)
            end_shim(engine)
            engine.gc(all=True)


def shim_processes(engine) -> tuple[int, int]:
    """The pids of this engine's shim and of its keeper; the shim runs."""
    from pynetns.kernel import frame

    with engine.shim.connect(start=False) as connection:
        frame.send(connection.fileno(), frame.HELLO, arg=frame.PROTOCOL)
        shim = frame.receive(connection.fileno()).value
    stat = Path(f"/proc/{shim}/stat").read_text()
    return shim, int(stat.rpartition(")")[2].split()[1])


def wait_for_ends(pidfds: list[int]) -> None:
    """Wait until the processes have ended, and close their pidfds."""
    for pidfd in pidfds:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(60_000)  # it may have much to write
        os.close(pidfd)


def end_shim(engine) -> None:
    """End this engine's own shim now instead of a second later; it has no tasks."""
    try:
        pidfds = [os.pidfd_open(pid) for pid in shim_processes(engine)]
    except Exception:
        return
    engine.shim.close()
    signal.pidfd_send_signal(pidfds[0], signal.SIGTERM)
    wait_for_ends(pidfds)


def kill_shim(engine) -> None:
    """Kill shim and keeper in one instant, so that neither takes over from the other."""
    pids = shim_processes(engine)
    pidfds = [os.pidfd_open(pid) for pid in pids]
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    engine.shim.close()
    wait_for_ends(pidfds)


@pytest.fixture
def place(leak_check: None) -> Iterator[Place]:
    """Directories for an engine; whatever a test does, they are cleaned up."""
    place = Place()
    try:
        yield place
    finally:
        place.clean()


@pytest.fixture
def engine(place: Place):
    """An engine of the test's own."""
    return place.engine()


@pytest.fixture
def run(engine) -> Callable[..., str]:
    """Run a command in a container of image `host`; its output as text."""

    def run_(command, **options) -> str:
        options.setdefault("remove", True)
        output = engine.containers.run(options.pop("image", "host"), command, **options)
        return output.decode()

    return run_
