"""An answer that is given twice, by a shim and its successor, is not taken for another request's."""

from __future__ import annotations

import socket
import threading

import pytest

from pynetns.kernel import frame
from pynetns.runtime.shim.client import ShimClient
from pynetns.runtime.shim.connections import Connection


@pytest.fixture
def client(tmp_path):
    client = ShimClient(str(tmp_path))
    yield client
    client.close()


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
        client.give(Connection([ours.detach()]))
        thread = serve(shim, stale)
        ended = client.wait("a", timeout)
        thread.join()
    assert (ended.code, ended.finished) == (93, 2)


def test_a_request_skips_what_is_told_again(client):
    ours, shim = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with shim:
        client.give(Connection([ours.detach()]))
        thread = serve(shim, frame.ERROR)
        answer = client.request(frame.LIST)
        thread.join()
    assert (answer.kind, answer.arg) == (frame.EXITED, 93)
