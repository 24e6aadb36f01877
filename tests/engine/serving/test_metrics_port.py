"""The metrics port under clients that are silent, that drip, and that come in a storm."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from engine.serving import metrics_server
from engine.serving.metrics_server import MetricsServer, shared


@pytest.fixture
def port(monkeypatch) -> Iterator[int]:
    monkeypatch.setattr(metrics_server, "_MAX_OPEN", 3)
    monkeypatch.setattr(metrics_server, "_ANSWER_S", 0.5)
    server = MetricsServer("127.0.0.1", 0)
    yield server.port
    server.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_one_connection_more_than_the_limit_is_closed_and_all_that_are_late_give_their_place_free(port):
    idle = [connected(port) for _ in range(3)]
    for one in idle:
        one.sendall(b"GET /metrics HTT")  # the rest does not come
    with connected(port) as refused:
        assert refused.recv(10) == b""
    for one in idle:
        assert one.recv(10) == b"", "closed, though it was never silent for long"
        one.close()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert b"ousel_ready" in answer.read()


def test_requests_that_come_while_an_answer_is_made_share_the_next():
    begun, go, made = threading.Event(), threading.Event(), []

    def app(environ, start_response):
        made.append(environ["PATH_INFO"])
        begun.set()
        assert go.wait(30)
        start_response("200 OK", [])
        return [str(len(made)).encode()]

    answer, bodies, came = shared(app), [], []

    class Request(dict):
        def get(self, name):
            came.append(name)
            return super().get(name)

    def ask() -> None:
        bodies.append(answer(Request(PATH_INFO="/metrics"), lambda *_: None)[0])

    threads = [threading.Thread(target=ask) for _ in range(20)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while came.count("HTTP_ACCEPT_ENCODING") < 20:
        assert not made[1:]
    go.set()
    for thread in threads:
        thread.join(30)
    assert sorted(set(bodies)) == [b"1", b"2"] and len(bodies) == 20
