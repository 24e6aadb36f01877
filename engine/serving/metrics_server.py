"""The HTTP server of /metrics: clients that are silent, or that leave in the middle, cost it a line at most."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client

_log = logging.getLogger(__name__)

_SILENCE_S = 10.0  # A connection that says nothing for so long is closed.


class MetricsServer:
    """Serves the metrics of this process from threads of its own; construction starts it.

    Attributes:
        port: the one that is listened on; one that was free where 0 was asked for.

    Raises:
        OSError: the address can't be listened on.
    """

    port: int

    def __init__(self, host: str, port: int) -> None:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The class has the family, which the server's constructor needs.
        server = type("_FamilyServer", (_Server,), {"address_family": family})
        self._http: WSGIServer = make_server(str(address[0]), port, prometheus_client.make_wsgi_app(), server, _Handler)
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening; blocks until no new request is taken."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

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
