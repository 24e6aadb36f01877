"""Writes events and catalog items to the log, and says where each came to lie."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from ousel.v1 import catalog_pb2, event_pb2

from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings

log = logging.getLogger(__name__)

_LINGER_MS = 1  # what comes this close together travels together


class ProducerFullError(RuntimeError):
    """Too many records wait for the broker; try again later."""


class EventProducer:
    """Sends to the events and items topics; every record is acknowledged by all replicas or fails.

    Args:
        max_pending: records sent and not yet acknowledged; one more fails at once with `ProducerFullError`.

    Raises:
        kafka.errors.KafkaError: no broker answers, or a topic does not exist.
    """

    def __init__(self, config: KafkaConfig, max_pending: int = 10_000) -> None:
        self._config = config
        self._pending = threading.BoundedSemaphore(max_pending)
        # Learn the partitions now: otherwise the first send would block its caller, such as an event loop, for them.
        self._producer = open_producer(config, config.events_topic, config.items_topic)

    def send_event(self, event: event_pb2.Event) -> Future[event_pb2.LogPosition]:
        """Sends a valid event, keyed by its user, or else its session, or else its item. Safe from any thread.

        Returns:
            Where it lies, once the log has it; or a KafkaError or `ProducerFullError`. It can't be cancelled.
        """
        key = event.user_id or event.session_id or event.item_id
        return self._send(self._config.events_topic, key, event.SerializeToString())

    def send_forget(self, event: event_pb2.Event) -> list[Future[event_pb2.LogPosition]]:
        """Sends an event that forgets to every partition: what it forgets may lie in any, if others key otherwise.

        Returns:
            One future per partition, each as `send_event` has it.
        """
        topic, key, value = self._config.events_topic, event.user_id or event.session_id, event.SerializeToString()
        partitions = sorted(self._producer.partitions_for(topic))
        return [self._send(topic, key, value, partition=partition) for partition in partitions]

    def send_item(self, item: catalog_pb2.Item) -> Future[event_pb2.LogPosition]:
        """Sends a catalog item, keyed by its id, as `send_event` does."""
        return self._send(self._config.items_topic, item.item_id, item.SerializeToString())

    def close(self) -> None:
        """Waits for what is sent, at most the time a request may take, and disconnects. Safe to call twice."""
        close_producer(self._producer, self._config)

    def _send(self, topic: str, key: str, value: bytes, **where: int) -> Future[event_pb2.LogPosition]:
        future: Future[event_pb2.LogPosition] = Future()
        future.set_running_or_notify_cancel()  # from here a cancel() is refused, so setting a result always works
        if not self._pending.acquire(blocking=False):
            future.set_exception(ProducerFullError("too many events wait for the Kafka broker; try again later"))
            return future

        def succeed(metadata: Any) -> None:
            self._pending.release()
            future.set_result(
                event_pb2.LogPosition(topic=metadata.topic, partition=metadata.partition, offset=metadata.offset)
            )

        def fail(error: Exception) -> None:
            self._pending.release()
            future.set_exception(error)

        try:
            sent = self._producer.send(topic, key=key.encode(), value=value, **where)
        except Exception as error:  # of any kind: too large, closed, no metadata
            fail(error)
        else:
            sent.add_callback(succeed)
            sent.add_errback(fail)
        return future


def open_producer(config: KafkaConfig, *topics: str) -> KafkaProducer:
    """A producer that knows the partitions of its topics.

    Raises:
        kafka.errors.KafkaError: no broker answers, or a topic does not exist; nothing of the producer is left then.
    """
    producer = open_client(KafkaProducer, producer_settings(config))
    try:
        for topic in topics:
            producer.partitions_for(topic)
    except BaseException:
        producer.close(timeout=0)
        raise
    return producer


def producer_settings(config: KafkaConfig) -> dict[str, Any]:
    """kafka-python's settings for a producer that answers within `request_timeout_ms`, one way or the other."""
    return connection_settings(config) | {
        "acks": "all",
        # One request at a time keeps the order over retries. The idempotent producer would too, but one whose topic was
        # lost and made again never answers for its records; a repeat is recognised by its event_id instead.
        "enable_idempotence": False,
        "max_in_flight_requests_per_connection": 1,
        "linger_ms": _LINGER_MS,
        "delivery_timeout_ms": config.request_timeout_ms + _LINGER_MS,
        "max_block_ms": config.request_timeout_ms,
        "allow_auto_create_topics": False,
    }


def close_producer(producer: KafkaProducer, config: KafkaConfig) -> None:
    """Waits for what is sent, at most the time a request may take, and disconnects; logs where that was too short."""
    try:
        producer.close(timeout=(config.request_timeout_ms + _LINGER_MS) / 1000)
    except KafkaError as error:
        log.error("closed while records were on their way to %s: %s", config.bootstrap, error)
