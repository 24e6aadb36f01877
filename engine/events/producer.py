"""Writes events and catalog items to the log, and says where each came to lie."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from ousel.v1 import catalog_pb2, event_pb2

from engine import metrics
from engine.config import KafkaConfig
from engine.events.broker_client import open_client
from engine.events.connection import connection_settings
from engine.tracing.spans import record_headers

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 2**20  # A broker takes no larger batch, unless it is told otherwise.
_LINGER_MS = 1  # Records that come this close together travel together.


class ProducerFullError(RuntimeError):
    """Too many records wait for the broker; try again later."""


class RecordTooLargeError(ValueError):
    """The record is larger than the producer or the broker takes; trying again can't help."""


class EventProducer:
    """Sends to the events and items topics; every record is acknowledged by all replicas or fails.

    Args:
        max_pending: records sent and not yet acknowledged; one more fails at once with `ProducerFullError`, and so does
            one that would make them larger together than kafka.max_pending_bytes.

    Raises:
        kafka.errors.KafkaError: no broker answers, or a topic does not exist.
    """

    def __init__(self, config: KafkaConfig, max_pending: int = 10_000) -> None:
        self._config = config
        self._pending = _Pending(max_pending, config.max_pending_bytes)
        # Learn the partitions now: otherwise the first send would block its caller, such as an event loop, for them.
        self._producer = open_producer(config, config.events_topic, config.items_topic)
        # Nor may a later one wait for a topic that has been deleted since.
        self._producer.config["max_block_ms"] = 0

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
        size = len(value)
        if refusal := self._pending.add(size):
            future.set_exception(refusal)
            return future

        def succeed(metadata: Any) -> None:
            self._pending.remove(size)
            future.set_result(
                event_pb2.LogPosition(topic=metadata.topic, partition=metadata.partition, offset=metadata.offset)
            )

        def fail(error: Exception) -> None:
            self._pending.remove(size)
            future.set_exception(_explained(error, topic, size))

        try:
            headers = record_headers()
            sent = self._producer.send(topic, key=key.encode(), value=value, headers=headers, **where)
        except KafkaTimeoutError:  # It had no time to wait in.
            fail(UnknownTopicOrPartitionError(f"the broker knows no partitions of topic {topic!r} now"))
        except Exception as error:  # of any kind: too large, closed
            fail(error)
        else:
            sent.add_callback(succeed)
            sent.add_errback(fail)
        return future


class _Pending:
    """The records that wait for the broker, counted and weighed; safe from any thread."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._records = 0
        self._bytes = 0

    def add(self, size: int) -> ProducerFullError | None:
        """Counts one more record in; why it may not wait, if so."""
        with self._lock:
            if self._records >= self._max_records:
                return ProducerFullError(f"{self._records} events wait for the Kafka broker; try again later")
            # One may always wait: whether it is too large is for the broker to say.
            if self._records and self._bytes + size > self._max_bytes:
                return ProducerFullError(
                    f"events of {self._bytes} bytes wait for the Kafka broker, and one more of {size} would make them"
                    f" larger than kafka.max_pending_bytes={self._max_bytes}; try again later"
                )
            self._change(1, size)
            return None

    def remove(self, size: int) -> None:
        with self._lock:
            self._change(-1, -size)

    def _change(self, records: int, size: int) -> None:
        self._records += records
        self._bytes += size
        metrics.WRITES_WAITING.set(self._records)
        metrics.WRITES_WAITING_BYTES.set(self._bytes)


def _explained(error: Exception, topic: str, size: int) -> Exception:
    if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
        return RecordTooLargeError(
            f"of {size} bytes, more than topic {topic!r} takes (max.message.bytes of the topic, message.max.bytes of"
            f" the broker) or than a request may have ({_MAX_REQUEST_BYTES} bytes)"
        )
    return error


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
        "max_request_size": _MAX_REQUEST_BYTES,
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
