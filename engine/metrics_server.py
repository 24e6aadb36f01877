"""The HTTP server of /metrics: clients that are silent, or that leave in the middle, cost it a line at most."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from engine import metrics

_log = logging.getLogger(__name__)

_SILENCE_S = 10.0  # A connection that says nothing for so long is closed.
_ANSWER_S = 30.0  # So is one that has not brought its request and taken its answer in so long, however it drips.
_MAX_OPEN = 64  # Connections at a time, each with a thread; one more is closed at once.

Refusal = Callable[[str | None], HTTPStatus | None]


class MetricsServer:
    """Serves the metrics of this process from threads of its own; construction starts it.

    Args:
        tls: gives the context that the next connection is served with; None serves all of them in plain text.
        registry: of the metrics that are shown.
        refusal: says by a request's header `Authorization` with what it is refused; None lets everybody read.

    Attributes:
        port: the one that is listened on; one that was free where 0 was asked for.

    Raises:
        OSError: the address can't be listened on.
    """

    port: int

    def __init__(
        self,
        host: str,
        port: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
        registry: CollectorRegistry = REGISTRY,
        refusal: Refusal | None = None,
    ) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The class has the family, which the server's constructor needs.
        server = type("_FamilyServer", (_Server,), {"address_family": family, "tls": tls and staticmethod(tls)})
        app = shared(make_wsgi_app(registry))
        if refusal is not None:
            app = _asking(app, refusal)
        self._http: WSGIServer = make_server(str(address[0]), port, app, server, _Handler)
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; blocks until no new request is taken."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _asking(app: Any, refusal: Refusal) -> Any:
    """`app`, for those who may read it."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        status = refusal(environ.get("HTTP_AUTHORIZATION"))
        if status is None:
            return app(environ, start_response)
        start_response(
            f"{status.value} {status.phrase}", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")]
        )
        return [b"The metrics need a token with the role metrics: Authorization: Bearer TOKEN\n"]

    return answer


def shared(app: Any) -> Any:
    """`app`, asked once for all requests of a kind that came before it was asked: a storm of them costs two answers."""
    lock = threading.Lock()
    made: dict[str, Any] = {"kind": None, "began_s": 0.0}

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        came_s = time.monotonic()
        kind = [environ.get(name) for name in ("PATH_INFO", "QUERY_STRING", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING")]
        with lock:
            if made["kind"] != kind or made["began_s"] <= came_s:
                began_s, made["kind"] = time.monotonic(), None  # Where it fails, there is no answer to be shared.
                made["body"] = b"".join(app(environ, lambda *head: made.update(head=head)))
                made.update(kind=kind, began_s=began_s)
            head, body = made["head"], made["body"]
        start_response(*head)
        return [body]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    tls: Callable[[], ssl.SSLContext] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._since_s: dict[Any, float] = {}  # when each open connection came, the oldest first
        self._lock = threading.Lock()

    def get_request(self) -> tuple[Any, Any]:
        """The next connection. Its thread makes the handshake, so that a silent client keeps nobody else waiting."""
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        try:
            return self.tls().wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address
        except (OSError, ValueError) as error:  # It has left already.
            connection.close()
            raise OSError(str(error)) from None

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._since_s) >= _MAX_OPEN
            if not full:
                self._since_s[request] = time.monotonic()
        if full:
            metrics.METRICS_CONNECTIONS_REFUSED.inc()
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: ends connections that are late. Their threads close them."""
        with self._lock:
            late = [one for one, since_s in self._since_s.items() if time.monotonic() > since_s + _ANSWER_S]
        for request in late:
            with suppress(OSError):
                # Not by the method of a connection with TLS, which takes the session away from the thread that reads.
                socket.socket.shutdown(request, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called in an `except`; socketserver itself would print a traceback."""
        error = sys.exception()
        if isinstance(error, OSError):
            _log.debug("the metrics client %s left: %s", client_address, error)
        else:
            _log.error("the metrics could not be served to %s", client_address, exc_info=error)


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: every scrape would be a line."""
