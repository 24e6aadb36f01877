"""A way to the broker that a test can cut or freeze when a chosen request comes by."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

_HOST = "127.0.0.1"


class Request(NamedTuple):
    """One request of a client: the number of its kind in Kafka's protocol, and the bytes after its length."""

    kind: int
    data: bytes


Moment = Callable[[list[Request], Request], bool]  # the requests before, and the one that comes by


class Proxy:
    """Passes everything on between clients and a broker, and is the address that the broker gives its clients.

    When `moment` says so of a request, that one is not passed on any more. By "freeze" nothing is from then on, in
    neither direction, though connections are still accepted, as the kernel does for a process that is stopped. By "cut"
    every connection is closed and none is accepted, as after SIGKILL. `mend` ends either.

    Args:
        moment: None for a way that stays whole until `break_off`.
        fault: "freeze" or "cut".
        advertised: host and port that clients are told instead; the host must have nine letters.

    Attributes:
        broken: set once the moment has come.
    """

    def __init__(
        self,
        broker_port: int,
        moment: Moment | None = None,
        fault: str = "freeze",
        advertised: tuple[str, int] | None = None,
    ) -> None:
        self._broker_port = broker_port
        self._moment = moment
        self._cuts = fault == "cut"
        self._lock = threading.Condition()
        self._requests: list[Request] = []
        self._sockets: set[socket.socket] = set()
        self._closing = False
        self._faulty = False
        self.broken = threading.Event()
        self._server = socket.create_server((_HOST, 0))
        self.port = self._server.getsockname()[1]
        host, port = advertised or (_HOST, self.port)
        assert len(host) == len(_HOST)
        self._told = _HOST.encode() + struct.pack(">i", broker_port), host.encode() + struct.pack(">i", port)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"{_HOST}:{self.port}"

    def break_off(self) -> None:
        """The fault begins now, whatever is under way."""
        with self._lock:
            self._faulty = True
            if self._cuts:
                self._hang_up()
        self.broken.set()

    def mend(self) -> None:
        with self._lock:
            self._faulty, self._moment = False, None
            self._lock.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closing = True
            self._hang_up()
            self._lock.notify_all()
        self._server.close()

    def _hang_up(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._cuts and self._faulty:
                return
            self._wait_until_whole(Request(-1, b""))
            with socket.create_connection((_HOST, self._broker_port)) as broker:
                with self._lock:
                    self._sockets |= {client, broker}
                back = threading.Thread(target=self._pass_back, args=(broker, client), daemon=True)
                back.start()
                while data := _frame(client):
                    self._wait_until_whole(Request(*struct.unpack(">h", data[:2]), data))
                    broker.sendall(struct.pack(">i", len(data)) + data)
                with suppress(OSError):
                    broker.shutdown(socket.SHUT_RDWR)
                back.join()
                with self._lock:
                    self._sockets -= {client, broker}

    def _pass_back(self, broker: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := _frame(broker):
                data = data.replace(*self._told)
                with self._lock:
                    self._lock.wait_for(lambda: not self._faulty or self._closing)
                client.sendall(struct.pack(">i", len(data)) + data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _wait_until_whole(self, request: Request) -> None:
        """Holds a request back while the way is frozen; one of kind -1 is a new connection."""
        with self._lock:
            due = not self._faulty and self._moment is not None and self._moment(self._requests, request)
            self._requests.append(request)
        if due:
            self.break_off()
        with self._lock:
            if self._cuts and self._faulty:
                raise ConnectionAbortedError
            self._lock.wait_for(lambda: not self._faulty or self._closing)


def _frame(source: socket.socket) -> bytes:
    """One request or answer without its length; nothing where the other side has hung up."""
    head = _exactly(source, 4)
    return _exactly(source, *struct.unpack(">i", head)) if head else b""


def _exactly(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = source.recv(count - len(data))
        if not more:
            return b""
        data += more
    return bytes(data)
