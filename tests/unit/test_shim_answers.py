"""The shim's client: an answer that is given twice, by a shim and its successor, is not taken for another
request's, and what a shim that ended did not answer its successor is asked."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from pynetns.errors import KernelError
from pynetns.kernel import frame
from pynetns.kernel.lib import ffi
from pynetns.runtime.shim.client import NoShim, ShimClient

from ..interrupts import descriptors


@pytest.fixture
def client(tmp_path):
    """One that leaves no descriptor behind, whatever it went through."""
    before = descriptors()
    client = ShimClient(str(tmp_path))
    yield client
    client.close()
    assert descriptors() - before == set()


def serve(shim: socket.socket, stale: int) -> threading.Thread:
    """Answers one request, after an answer of kind `stale` to the request before it."""

    def answer() -> None:
        serial = frame.receive(shim.fileno()).serial
        frame.send(shim.fileno(), stale, serial=serial - 1, arg=38, value=1)
        frame.send(shim.fileno(), frame.EXITED, serial=serial, arg=93, value=2)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize("stale", [frame.EXITED, frame.OK, frame.TASK, frame.ERROR])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_wait_skips_what_is_told_again(client, stale, timeout):
    ours, shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with shim:
        client.give(ours.detach())
        thread = serve(shim, stale)
        ended = client.wait("a", timeout)
        thread.join()
    assert (ended.code, ended.finished) == (93, 2)


def test_a_request_skips_what_is_told_again(client):
    ours, shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with shim:
        client.give(ours.detach())
        thread = serve(shim, frame.ERROR)
        answer = client.request(frame.LIST)
        thread.join()
    assert (answer.kind, answer.arg) == (frame.EXITED, 93)


# ---- a shim that ends meanwhile ----


class Shims:
    """One shim after the other on the same socket. Each serves one connection: greets, reads a
    request and answers it, or ends before that, as `endings` say, the last one never."""

    def __init__(
        self, directory: str, *endings: str, answers: tuple[tuple[int, dict], ...]
    ) -> None:
        self.asked: list[frame.Frame] = []
        self._endings, self._answers = [*endings, ""], iter(answers)
        self._path = f"{directory}/shim.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self._path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for ending in self._endings:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down: a client has not come as often as it should
            with connection:
                if ending != "before greeting":
                    self._serve(connection, ending)

    def _serve(self, connection: socket.socket, ending: str) -> None:
        fd = connection.fileno()
        frame.receive(fd)
        frame.send(fd, frame.HELLO, arg=frame.PROTOCOL)
        connection.recv(1, socket.MSG_PEEK)  # until the request is there
        if ending == "request unread":
            return
        self.asked.append(frame.receive(fd))
        for kind, fields in [] if ending == "request read" else self._answers:
            frame.send(fd, kind, serial=self.asked[-1].serial, **fields)

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        os.unlink(self._path)


def error(number: int) -> bytes:
    failure = ffi.new("struct pn_error *")
    failure.errnum = number
    return bytes(ffi.buffer(failure))


VERBS = {
    "ask": (lambda client: client.request(frame.LIST).value, (frame.TASK, {"value": 7}), 7),
    "list": (lambda client: client.tasks(), (frame.TASK, {}), {}),
    "signal": (lambda client: client.signal("a", 9), (frame.OK, {}), True),
    "wait": (lambda client: client.wait("a").code, (frame.EXITED, {"arg": 3}), 3),
    "wait a while": (lambda client: client.wait("a", 60.0).code, (frame.EXITED, {"arg": 3}), 3),
}
ENDINGS = ("before greeting", "request unread", "request read")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("endings", [*((e,) for e in ENDINGS), ENDINGS])
def test_its_successor_is_asked_again(client, tmp_path, verb, endings):
    ask, answer, expected = VERBS[verb]
    shims = Shims(str(tmp_path), *endings, answers=(answer,))
    try:
        assert ask(client) == expected
    finally:
        shims.end()
    assert len({(asked.kind, asked.key, asked.arg) for asked in shims.asked}) == 1


def test_an_idle_connection_to_one_that_has_ended_is_no_sign_of_life(client):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.give(ours.detach())
    theirs.close()
    assert not client.alive()
    with pytest.raises(NoShim):
        client.connect(start=False)


def test_a_large_plan_leaves_no_descriptor(client):
    """It goes through a memory file, which is not ours once it is sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        client.give(ours.detach())
        os.close(client.begin_spawn("a", bytes(frame.FRAME_MAX), [], flags=0))


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_start_is_asked_for_by_its_run_and_never_begun_twice(client, tmp_path, ending):
    started = (frame.SPAWNED, {"arg": 99})
    shims = Shims(str(tmp_path), ending, answers=(started,))
    try:
        pending = client.begin_spawn("a", b"plan", [], flags=0)
        assert client.finish_spawn(pending, "a").arg == 99
    finally:
        shims.end()
    kinds = [asked.kind for asked in shims.asked]
    assert kinds == [frame.SPAWN, frame.STARTED][-len(kinds) :]
    assert len({asked.value for asked in shims.asked}) == 1 and shims.asked[-1].value != 0


def test_a_start_that_nobody_began_is_told(client, tmp_path):
    unknown = (frame.ERROR, {"payload": error(errno.ESRCH)})
    shims = Shims(str(tmp_path), "request read", answers=(unknown,))
    try:
        pending = client.begin_spawn("a", b"plan", [], flags=0)
        with pytest.raises(KernelError, match="killed during the start") as failure:
            client.finish_spawn(pending, "a")
    finally:
        shims.end()
    assert failure.value.errno == errno.ECANCELED


def test_a_task_that_is_not_known_any_more_is_no_error(client, tmp_path):
    unknown = (frame.ERROR, {"payload": error(errno.ESRCH)})
    for ask, expected in ((lambda: client.signal("a", 9), False), (lambda: client.wait("a"), None)):
        shims = Shims(str(tmp_path), answers=(unknown,))
        try:
            assert ask() is expected
        finally:
            shims.end()
            client.close()


def test_nobody_there_is_no_error_where_that_is_an_answer(client):
    assert client.tasks() == {}
    assert client.signal("a", 9) is False and client.resize("a", 1, 2) is False
    assert client.wait("a") is None and client.waiter("a") == -1
    assert client.alive() is False
    with pytest.raises(NoShim):
        client.request(frame.LIST)
