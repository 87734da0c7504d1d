"""Many at once: threads and processes on one root, each start whole, nothing shared by mistake."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def test_threads_of_one_engine(engine):
    containers: list = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                containers.append(engine.containers.run("host", SLEEP, detach=True))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    addresses = {c.attrs["NetworkSettings"]["IPAddress"] for c in containers}
    assert len(addresses) == len(containers) == 30
    assert len(engine.shim.tasks()) == 30
    for container in containers:
        assert container.exec_run(["true"])[0] == 0


def test_processes_on_one_root(place):
    """Several open the root at once, before anything of it exists."""
    code = (
        "import pynetns\n"
        f"with pynetns.Engine({place.root!r}, {place.exec_root!r}) as engine:\n"
        "    for _ in range(4):\n"
        "        c = engine.containers.run('host', ['sleep', '1000'], detach=True)\n"
        "        print(c.attrs['NetworkSettings']['IPAddress'])\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    addresses = [line for p in processes for line in p.communicate(timeout=120)[0].split()]
    assert [p.returncode for p in processes] == [0] * 5
    assert len(addresses) == len(set(addresses)) == 20
    engine = place.engine()
    assert {c.status for c in engine.containers.list()} == {"running"}
    assert len(engine.shim.tasks()) == 20


def test_start_and_stop_of_the_same_container_exclude_each_other(engine):
    container = engine.containers.create("host", SLEEP, network_mode="none")
    failures: list[BaseException] = []

    def work(verb) -> None:
        try:
            for _ in range(8):
                verb()
        except BaseException as error:
            failures.append(error)

    def stop() -> None:
        engine.containers.get(container.id).stop(timeout=0)

    threads = [
        threading.Thread(target=work, args=(verb,))
        for verb in (container.start, stop, container.start, stop)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    stop()
    container.reload()
    assert container.status in ("exited", "created")
    assert engine.store.sandboxes() == [] and engine.shim.tasks() == {}


def test_a_slow_start_does_not_hold_up_readers(engine, monkeypatch):
    """In Docker one slow start hangs `docker ps`."""
    from pynetns.engine.verbs import start as start_module

    container = engine.containers.create("host", SLEEP)
    inside, go_on = threading.Event(), threading.Event()
    real = start_module.create_spec

    def slow(*args):
        inside.set()
        assert go_on.wait(30)
        return real(*args)

    monkeypatch.setattr(start_module, "create_spec", slow)
    thread = threading.Thread(target=container.start)
    thread.start()
    assert inside.wait(30)
    try:
        assert [c.status for c in engine.containers.list(all=True)] == ["created"]
        assert engine.containers.get(container.id).attrs["State"]["Running"] is False
    finally:
        go_on.set()
        thread.join()
    assert engine.containers.get(container.id).status == "running"
