"""kafka-python's connections as far as they read: in bounded steps, and no answer beyond a limit."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaConnectionError
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.consumer import FetchRequest

from engine.events.answer_limit import AnswerLimit
from engine.events.fetch_answer import MalformedAnswer

log = logging.getLogger(__name__)

_PIECE_BYTES = 64 << 10
_STEP_BYTES = 1 << 20  # kafka-python reads on for as long as there is more, in pieces of 4 kB that it keeps.


class LimitedManager(KafkaConnectionManager):
    """Keeps kafka-python's connections; what they receive goes through an `AnswerLimit`.

    Args:
        max_answer_bytes: of `AnswerLimit`.
        shortened: called with an address, the size of an answer and how much of it was kept.
        settings: of `KafkaConnectionManager`.
    """

    def __init__(
        self, net: Any, max_answer_bytes: int, shortened: Callable[[str, int, int], None], **settings: Any
    ) -> None:
        super().__init__(net, **settings)
        self._max_answer_bytes = max_answer_bytes
        self._shortened = shortened

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        _limit(transport, self._max_answer_bytes, lambda *sizes: self._shortened(f"{node.host}:{node.port}", *sizes))
        return transport


def _limit(transport: KafkaTCPTransport, max_answer_bytes: int, shortened: Callable[[int, int], None]) -> None:
    """Has a transport read in bounded steps; a TLS connection may hold bytes that its socket does not show any more."""

    def version_of(number: int) -> int | None:
        for header in transport.get_protocol().parser.in_flight_requests:
            if header.correlation_id == number:
                return header.request_api_version if header.request_api_key == FetchRequest.API_KEY else None
        return None

    limit = AnswerLimit(max_answer_bytes, version_of, shortened)
    unread = transport._sock.pending if isinstance(transport, KafkaSSLTransport) else lambda: 0

    def receive() -> tuple[bytes, KafkaConnectionError | None]:
        pieces: list[bytes] = []
        size, error = 0, None
        while size < _STEP_BYTES or unread():
            try:
                piece = transport._sock.recv(_PIECE_BYTES)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except Exception as problem:
                error = KafkaConnectionError(problem)
                break
            if not piece:
                error = KafkaConnectionError("socket disconnected")
                break
            pieces.append(piece)
            size += len(piece)
        try:
            return limit.feed(b"".join(pieces)), error
        except MalformedAnswer as problem:
            return b"", KafkaConnectionError(f"the broker's answer can't be read: {problem}")

    transport._sock_recv = receive
