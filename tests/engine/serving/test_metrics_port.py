"""The metrics port under clients that are silent, that drip, and that come in a storm."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from engine import metrics
from engine.serving import metrics_server
from engine.serving.metrics_server import MetricsServer, shared


@pytest.fixture
def port(monkeypatch, answer_s: float) -> Iterator[int]:
    monkeypatch.setattr(metrics_server, "_MAX_OPEN", 3)
    monkeypatch.setattr(metrics_server, "_ANSWER_S", answer_s)
    monkeypatch.setattr(metrics_server._Handler, "timeout", 60.0)
    server = MetricsServer("127.0.0.1", 0)
    yield server.port
    server.close()


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(b"GET /metrics HTT")  # the rest does not come
    return connection


@pytest.mark.parametrize("answer_s", [60.0])
def test_one_connection_more_than_the_limit_is_closed_at_once_until_another_ends(port):
    held = [connected(port) for _ in range(3)]
    before = metrics.METRICS_CONNECTIONS_REFUSED._value.get()
    with suppress(ConnectionError), connected(port) as refused:
        assert refused.recv(10) == b""
    assert metrics.METRICS_CONNECTIONS_REFUSED._value.get() == before + 1
    for one in held:
        one.close()
    for _ in range(1000):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert b"ousel_ready" in answer.read()
            return
    raise AssertionError("the places were not given free")


@pytest.mark.parametrize("answer_s", [0.5])
def test_a_connection_that_drips_is_closed_when_its_time_is_over(port):
    with connected(port) as one:
        one.settimeout(0.05)
        for _ in range(600):
            try:
                one.sendall(b"P")
                assert one.recv(10) == b""
                return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    raise AssertionError("it was let drip for half a minute")


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
