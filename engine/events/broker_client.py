"""kafka-python's connections to the brokers, as every consumer, producer and admin client of Ousel uses them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector

from engine.events.broker_transport import LimitedManager
from engine.limited_log import LimitedLog

log = logging.getLogger(__name__)
_limited = LimitedLog(log)

T = TypeVar("T")


class BrokerClient(KafkaNetClient):
    """The `kafka_client` of all our clients; it asks for topics without making them, and bounds what an answer takes.

    kafka-python 3.0.12 takes `allow_auto_create_topics` and loses it: `KafkaConnectionManager` hands three settings to
    its `ClusterMetadata`, and this one is not among them. Every request for metadata then allows the broker to make
    the topics it asks for, and a topic that somebody deletes is back within a second, with the broker's defaults.

    Args:
        max_answer_bytes: of an answer that is longer only the beginning is passed on; see `AnswerLimit`.
        configs: of kafka-python's client.

    Attributes:
        shortened_answers: how many answers were longer.
    """

    def __init__(self, *, max_answer_bytes: int, **configs: Any) -> None:
        self.shortened_answers = 0
        self._max_answer_bytes = max_answer_bytes
        net = NetworkSelector(**configs)
        super().__init__(net, LimitedManager(net, max_answer_bytes, self._shortened, **configs), **configs)
        # A client asks for no topic before it is told which, so no request has left yet that this comes too late for.
        self._manager.cluster.config["allow_auto_create_topics"] = False

    def answered_s(self) -> float | None:
        """When a broker last sent something on a connection that is still open, by `time.monotonic`."""
        transports = [connection.transport for connection in list(self._manager._conns.values())]
        return max((transport.last_read for transport in transports if transport is not None), default=None)

    def _shortened(self, address: str, size_bytes: int, kept_bytes: int) -> None:
        if size_bytes < 0:
            _limited.error(
                address,
                "the broker at %s has 2 GiB or more to answer at once, which the Kafka protocol can't express: its log"
                " has outgrown it and can't be read; docs/kafka.md tells how a log moves to Apache Kafka",
                address,
            )
            return
        self.shortened_answers += 1
        if self.shortened_answers == 1:
            log.warning(
                "the broker at %s answered a fetch with %d bytes, where kafka.max_answer_bytes allows %d: %d of them"
                " are used and the others are asked for again, as often as it takes. The embedded broker answers with"
                " all that its log holds; Apache Kafka keeps to what it is asked for",
                address,
                size_bytes,
                self._max_answer_bytes,
                kept_bytes,
            )


class BrokerLink:
    """Makes the `BrokerClient` of one consumer, producer or admin client, and keeps hold of it.

    It is passed as `kafka_client`. kafka-python's own clients hide theirs, and drop it with its thread and its
    connection where their construction fails.

    Args:
        make: makes the client; the `kafka_client` of `connection_settings`.
    """

    def __init__(self, make: Callable[..., BrokerClient]) -> None:
        self._make = make
        self._client: BrokerClient | None = None
        self._answered_s: float | None = None

    def __call__(self, **configs: Any) -> BrokerClient:
        self._client = self._make(**configs)
        return self._client

    def answered_s(self) -> float | None:
        """When a broker last sent something, by `time.monotonic`; None where none did yet."""
        newest = self._client.answered_s() if self._client is not None else None
        if newest is not None:
            self._answered_s = max(newest, self._answered_s or newest)
        return self._answered_s

    def close(self) -> None:
        """Ends the client's thread and connections; for one whose consumer or producer could not be made."""
        if self._client is not None:
            self._client.close()


def open_client(kind: Callable[..., T], settings: Mapping[str, Any]) -> T:
    """Makes a consumer, producer or admin client; where it can't be made, its thread and its connections end too."""
    link = BrokerLink(settings["kafka_client"])
    try:
        return kind(**{**settings, "kafka_client": link})
    except BaseException:
        link.close()
        raise
