"""Notes positions with the consumer group. Reading never depends on it: what fails is logged once and tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_CLOSE_MS = 2000


class Committer:
    """Commits the newest positions that it was given, one request at a time.

    `note` and `forget` are safe from any thread; the rest belongs to the thread that polls.

    Args:
        group_id: for messages.
        consumer: makes or returns the consumer to commit with. Called at the first commit, and again if it raised.
        drive: polls that consumer where nobody else does, so that answers arrive.
    """

    def __init__(self, group_id: str, consumer: Callable[[], KafkaConsumer], *, drive: bool) -> None:
        self._group_id = group_id
        self._open = consumer
        self._drive = drive
        self._lock = threading.Lock()
        self._waiting: dict[TopicPartition, int] = {}
        self._epoch = 0  # how often `forget` was called
        self._consumer: KafkaConsumer | None = None
        self._sent: dict[TopicPartition, int] | None = None  # and not answered yet
        self._sent_epoch = 0
        self._failing = False
        self._retry_at = 0.0

    def note(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commits these with the next `send`, in place of older ones."""
        with self._lock:
            self._waiting.update(positions)

    def forget(self) -> None:
        """Drops what is not committed yet: its partitions may belong to another member now."""
        with self._lock:
            self._waiting.clear()
            self._epoch += 1

    def send(self) -> None:
        """Sends what waits, unless an answer is outstanding. Returns at once, and never raises for Kafka."""
        if self._sent is not None:
            if self._drive and self._consumer is not None:
                self._attempt(self._consumer.poll)
            return
        if not self._waiting or time.monotonic() < self._retry_at:
            return
        with self._lock:
            self._sent, self._waiting = self._waiting, {}
            self._sent_epoch = self._epoch
        self._attempt(self._commit)

    def close(self) -> None:
        """Commits what is left, waiting for the answer a short time."""
        with self._lock:
            left = (self._sent or {}) | self._waiting
            self._sent, self._waiting = None, {}
        if left and not self._failing:
            self._attempt(lambda: self._connected().commit(_offsets(left), timeout_ms=_CLOSE_MS))
        if self._drive and self._consumer is not None:
            self._consumer.close(timeout_ms=_CLOSE_MS)

    def _commit(self) -> None:
        self._connected().commit_async(_offsets(self._sent or {}), callback=self._answered)

    def _connected(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = self._open()
        return self._consumer

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except KafkaError as error:
            self._answered({}, error)

    def _answered(self, _: object, answer: Any) -> None:
        sent, self._sent = self._sent or {}, None
        if isinstance(answer, Exception):
            if not self._failing:
                log.warning("positions can't be committed to group %s: %s; reading goes on", self._group_id, answer)
            self._failing = True
            self._retry_at = time.monotonic() + _RETRY_S
            with self._lock:
                if self._sent_epoch == self._epoch:
                    self._waiting = sent | self._waiting
        elif self._failing:
            log.warning("positions are committed to group %s again", self._group_id)
            self._failing = False


def _offsets(positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in positions.items()}
