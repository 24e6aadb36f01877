"""Where rejected records go: a topic of their own, with the reason and the position in headers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from engine.config import KafkaConfig
from engine.events.batch import Rejection
from engine.events.producer import close_producer, open_producer

log = logging.getLogger(__name__)

MAX_VALUE_BYTES = 64 * 1024


class DeadLetters(Protocol):
    """Takes what the decoder rejected."""

    def publish(self, rejections: Sequence[Rejection]) -> None:
        """Hands rejections over. Never raises: a lost dead letter is no reason to stop the stream."""

    def settle(self) -> None:
        """Waits until all that was published before is written, or is known to be lost."""


class MemoryDeadLetters:
    """Keeps rejections in a list, for tests that need no broker."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []

    def publish(self, rejections: Sequence[Rejection]) -> None:
        self.rejections.extend(rejections)

    def settle(self) -> None:
        pass


class KafkaDeadLetters:
    """Writes each rejected record to the dead-letters topic.

    The record keeps its key and value, the value cut to 64 KiB. Headers, all UTF-8: `reason`, `topic`, `partition`,
    `offset`, and `truncated` with the full size in bytes where the value was cut.

    Args:
        max_pending: records sent and not yet acknowledged; `publish` waits for room, at most as long as one request.

    Attributes:
        published: records that the topic has.
        failed: records that could not be written; each is logged with its position.

    Raises:
        kafka.errors.KafkaError: no broker answers, or the topic does not exist.
    """

    def __init__(self, config: KafkaConfig, max_pending: int = 10_000) -> None:
        self._config = config
        self._topic = config.dead_letters_topic
        self._pending = threading.BoundedSemaphore(max_pending)
        self._producer = open_producer(config, self._topic)
        # Only the producer's thread and `publish` count, under this lock.
        self._counting = threading.Lock()
        self.published = 0
        self.failed = 0

    def publish(self, rejections: Sequence[Rejection]) -> None:
        for rejection in rejections:
            # Every pending record is acknowledged or fails in bounded time, so this wait is bounded too.
            self._pending.acquire()
            key, value, headers = _letter(rejection)
            try:
                sent = self._producer.send(self._topic, key=key, value=value, headers=headers)
            except Exception as error:  # of any kind: the stream goes on
                self._fail(rejection, error)
            else:
                sent.add_callback(self._succeed)
                sent.add_errback(lambda error, rejection=rejection: self._fail(rejection, error))

    def settle(self) -> None:
        """See `DeadLetters`. A request that is not answered fails in bounded time, so this wait is bounded too."""
        self._producer.flush()

    def close(self) -> None:
        """Waits for what is published, at most the time a request may take. Safe to call twice."""
        close_producer(self._producer, self._config)

    def _succeed(self, _: object) -> None:
        self._pending.release()
        with self._counting:
            self.published += 1

    def _fail(self, rejection: Rejection, error: Exception) -> None:
        self._pending.release()
        with self._counting:
            self.failed += 1
        record = rejection.record
        log.error(
            "dead letter of %s[%d]@%d (%s) is lost: %s",
            record.topic,
            record.partition,
            record.offset,
            rejection.reason,
            error,
        )


def _letter(rejection: Rejection) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
    record = rejection.record
    value = record.value or b""
    headers = [
        ("reason", rejection.reason.encode("utf-8", "backslashreplace")),
        ("topic", record.topic.encode()),
        ("partition", b"%d" % record.partition),
        ("offset", b"%d" % record.offset),
    ]
    if len(value) > MAX_VALUE_BYTES:
        headers.append(("truncated", b"%d" % len(value)))
        value = value[:MAX_VALUE_BYTES]
    return record.key, value, headers
