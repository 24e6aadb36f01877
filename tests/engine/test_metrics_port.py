"""The metrics port under clients that are silent, that drip, and that come in a storm."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from engine import metrics, metrics_server
from engine.metrics_server import MetricsServer, shared


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


class Requests:
    """Requests to an app that waits for `go` as it is asked first; the others come meanwhile."""

    def __init__(self, app: Callable[[str], bytes]) -> None:
        self.go = threading.Event()
        self.bodies: list[bytes] = []
        self._app = app
        self._begun = threading.Event()
        self._came: list[str] = []
        self._answer = shared(self._made)

    def ask(self, first: str, *others: str) -> list[bytes]:
        """The bodies of all that were answered."""
        threads = [threading.Thread(target=self._ask, args=(path,)) for path in (first, *others)]
        threads[0].start()
        assert self._begun.wait(30)
        for thread in threads[1:]:
            thread.start()
        while len(self._came) < len(threads):
            assert not self.bodies
        self.go.set()
        for thread in threads:
            thread.join(30)
        return self.bodies

    def _made(self, environ, start_response):
        self._begun.set()
        assert self.go.wait(30)
        start_response("200 OK", [])
        return [self._app(environ["PATH_INFO"])]

    def _ask(self, path: str) -> None:
        came = self._came

        class Request(dict):
            def get(self, name):
                if name == "HTTP_ACCEPT_ENCODING":  # the last that is asked for
                    came.append(path)
                return super().get(name)

        with suppress(ValueError):
            self.bodies.append(self._answer(Request(PATH_INFO=path), lambda *_: None)[0])


def test_requests_that_come_while_an_answer_is_made_share_the_next():
    made = []

    def app(path: str) -> bytes:
        made.append(path)
        return str(len(made)).encode()

    bodies = Requests(app).ask(*["/metrics"] * 20)
    assert sorted(set(bodies)) == [b"1", b"2"] and len(bodies) == 20


def test_an_answer_that_could_not_be_made_is_made_again_for_the_others_who_wait():
    made = []

    def app(path: str) -> bytes:
        made.append(path)
        if len(made) == 2:
            raise ValueError("a metric fails")
        return path.encode()

    bodies = Requests(app).ask("/other", *["/metrics"] * 3)
    assert bodies == [b"/other", *[b"/metrics"] * 2]  # and nobody gets what was made for another page
    assert len(made) == 3
