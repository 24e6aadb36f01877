"""kafka-python's connections to the brokers, as every consumer, producer and admin client of Ousel uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient

T = TypeVar("T")


class BrokerClient(KafkaNetClient):
    """The `kafka_client` of all our clients; it asks for topics without making them.

    kafka-python 3.0.12 takes `allow_auto_create_topics` and loses it: `KafkaConnectionManager` hands three settings to
    its `ClusterMetadata`, and this one is not among them. Every request for metadata then allows the broker to make
    the topics it asks for, and a topic that somebody deletes is back within a second, with the broker's defaults.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        # A client asks for no topic before it is told which, so no request has left yet that this comes too late for.
        self._manager.cluster.config["allow_auto_create_topics"] = False

    def answered_s(self) -> float | None:
        """When a broker last sent something on a connection that is still open, by `time.monotonic`."""
        transports = [connection.transport for connection in list(self._manager._conns.values())]
        return max((transport.last_read for transport in transports if transport is not None), default=None)


class BrokerLink:
    """Makes the `BrokerClient` of one consumer, producer or admin client, and keeps hold of it.

    It is passed as `kafka_client`. kafka-python's own clients hide theirs, and drop it with its thread and its
    connection where their construction fails.
    """

    def __init__(self) -> None:
        self._client: BrokerClient | None = None
        self._answered_s: float | None = None

    def __call__(self, **configs: Any) -> BrokerClient:
        self._client = BrokerClient(**configs)
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
    link = BrokerLink()
    try:
        return kind(**{**settings, "kafka_client": link})
    except BaseException:
        link.close()
        raise
